"""The whole method on a small set: against a dense oracle, against planted truth, and under every store policy."""

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import broden
from dissect import pipeline, reference, scores, upsample
from dissect.errors import SpecError
from dissect.pipeline import Method, Resources
from tests.dissect.tiny import NAMES, TinySet


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinySet:
    return TinySet(tmp_path_factory.mktemp("tiny"))


class Net(nn.Module):
    """Three layers with an in-place ReLU after the first: 12 units 8 x 8, 9 units 4 x 4, 5 units 1 x 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(12, 9, 3, stride=2, padding=1)
        self.head = nn.Linear(9, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.relu(self.first(x)))
        return self.head(x.mean((2, 3)))


class Planted(nn.Module):
    """Unit 0 is the mask of label 3 (cat), unit 1 that of label 5 (wheel), unit 2 is dead, unit 3 has a NaN,
    unit 4 is saturated (its maximum everywhere but in one place of each batch)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, ::2, ::2] * 255
        cat, wheel = (x[:, c].sub(20 * n).abs() < 1 for c, n in ((0, 3), (1, 5)))
        maps = torch.zeros(len(x), 5, x.shape[2], x.shape[3])
        maps[:, 0], maps[:, 1], maps[:, 2] = cat, wheel, 7.5
        maps[:, 3] = cat
        maps[0, 3, 0, 0] = torch.nan
        maps[:, 4] = 1
        maps[0, 4, 0, 0] = 0
        return maps


def run(
    tiny: TinySet,
    net: nn.Module,
    tmp_path: Path,
    layers: tuple[str, ...],
    resources: dict | None = None,
    **method: object,
) -> pipeline.Result:
    torch.set_num_threads(1)
    data = broden.open(tiny.folder)
    spec = Method(layers, **{"quantile": 0.05, "batch_size": 5, "exemplars": 3} | method)  # type: ignore[arg-type]
    return pipeline.dissect(net, data, spec, Resources(tmp_path / "work", **(resources or {})))


def dense(tiny: TinySet, maps: np.ndarray, quantile: float) -> dict[str, np.ndarray]:
    """The definition on whole arrays: maps [N, U, h, w]."""
    images, units, height, width = maps.shape
    values = maps.transpose(0, 2, 3, 1).reshape(-1, units)
    k = int(quantile * len(values))
    level = np.sort(values, 0)[::-1][k]
    tables = [upsample.half_pixel(s, tiny.size) for s in (height, width)]
    up = reference.upsample(torch.from_numpy(maps), tables[0].node, tables[0].t, tables[1].node, tables[1].t).numpy()
    masks = up > level[:, None, None]
    meeting = np.zeros((units, len(NAMES)), np.int64)
    area, concept = np.zeros((units, 6), np.int64), np.zeros(len(NAMES), np.int64)
    for i in range(images):
        where = tiny.holds(i)
        concept += where.sum((1, 2))
        meeting += (masks[i][:, None] & where[None]).sum((2, 3))
        for category in {tiny.primary[n] for n in np.flatnonzero(where.any((1, 2)))}:
            area[:, category] += masks[i].sum((1, 2))
    return {"threshold": level, "intersection": meeting, "area": area, "mask": masks.sum((0, 2, 3)), "concept": concept}


def activations(tiny: TinySet, net: Net, upto: str) -> np.ndarray:
    data = broden.open(tiny.folder)
    x = np.stack([data.read_image(i) for i in range(len(data))])
    x = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / (
        torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    )
    with torch.no_grad():
        first = net.first(x)
        second = net.second(first.relu())
        found = {"first": first, "second": second, "head": net.head(second.mean((2, 3)))[:, :, None, None]}
    return found[upto].numpy()


@pytest.mark.parametrize("layer", ["first", "second", "head"])
def test_counts_equal_the_dense_definition(tiny: TinySet, tmp_path: Path, layer: str) -> None:
    result = run(tiny, Net(), tmp_path, ("first", "second", "head"))
    found, expected = result.layers[layer], dense(tiny, activations(tiny, Net(), layer), 0.05)
    assert np.allclose(found.threshold, expected["threshold"], rtol=1e-4)
    assert np.array_equal(result.totals.area, expected["concept"])
    # float rounding of the forward pass (layout, batch) may move single pixels
    for name in ("intersection", "area", "mask"):
        assert np.abs(getattr(found, name) - expected[name]).max() <= 2, name
    assert found.k == int(0.05 * found.n)


