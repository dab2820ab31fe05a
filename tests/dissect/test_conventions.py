"""Each convention against the definition on whole arrays, and the traps that tell them apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dissect import conventions, reference
from dissect.errors import SpecError
from tests.dissect.test_pipeline import Net, activations, run
from tests.dissect.tiny import NAMES, TinySet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    return TinySet(tmp_path_factory.mktemp("tiny"))


def numpy_upsample(maps: np.ndarray, position: np.ndarray, border: str) -> np.ndarray:
    """maps [N, U, h, w] read at fractional source positions [H] on both axes, by np.interp along each."""
    size = maps.shape[-1]
    nodes = np.arange(size, dtype=np.float64)
    if border == "zero":
        maps = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
        nodes = np.arange(-1, size + 1, dtype=np.float64)
    once = np.apply_along_axis(lambda line: np.interp(position, nodes, line), 2, maps)
    return np.apply_along_axis(lambda line: np.interp(position, nodes, line), 3, once)


def expected(tiny: TinySet, maps: np.ndarray, name: str, quantile: float) -> dict[str, np.ndarray]:
    images, units, height, _ = maps.shape
    target = np.arange(tiny.size)
    half_pixel = (target + 0.5) * height / tiny.size - 0.5
    stride = 2 * tiny.size // height
    field = (target - stride // 2 // 2) / (stride // 2)
    up = numpy_upsample(
        maps.astype(np.float64),
        field if name == "netdissect" else half_pixel,
        "zero" if name == "dissect2020" else "edge",
    )
    values = (up if name == "dissect2020" else maps).transpose(1, 0, 2, 3).reshape(units, -1).astype(np.float64)
    if name == "dissect2020":
        level = np.sort(values, 1)[:, ::-1][:, int(quantile * values.shape[1])]
    else:
        level = np.quantile(values, 1 - round(1000 * quantile) / 999, axis=1)
    masks = up > level[:, None, None]
    meeting, concept = np.zeros((units, len(NAMES)), np.int64), np.zeros(len(NAMES), np.int64)
    area = np.zeros((units, 6), np.int64)
    for i in range(images):
        where = np.zeros((len(NAMES), tiny.size, tiny.size), np.int64)
        for _, plane in tiny.planes[i]:
            for number in range(1, len(NAMES)):
                where[number] += plane == number
        for _, number in tiny.scalars[i]:
            where[number] += number > 0
        if name == "dissect2020":
            where = (where > 0).astype(np.int64)
        concept += where.sum((1, 2))
        for u in range(units):
            inside = (masks[i, u][None] * where).sum((1, 2))
            meeting[u] += inside
            for k in range(6):
                mine = [n for n in range(1, len(NAMES)) if tiny.primary[n] == k]
                counts = {"netdissect": where[mine].any(), "lite": inside[mine].any(), "dissect2020": True}[name]
                area[u, k] += masks[i, u].sum() * bool(counts)
    return {"threshold": level, "intersection": meeting, "area": area, "concept": concept}


@pytest.mark.parametrize("name", ["netdissect", "lite", "dissect2020"])
@pytest.mark.parametrize("layer", ["first", "second"])
def test_conventions_equal_their_definition(tiny: TinySet, tmp_path: Path, name: str, layer: str) -> None:
    result = run(tiny, Net(), tmp_path, (layer,), convention=name, quantile=0.05)
    found, wanted = result.layers[layer], expected(tiny, activations(tiny, Net(), layer), name, 0.05)
    assert np.allclose(found.threshold, wanted["threshold"], rtol=1e-4, atol=1e-5)
    assert np.array_equal(result.totals.area, wanted["concept"])
    for field in ("intersection", "area"):
        assert np.abs(getattr(found, field) - wanted[field]).max() <= 2, field


def test_the_set_tells_the_conventions_apart(tiny: TinySet) -> None:
    maps = activations(tiny, Net(), "second")
    found = {name: expected(tiny, maps, name, 0.05) for name in ("netdissect", "lite", "dissect2020")}
    assert (found["netdissect"]["concept"] != found["dissect2020"]["concept"]).any()
    assert (found["lite"]["area"] <= found["netdissect"]["area"] + 60).all()
    assert not np.array_equal(found["lite"]["area"], found["netdissect"]["area"])


def test_published_node_positions() -> None:
    rows, _ = conventions.NETDISSECT.axes((7, 7), (112, 112))
    maps = torch.arange(7.0).repeat(7, 1).T.contiguous()
    columns = conventions.EXACT.axes((7, 7), (112, 112))[1]
    up = reference.upsample(maps, rows.node, rows.t, columns.node, columns.t)[:, 50]
    assert up[[0, 8, 24, 104, 111]].tolist() == [0, 0, 1, 6, 6]
    rows, _ = conventions.NETDISSECT.axes((13, 13), (113, 113))
    assert [int(rows.node[4 + 8 * i, 0]) for i in range(12)] == list(range(12))


def test_zero_border_reaches_zero_half_a_cell_outside() -> None:
    rows, columns = conventions.DISSECT2020.axes((2, 2), (8, 8))
    ones = conventions.pad_ring(torch.ones(1, 2, 2, 1))[0, :, :, 0]
    up = reference.upsample(ones, rows.node, rows.t, columns.node, columns.t)
    assert up[0, 4].item() == pytest.approx(0.625)
    assert up[2:6, 2:6].eq(1).all()


def test_unknown_conventions_are_named() -> None:
    with pytest.raises(SpecError, match="expected one of exact, netdissect, lite, dissect2020"):
        conventions.get("paper")
