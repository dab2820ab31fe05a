"""Plans: every unit once, and what passes hold together within the budget."""

import pytest

from dissect import conventions
from dissect.errors import SpaceError
from dissect.plan import BATCH_SHARE, HALF, LATER_SHARE, Plan, make_plan
from dissect.scan import LayerScan

LABELS, CATEGORIES = 1198, 6
SHAPES = {
    "early": (112, 112, 64), "late": (7, 7, 1280), "wide": (7, 7, 65536), "vectors": (1, 1, 4096), "tall": (224, 224, 3)
}  # fmt: skip


def planned(layers: tuple[str, ...], batch: int, memory: int) -> Plan:
    convention = conventions.get("exact")
    shapes = {layer: SHAPES[layer] for layer in layers}
    return make_plan(shapes, (112, 112), 63305, (LABELS, CATEGORIES), convention, 0.005, 10, batch, memory)


@pytest.mark.parametrize("memory", [256 << 20, 1280 << 20])
@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("layers", [("early",), ("late", "vectors"), ("wide",), ("early", "late", "tall")])
def test_passes_take_every_unit_once_and_hold_no_more_than_they_may(
    layers: tuple[str, ...], batch: int, memory: int
) -> None:
    plan = planned(layers, batch, memory)
    for layer in layers:
        ranges = sorted((part.first, part.last) for parts in plan.passes for part in parts if part.layer == layer)
        ends = [0, *(last for _, last in ranges)]
        assert [first for first, _ in ranges] == ends[:-1]
        assert ends[-1] == SHAPES[layer][2]
    for number, parts in enumerate(plan.passes):
        tails = sum(part.units * LayerScan.tail_bytes(part.keep, part.places) for part in parts)
        counts = sum(8 * part.units * (LABELS + CATEGORIES) for part in parts)
        assert max(tails, counts) <= memory // HALF
        # Of a first batch every node is a candidate, of 5 bytes at least, more than twice there while it is gathered.
        whole = sum(part.units * batch * part.height * part.width * 5 * 2 for part in parts)
        share = LATER_SHARE if number else BATCH_SHARE
        assert whole <= memory // share or sum(part.units for part in parts) == 1
    assert plan.candidate_bytes > 0
    held = max(plan.scan_bytes, plan.count_bytes) + plan.candidate_bytes + plan.label_bytes + plan.peak_bytes
    assert held < memory


def test_larger_batches_take_fewer_units_of_an_early_layer_at_once() -> None:
    few, many = (len(planned(("early",), batch, 256 << 20).passes) for batch in (8, 64))
    assert few < many


def test_a_unit_that_does_not_fit_is_an_error_that_names_what_would_do() -> None:
    with pytest.raises(SpaceError, match=r"'tall' needs .* for one unit .* raise it to"):
        planned(("tall",), 8, 64 << 20)