def test_exemplar_maps_draw_the_masks_that_were_counted(tiny: TinySet, tmp_path: Path) -> None:
    result = run(tiny, Net(), tmp_path, ("second",))
    layer, maps = result.layers["second"], activations(tiny, Net(), "second")
    tables = [upsample.half_pixel(s, tiny.size) for s in layer.map_size]
    for u in range(layer.units):
        for e in range(3):
            whole, kept = maps[layer.exemplars.image[u, e], u], layer.exemplars.maps[u, e]
            masks = [
                reference.upsample(
                    torch.from_numpy(np.ascontiguousarray(m)), tables[0].node, tables[0].t, tables[1].node, tables[1].t
                ).numpy()
                > layer.threshold[u]
                for m in (whole, kept)
            ]
            assert (masks[0] != masks[1]).sum() <= 1  # float rounding of the forward pass
            assert not masks[1].any() or int(kept.argmax()) == layer.exemplars.place[u, e]


def test_planted_masks_score_one(tiny: TinySet, tmp_path: Path) -> None:
    net = nn.Sequential(Planted())
    result = run(tiny, net, tmp_path, ("0",), quantile=0.25, mean=(0, 0, 0), std=(1, 1, 1))
    layer = result.layers["0"]
    counts = scores.Counts(layer.intersection, layer.area, result.totals.area, np.array(tiny.primary))
    labels = scores.label_units(counts)
    assert [NAMES[n] for n in labels.label] == ["cat", "wheel", "", "", ""]
    assert labels.iou.tolist() == [1, 1, 0, 0, 0]
    assert layer.dead.tolist() == [False, False, True, False, False]
    assert layer.saturated.tolist() == [False, False, False, False, True]
    assert layer.nonfinite.tolist() == [0, 0, 0, 5, 0]  # one in the first image of each batch
    cat = np.stack([tiny.holds(i)[3] for i in range(tiny.images)])
    for number in range(1, len(NAMES)):
        other = np.stack([tiny.holds(i)[number] for i in range(tiny.images)])
        of_category = [
            any(tiny.holds(i)[n].any() for n in range(1, 11) if tiny.primary[n] == tiny.primary[number])
            for i in range(24)
        ]
        meeting = int((cat & other).sum())
        union = int(cat[of_category].sum() + other.sum() - meeting)
        found = counts.iou(slice(0, 1), np.array([number]))[0, 0]
        assert found == (meeting / union if meeting else 0)


@pytest.fixture(scope="module")
def quiet(tiny: TinySet, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Result:
    return run(tiny, Net(), tmp_path_factory.mktemp("quiet"), ("first", "second"))


def assert_same(left: pipeline.Result, right: pipeline.Result) -> None:
    assert left.images == right.images
    assert np.array_equal(left.totals.area, right.totals.area)
    assert [held.tolist() for held in left.totals.holding] == [held.tolist() for held in right.totals.holding]
    for name, layer in left.layers.items():
        for field in dataclasses.fields(layer):
            ours, theirs = getattr(layer, field.name), getattr(right.layers[name], field.name)
            if field.name == "histogram" and theirs is not None:
                assert np.array_equal(ours.edges, theirs.edges)
                assert np.array_equal(ours.count, theirs.count)
            elif isinstance(ours, np.ndarray) and len(theirs):  # no blocks where memory is short
                assert ours.tobytes() == theirs.tobytes(), (name, field.name)
        for field in dataclasses.fields(layer.exemplars):
            ours, theirs = (getattr(r.layers[name].exemplars, field.name) for r in (left, right))
            assert ours.tobytes() == theirs.tobytes(), (name, field.name)


def test_spilled_candidates_give_the_same_bits(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "make_plan", _starved(pipeline.make_plan))
    result = run(tiny, Net(), tmp_path, ("first", "second"))
    assert result.disk_bytes >= result.spilled_bytes > 0
    assert result.forwarded_again == 0
    assert_same(quiet, result)


def test_forwarding_again_gives_the_same_bits(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "make_plan", _starved(pipeline.make_plan))
    result = run(tiny, Net(), tmp_path, ("first", "second"), {"disk": 0})
    assert result.disk_bytes == result.spilled_bytes == 0
    assert result.forwarded_again > 0
    assert_same(quiet, result)


@pytest.fixture(scope="module")
def shards(tiny: TinySet, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Path]]:
    """Measures the shards of the quiet run."""

    def measured(count: int, **options: object) -> list[Path]:
        folder = tmp_path_factory.mktemp("shards")
        paths = []
        for i in reversed(range(count)):
            path = folder / f"{i}.partial"
            path.write_bytes(_sharded(measure, tiny, folder, shard=(i, count), **options))
            paths.append(path)
        return paths

    return measured


def _sharded(call, tiny: TinySet, folder: Path, resources: Any = None, **options: object):  # type: ignore[no-untyped-def]
    torch.set_num_threads(1)
    method = Method(("first", "second"), quantile=0.05, batch_size=5, exemplars=3)
    return call(Net(), broden.open(tiny.folder), method, Resources(folder / "work", **(resources or {})), **options)


def measure(*what: Any, thresholds: Any = None, **options: Any) -> bytes:
    partial = io.BytesIO()
    with pipeline.sharded(*what, thresholds=thresholds) as work:
        work.measure(file=partial, **options)
    return partial.getvalue()


def finish(*what: Any, thresholds: Any = None, **options: Any) -> pipeline.Result:
    with pipeline.sharded(*what, thresholds=thresholds) as work:
        return work.finish(**options)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_shards_give_the_same_bits(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, shards: Callable[..., list[Path]], count: int
) -> None:
    paths = shards(count)
    assert [path.read_bytes() for path in shards(count)] == [path.read_bytes() for path in paths]
    try:
        result = _sharded(finish, tiny, tmp_path, partials=paths)
    except pipeline.Loose as loose:
        whole = shards(count, whole=True)
        chosen = [whole[k] if count - 1 - k in loose.shards else path for k, path in enumerate(paths)]
        result = _sharded(finish, tiny, tmp_path, partials=chosen)
    assert_same(quiet, result)


def test_shards_that_could_not_keep_their_candidates_give_the_same_bits(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room in memory nor on the disk: partials without those batches, which are forwarded again at the end."""
    paths = [tmp_path / f"{i}.partial" for i in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_plan", _starved(pipeline.make_plan))
        for i, path in enumerate(paths):
            path.write_bytes(_sharded(measure, tiny, tmp_path, {"disk": 0}, shard=(i, 2), whole=True))
    result = _sharded(finish, tiny, tmp_path, partials=paths)
    assert result.forwarded_again > 0
    assert_same(quiet, result)


def test_a_shard_that_let_too_much_go_is_named(
    tiny: TinySet, tmp_path: Path, shards: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dissect import partial

    monkeypatch.setattr(partial, "shard_keep", lambda keep, share, batches: 2)
    paths = shards(2)
    with pytest.raises(pipeline.Loose) as loose:
        _sharded(finish, tiny, tmp_path, partials=paths)
    assert loose.value.shards == (0, 1)


def test_shards_that_do_not_go_together_are_refused(
    tiny: TinySet, tmp_path: Path, shards: Callable[..., list[Path]]
) -> None:
    paths = shards(2)
    cut = tmp_path / "cut.partial"
    for given, message in (
        (paths[:1], "shards 0 are missing"),
        ([paths[0], paths[0]], "does not go with the others"),
        ([paths[0], shards(3)[0]], "does not go with the others"),
        ([cut, *paths[1:]], "cut.partial is not a whole partial result"),
    ):
        cut.write_bytes(paths[0].read_bytes()[:-4000])
        with pytest.raises(SpecError, match=message):
            _sharded(finish, tiny, tmp_path, partials=given)
    with pytest.raises(SpecError, match="shard 2/2 does not exist"):
        _sharded(measure, tiny, tmp_path, shard=(2, 2))


def test_shards_with_other_samples_of_peaks_are_refused(
    tiny: TinySet, tmp_path: Path, shards: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less memory may keep the passes and still thin the peaks."""
    paths = shards(2)
    plan = pipeline.make_plan
    monkeypatch.setattr(pipeline, "make_plan", lambda *args: dataclasses.replace(plan(*args), every=2))
    with pytest.raises(SpecError, match="is a shard of another run"):
        _sharded(finish, tiny, tmp_path, partials=paths)


def test_a_bad_image_of_a_shard_is_set_aside(tiny: TinySet, tmp_path: Path, shards: Callable[..., list[Path]]) -> None:
    paths = shards(2, bad={7: "it ended the process three times"})
    result = _sharded(finish, tiny, tmp_path, partials=paths)
    assert result.images == 23
    assert [(fault.position, fault.reason) for fault in result.faults] == [(7, "it ended the process three times")]


def test_given_thresholds_count_as_they_stand(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, shards: Callable[..., list[Path]]
) -> None:
    """The run's own thresholds give its own counts; lower ones, larger masks."""
    given = {name: layer.threshold for name, layer in quiet.layers.items()}
    again = _sharded(pipeline.dissect, tiny, tmp_path, thresholds=given)
    parted = _sharded(finish, tiny, tmp_path, partials=shards(2, thresholds=given), thresholds=given)
    lower = {name: values - 0.5 for name, values in given.items()}
    wider = _sharded(pipeline.dissect, tiny, tmp_path, thresholds=lower)
    for name, layer in quiet.layers.items():
        for result in (again, parted):
            assert np.array_equal(result.layers[name].intersection, layer.intersection)
            assert np.array_equal(result.layers[name].area, layer.area)
        assert (wider.layers[name].mask > layer.mask).all()


def test_histograms_count_every_activation(tiny: TinySet, quiet: pipeline.Result) -> None:
    for name, layer in quiet.layers.items():
        values = activations(tiny, Net(), name).astype(np.float64)
        assert layer.histogram is not None
        edges, counts = layer.histogram.edges, layer.histogram.count
        assert (np.diff(edges) > 0).all()
        assert (counts.sum(1) == layer.n).all()
        assert counts[:, 0].any()
        assert counts[:, -1].any()
        for u in range(layer.units):
            expected = np.histogram(values[:, u], edges)[0]
            # the forward pass may round otherwise next to an edge
            assert np.abs(counts[u] - expected).sum() <= 4


def test_blocks_add_up(quiet: pipeline.Result) -> None:
    for layer in quiet.layers.values():
        assert len(layer.block_area) == 64
        assert np.array_equal(layer.block_intersection.sum(0)[:, 1:], layer.intersection[:, 1:])
        assert np.array_equal(layer.block_area.sum(0), layer.area)
        blocks = np.flatnonzero(layer.block_area.any((1, 2)))
        assert blocks.tolist() == [0, 1, 2, 3, 4]  # one for each batch of five images
    assert np.array_equal(quiet.totals.block_area.sum(0), quiet.totals.area)


def test_peaks_and_what_images_hold(tiny: TinySet, quiet: pipeline.Result) -> None:
    assert quiet.every == 1
    for name, layer in quiet.layers.items():
        maps = activations(tiny, Net(), name)
        assert np.allclose(layer.peaks, maps.max((2, 3)), rtol=1e-4, atol=1e-5)
    for i, held in enumerate(quiet.totals.holding):
        assert held.tolist() == np.flatnonzero(tiny.holds(i).any((1, 2))).tolist()


def test_peaks_of_a_sample_where_all_do_not_fit(tiny: TinySet, tmp_path: Path, quiet: pipeline.Result) -> None:
    result = run(tiny, Net(), tmp_path, ("first", "second"), {"memory": 10_000})
    assert result.every == 3
    for name, layer in result.layers.items():
        assert layer.peaks.tobytes() == np.ascontiguousarray(quiet.layers[name].peaks[::3]).tobytes()


def _starved(make):  # type: ignore[no-untyped-def]
    return lambda *args: dataclasses.replace(make(*args), candidate_bytes=4000, label_bytes=0)


def test_several_passes_give_the_same_bits(tiny: TinySet, tmp_path: Path, quiet: pipeline.Result) -> None:
    lines: list[str] = []
    data = broden.open(tiny.folder)
    method = Method(("first", "second"), quantile=0.05, batch_size=5, exemplars=3)
    result = pipeline.dissect(Net(), data, method, Resources(tmp_path / "work", memory=40_000), lines.append)
    assert not lines[0].startswith("1 pass ")
    assert_same(quiet, result)


def test_time_and_disk_are_foretold(tiny: TinySet, tmp_path: Path) -> None:
    data, folder = broden.open(tiny.folder), tmp_path / "work"
    method = Method(("first", "second"), quantile=0.05, batch_size=5, exemplars=3)
    roomy = pipeline.foretell(Net(), data, method, Resources(folder, memory=1 << 30))
    assert roomy.seconds > 0
    assert roomy.temporary_bytes == 0
    counts = 8 * 21 * len(data.labels)
    assert counts < roomy.kept_bytes < 100 * counts
    tight = pipeline.foretell(Net(), data, method, Resources(folder, memory=40_000))
    assert tight.temporary_bytes >= counts
    assert tight.seconds > 0
    assert not folder.exists()


class _Interrupted(Exception):
    pass


def test_finished_passes_are_not_begun_again(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, calls = pipeline.count, []

    def interrupted(setting, work):  # type: ignore[no-untyped-def]
        calls.append([item.part.first for item in work])
        if len(calls) == 3:
            raise _Interrupted
        return count(setting, work)

    monkeypatch.setattr(pipeline, "count", interrupted)
    with pytest.raises(_Interrupted):
        run(tiny, Net(), tmp_path, ("first", "second"), {"memory": 40_000})
    result = run(tiny, Net(), tmp_path, ("first", "second"), {"memory": 40_000})
    assert calls[3] == calls[2]
    assert_same(quiet, result)
    assert not (tmp_path / "work").exists()


def test_finished_passes_keep_no_counts_in_memory(
    tiny: TinySet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, kept = pipeline.save_pass, []

    def watched(*args):  # type: ignore[no-untyped-def]
        kept.extend(pieces := save(*args))
        return pieces

    monkeypatch.setattr(pipeline, "save_pass", watched)
    run(tiny, Net(), tmp_path, ("first", "second"), {"memory": 40_000})
    assert len(kept) > 2
    for piece in kept:
        assert isinstance(piece.intersection, np.memmap)
        for name in ("block_intersection", "block_area"):  # none at all, but a view of none keeps the whole
            assert getattr(piece, name).base is None, name


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_an_interrupted_run_goes_on_with_the_same_bits(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    stream, seen = broden.stream, []

    def interrupted(*args, **options):  # type: ignore[no-untyped-def]
        for batch in stream(*args, **options):
            seen.append(batch.first)
            if len(seen) > 1 + batches:  # the first was read to foretell the time
                raise _Interrupted
            yield batch

    monkeypatch.setattr(broden, "stream", interrupted)
    with pytest.raises(_Interrupted):
        run(tiny, Net(), tmp_path, ("first", "second"), {"checkpoint_seconds": 0.0})
    monkeypatch.setattr(broden, "stream", stream)
    starts: list[int] = []

    def watched(*args, **options):  # type: ignore[no-untyped-def]
        starts.append(options["batches"][0])
        return stream(*args, **options)

    monkeypatch.setattr(broden, "stream", watched)
    result = run(tiny, Net(), tmp_path, ("first", "second"))
    assert starts[1] == batches
    assert_same(quiet, result)


@pytest.mark.parametrize(("before", "after"), [(1 << 30, 40_000), (40_000, 1 << 30), (40_000, 60_000)])
@pytest.mark.parametrize("finished", [0, 2])
def test_an_interrupted_run_goes_on_with_the_same_bits_under_another_budget(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch, before: int, after: int,
    finished: int,
) -> None:  # fmt: skip
    """What was saved belongs to other units of the layer: none of it is taken for what it is not."""
    count, calls = pipeline.count, []

    def interrupted(setting, work):  # type: ignore[no-untyped-def]
        calls.append(number := len(calls))
        if number >= finished or len(setting.plan.passes) == 1:
            raise _Interrupted
        return count(setting, work)

    monkeypatch.setattr(pipeline, "count", interrupted)
    with pytest.raises(_Interrupted):
        run(tiny, Net(), tmp_path, ("first", "second"), {"checkpoint_seconds": 0.0, "memory": before})
    monkeypatch.setattr(pipeline, "count", count)
    assert_same(quiet, run(tiny, Net(), tmp_path, ("first", "second"), {"memory": after}))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_saved_state_that_was_damaged_is_not_believed(
    tiny: TinySet, tmp_path: Path, quiet: pipeline.Result, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(pipeline, "count", _interrupt)
    with pytest.raises(_Interrupted):
        run(tiny, Net(), tmp_path, ("first", "second"), {"checkpoint_seconds": 0.0})
    monkeypatch.undo()
    state = tmp_path / "work" / "state.npz"
    data = bytearray(state.read_bytes())
    for i in range(64):  # a byte of an array, whatever lies there
        data[int(share * (len(data) - 64)) + i] ^= 0x5A
    state.write_bytes(data)
    assert_same(quiet, run(tiny, Net(), tmp_path, ("first", "second")))


def _interrupt(*args: object) -> None:
    raise _Interrupted


def test_a_shard_that_was_killed_goes_on_from_its_saved_state(
    tiny: TinySet, tmp_path: Path, shards: Callable[..., list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, seen, starts = broden.stream, [], []
    whole = shards(2)[1].read_bytes()  # shards come last first

    def interrupted(*args, **options):  # type: ignore[no-untyped-def]
        for batch in stream(*args, **options):
            seen.append(batch.first)
            if len(seen) > 2:
                raise _Interrupted
            yield batch

    monkeypatch.setattr(broden, "stream", interrupted)
    with pytest.raises(_Interrupted):
        _sharded(measure, tiny, tmp_path, {"checkpoint_seconds": 0.0}, shard=(0, 2))

    def watched(*args, **options):  # type: ignore[no-untyped-def]
        starts.append(options["batches"][0])
        return stream(*args, **options)

    monkeypatch.setattr(broden, "stream", watched)
    assert _sharded(measure, tiny, tmp_path, shard=(0, 2)) == whole
    assert starts == [4]  # batches 0 and 2 of the shard were done


def test_the_model_is_left_as_it_was(tiny: TinySet, tmp_path: Path) -> None:
    net = Net().train()
    net.relu.eval()
    before = {name: (value.stride(), value.clone()) for name, value in net.state_dict().items()}
    run(tiny, net, tmp_path, ("first",), dtype="bfloat16")
    assert all(
        value.stride() == before[name][0] and torch.equal(value, before[name][1])
        for name, value in net.state_dict().items()
    )
    assert net.training
    assert net.first.training
    assert not net.relu.training
    assert not any(module._forward_hooks for module in net.modules())


def test_a_compiled_network_gives_the_same_maps(tiny: TinySet, tmp_path: Path, quiet: pipeline.Result) -> None:
    """The in-place ReLU after `first` must not show in its maps; compiled arithmetic may round otherwise."""
    net = Net()
    result = run(tiny, net, tmp_path, ("first", "second"), compiled=True)
    for name, layer in quiet.layers.items():
        assert np.allclose(result.layers[name].threshold, layer.threshold, rtol=1e-5)
        assert np.abs(result.layers[name].intersection - layer.intersection).max() <= 2
        assert np.allclose(result.layers[name].low, layer.low, rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for module in net.modules())


def test_too_few_images_are_named(tiny: TinySet, tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"too few images: quantile 0\.005 of 24 activations per unit keeps none; at least 200"
    ):
        run(tiny, Net(), tmp_path, ("head",), quantile=0.005)


def test_a_broken_image_is_set_aside_and_nothing_else_changes(tmp_path: Path) -> None:
    whole = TinySet(tmp_path / "whole", images=20)
    broken = TinySet(tmp_path / "broken", images=20)
    path = broken.folder / "images" / "a" / "007_object_1.png"
    path.write_bytes(path.read_bytes()[:40])
    result = run(broken, Net(), tmp_path, ("first", "second"))
    assert [fault.file for fault in result.faults] == ["a/007_object_1.png"]
    assert result.images == 19
    assert np.isneginf(result.layers["first"].peaks[7]).all()
    assert not len(result.totals.holding[7])
    maps = np.delete(activations(whole, Net(), "second"), 7, 0)
    whole.planes.pop(7)
    whole.scalars.pop(7)
    expected = dense(whole, maps, 0.05)
    assert np.array_equal(result.totals.area, expected["concept"])
    assert np.allclose(result.layers["second"].threshold, expected["threshold"], rtol=1e-4)
    assert np.abs(result.layers["second"].intersection - expected["intersection"]).max() <= 2
