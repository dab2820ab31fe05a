"""Building: same bytes always, goes on after a stop, names unify, filters hold, nothing is silently dropped."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import broden
from broden.building import read_spec
from broden.building.convert import Target, crop_box, merge_planes, places
from broden.building.names import NameRules
from broden.describing import recount
from broden.packing import pack
from broden.sources.sequence import SequenceSource
from broden.verifying import verify

from . import layouts, makers


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """A synthetic set and a plain folder."""
    root = tmp_path_factory.mktemp("sources")
    broden.synth(root / "synth", images=150, size=48)
    layouts.plain(root / "mine")
    return [
        {"kind": "broden", "name": "synth", "path": str(root / "synth")},
        {"kind": "folder", "name": "mine", "path": str(root / "mine")},
    ]


def spec_of(sources: list[Any], **options: Any) -> broden.BuildSpec:
    plain = {"size": (48, 48), "label_size": (24, 24), "min_images": 1, "min_coverage": 0.0}
    return broden.BuildSpec(sources, **{**plain, **options})


def test_same_bytes_whatever_the_processes_and_after_a_stop(sources: list[Any], tmp_path: Path) -> None:
    spec = spec_of(sources)
    broden.build(spec, tmp_path / "a", workers=1)
    broden.build(spec, tmp_path / "b", workers=2)

    class Stop(Exception):
        pass

    for turn in range(5):
        seen = 0

        def stop(phase: str, done: int, total: int, turn: int = turn) -> None:
            nonlocal seen
            seen += 1
            if seen > turn:
                raise Stop

        with pytest.raises(Stop):
            broden.build(spec, tmp_path / "c", workers=1, progress=stop)
        assert not (tmp_path / "c" / "index.csv").exists()
    broden.build(spec, tmp_path / "c", workers=1)
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")


def test_a_synthetic_set_survives_whole(sources: list[Any], tmp_path: Path) -> None:
    """Same size: pictures byte for byte, labels of all categories but colour equal by name, pixel for pixel."""
    before = broden.open(sources[0]["path"])
    data = broden.build(spec_of([{**sources[0], "categories": [c.name for c in before.categories]}], colors=False),
                        tmp_path / "out")  # fmt: skip
    assert len(data) == len(before)
    old = {row.image.replace("/", "_"): position for position, row in enumerate(before.rows)}
    for _position, row in enumerate(data.rows):
        twin = old[row.image.removeprefix("synth/")]
        source = before.root / "images" / before.rows[twin].image
        assert (data.root / "images" / row.image).read_bytes() == source.read_bytes()

    def named(one: broden.Dataset) -> dict[tuple[str, str], tuple[int, int]]:
        counts, _ = recount(one)
        return {
            (category.name, str(label.name)): (
                int(counts.images[category.index, label.number]),
                int(counts.pixels[category.index, label.number]),
            )
            for category in one.categories
            for label in one.labels.present()
            if counts.images[category.index, label.number]
        }

    assert named(data) == named(before)
    assert verify(data.root).notes == []


def test_the_tables_say_what_the_planes_hold(sources: list[Any], tmp_path: Path) -> None:
    data = broden.build(spec_of(sources, min_images=5, min_coverage=0.5), tmp_path / "out")
    counts, faults = recount(data)
    assert faults == 0
    area = 24 * 24
    for label in data.labels.present():
        images, pixels = counts.images[:, label.number], counts.pixels[:, label.number]
        assert label.frequency == images.sum() >= 5
        assert label.coverage == pytest.approx(pixels.sum() / area, abs=1e-6)
        assert pixels.sum() >= 0.5 * area
    frequencies = [label.frequency for label in data.labels.present()]
    assert frequencies == sorted(frequencies, reverse=True)
    assert [label.number for label in data.labels.present()] == list(range(1, len(frequencies) + 1))
    for category in data.categories:
        codes = list(csv.DictReader((data.root / f"c_{category.name}.csv").open(encoding="utf-8")))
        assert [int(row["code"]) for row in codes] == list(range(1, category.count + 1))
        assert all(row["name"] == data.labels.names[int(row["number"])] for row in codes)


def test_published_loaders_find_no_surprise(sources: list[Any], tmp_path: Path) -> None:
    """By NetDissect's own reading rules: cells split at ';', digits are labels, files are planes of R + 256 G."""
    data = broden.build(spec_of(sources), tmp_path / "out")
    categories = [row["name"] for row in csv.DictReader((data.root / "category.csv").open())]
    labels = {int(row["number"]): row for row in csv.DictReader((data.root / "label.csv").open())}
    assert set(labels) == set(range(1, max(labels) + 1))
    for row in csv.DictReader((data.root / "index.csv").open()):
        assert (row["ih"], row["sh"]) == ("48", "24")
        for category in categories:
            for item in filter(None, row[category].split(";")):
                if item.isdigit():
                    numbers = {int(item)}
                else:
                    with Image.open(data.root / "images" / item) as image:
                        assert (image.mode, image.size) == ("RGB", (24, 24))
                        rgb = np.asarray(image).astype(int)
                    assert not rgb[..., 2].any()
                    numbers = set(np.unique(rgb[..., 0] + 256 * rgb[..., 1]).tolist()) - {0}
                    assert numbers
                assert all(f"{category}(" in labels[n]["category"] for n in numbers)


def test_names_unify() -> None:
    rules = NameRules(
        rename={"sofa": "couch", "settee": "couch", "object:leaf": "foliage"},
        drop=frozenset({"misc", "part:thing"}),
        modifiers=frozenset({"left", "front"}),
    )
    assert rules.unify("object", ("Sofa", "x")) == "couch"
    assert rules.unify("object", ("settee",)) == "couch"
    assert rules.unify("object", ("leaf",)) == "foliage"
    assert rules.unify("part", ("leaf",)) == "leaf"
    assert rules.unify("part", ("left  front_wheel",)) == "wheel"
    assert rules.unify("part", ("left",)) == "left"
    assert rules.unify("object", ("left wing",)) == "left wing"
    assert rules.unify("scene", ("Street",)) == "street-s"
    assert rules.unify("scene", ("street-s",)) == "street-s"
    assert rules.unify("part", ("thing",)) is None
    assert rules.unify("object", ("thing",)) == "thing"
    assert rules.unify("object", ("-", "", "real")) == "real"
    assert rules.unify("object", ("misc", "real")) is None
    assert rules.unify("object", ()) is None
    assert rules.unify("object", ("a;b",)) == "a,b"


def test_two_sources_share_a_concept(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    one = SequenceSource("one", [(pixels, {"object": np.ones((16, 16), int)})], {"object": {1: ("sofa", "lounge")}})
    two = SequenceSource("two", [(pixels, {"object": np.full((16, 16), 5)})], {"object": {5: "couch"}})
    rules = NameRules(rename={"sofa": "couch"})
    data = broden.build(spec_of([one, two], names=rules, colors=False), tmp_path / "out")
    (label,) = data.labels.present()
    assert (label.name, label.frequency, label.coverage) == ("couch", 2, 2.0)
    assert label.synonyms == ("lounge", "sofa")


def test_filtered_concepts_are_unlabelled_and_leave_no_zero_scalars(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    many = [(pixels, {"object": np.ones((16, 16), int), "scene": "street"})] * 3
    once = [(pixels, {"object": np.full((16, 16), 2), "scene": "rare"})]
    source = SequenceSource("s", many + once, {"object": {1: "car", 2: "unicorn"}})
    data = broden.build(spec_of([source], min_images=2, colors=False), tmp_path / "out")
    assert [label.name for label in data.labels.present()] == ["car", "street-s"]
    rare = next(row for row in data.rows if row.image.endswith("00000003.jpg"))
    assert (rare.planes, rare.scalars) == ((), ())


def test_crop_and_squash_line_up(tmp_path: Path) -> None:
    """A coloured block and its mask stay on each other, at any size and fit."""
    pixels, mask = np.zeros((60, 100, 3), np.uint8), np.zeros((60, 100), np.int64)
    pixels[20:40, 40:80], mask[20:40, 40:80] = (255, 0, 0), 1
    source = SequenceSource("s", [(pixels, {"object": mask})], {"object": {1: "block"}})
    for fit in ("squash", "crop"):
        for size in ((32, 32), (48, 24), (97, 53)):
            spec = spec_of([source], size=size, label_size=size, fit=fit, colors=False)
            data = broden.build(spec, tmp_path / f"{fit}{size[0]}")
            red = data.read_image(0)[..., 0] > 128
            assert ((data.read_labels(0).planes[0] > 0) == red).mean() > 0.97
    target = Target((20, 20), (10, 10), "crop", 95, None, NameRules())
    assert crop_box(60, 100, target) == (20.0, 0.0, 80.0, 60.0)
    assert places(0, 224, 224, 112).tolist() == list(range(1, 224, 2))


def test_planes_merge_without_loss() -> None:
    rng = np.random.default_rng(1)
    layers = []
    for number in range(9):
        index = np.zeros((12, 12), np.uint16)
        top, left = rng.integers(0, 9, 2)
        index[top : top + 4, left : left + 4] = 1
        layers.append((["", f"part {number % 4}"], index))
    planes = merge_planes(layers)
    assert len(planes) < 9
    for kind in {names[1] for names, _ in layers}:
        wanted = np.logical_or.reduce([index > 0 for names, index in layers if names[1] == kind])
        found = np.zeros((12, 12), bool)
        for names, index in planes:
            if kind in names:
                found |= index == names.index(kind)
        assert (found == wanted).all()


def test_colours_come_from_the_rule_or_the_users_table(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = (255, 0, 0)
    source = SequenceSource("s", [(pixels, {"object": np.ones((16, 16), int)})], {"object": {1: "car"}})
    names = {label.name for label in broden.build(spec_of([source]), tmp_path / "a").labels.present()}
    assert names == {"red-c", "black-c", "car"}
    np.save(tmp_path / "w2c.npy", np.full((32, 32, 32), 6))
    spec = spec_of([source], colors=str(tmp_path / "w2c.npy"))
    names = {label.name for label in broden.build(spec, tmp_path / "b").labels.present()}
    assert names == {"pink-c", "car"}


def test_a_spec_file(tmp_path: Path) -> None:
    layouts.plain(tmp_path / "mine")
    text = """
        size = [24, 32]
        fit = "crop"
        min_images = 1
        min_coverage = 0
        colors = false
        [names]
        rename = { Car = "vehicle" }
        [[source]]
        kind = "folder"
        name = "mine"
        path = "mine"
        limit = 1
    """
    (tmp_path / "spec.toml").write_text(text)
    spec = read_spec(tmp_path / "spec.toml")
    assert (spec.size, spec.label_size, spec.fit, spec.names.rename) == (
        (24, 32), (12, 16), "crop", {"car": "vehicle"})  # fmt: skip
    data = broden.build(tmp_path / "spec.toml", tmp_path / "out")
    assert len(data) == 1
    assert data.labels.find("vehicle") is not None
    assert str(tmp_path) not in (data.root / "build.json").read_text()


BAD_SPECS = [
    ("size = 'x'\n[[source]]\nkind='dtd'\nname='a'\npath='p'", "size is 'x'"),
    ("nonsense = 1\n[[source]]\nkind='dtd'\nname='a'\npath='p'", "unknown key 'nonsense'"),
    ("fit = 'stretch'", "fit is"),
    ("size = 3", "8..4096"),
    ("", "no [[source]]"),
    (
        "[[source]]\nkind='dtd'\nname='a'\npath='p'\n[[source]]\nkind='dtd'\nname='a'\npath='q'",
        "another source is named",
    ),
    ("[[source]]\nkind='dtd'\nname='../a'\npath='p'", "cannot name a folder"),
    ("[[source]]\nkind='dtd'\nname='a'", "path is None"),
    ("[[source]]\nkind='zoo'\nname='a'\npath='p'", "source kind is 'zoo'"),
    ("[names]\nrename = {a = 1}\n[[source]]\nkind='dtd'\nname='a'\npath='p'", "rename maps"),
    ("size = = 3", "not TOML"),
    ("min_coverage = nan", "at least 0"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_SPECS)
def test_a_bad_spec_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "spec.toml").write_text(text)
    (tmp_path / "p").mkdir()
    with pytest.raises(broden.DataError) as caught:
        broden.build(tmp_path / "spec.toml", tmp_path / "out")
    assert reason in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_images_that_would_get_one_name_are_refused(tmp_path: Path) -> None:
    layouts.put(tmp_path / "in/labels.csv", "category,number,name\nobject,1,car\n")
    for name in ("a/b.jpg", "a_b.jpg"):
        layouts.put(tmp_path / "in/images" / name, makers.jpeg(0))
    with pytest.raises(broden.DataError, match="would both be"):
        broden.build(spec_of([{"kind": "folder", "name": "s", "path": str(tmp_path / "in")}]), tmp_path / "out")


def test_too_many_concepts_are_refused() -> None:
    from broden.writing import Tally, assign

    tally = Tally(4)
    for number in range(65536):
        tally.add(("object", f"thing {number}"), 1)
    with pytest.raises(broden.DataError, match="65,536 concepts"):
        assign(tally, ["object"])


def test_a_build_is_not_written_into_its_source_or_over_others(sources: list[Any], tmp_path: Path) -> None:
    with pytest.raises(broden.DataError, match="inside the source"):
        broden.build(spec_of(sources), Path(sources[1]["path"]) / "out")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("x")
    with pytest.raises(broden.DataError, match="not the beginning of this build"):
        broden.build(spec_of(sources), tmp_path / "taken")
    same = replace(spec_of(sources), sources=[sources[1], sources[1]])
    with pytest.raises(broden.DataError, match="two sources"):
        broden.build(same, tmp_path / "out")


def test_originals_are_never_touched(sources: list[Any], tmp_path: Path) -> None:
    before = [tree(Path(source["path"])) for source in sources]
    broden.build(spec_of(sources), tmp_path / "out")
    assert [tree(Path(source["path"])) for source in sources] == before


def camvid_like(real: broden.Dataset, root: Path) -> None:
    """The street images of the real set with colour masks and a colour table."""
    rows = [(p, row) for p, row in enumerate(real.rows) if row.image.startswith("camvid/")]
    names: dict[int, str] = {}
    obj = next(c.index for c in real.categories if c.name == "object")
    for position, row in rows[:40]:
        stem = row.image.removeprefix("camvid/").removesuffix(".jpg")
        layouts.put(root / f"701_StillsRaw_full/{stem}.png", makers.png(real.read_image(position, (112, 112))))
        labels = real.read_labels(position)
        plane = next(p for p, (c, _) in zip(labels.planes, row.planes, strict=True) if c == obj)
        for number in np.unique(plane[plane > 0]).tolist():
            names[number] = str(real.labels.names[number])
        rgb = np.stack([plane % 251, plane // 251 + 40, plane % 7], -1).astype(np.uint8)
        rgb[plane == 0] = 0
        layouts.put(root / f"LabeledApproved_full/{stem}_L.png", makers.png(rgb))
    lines = [f"{n % 251} {n // 251 + 40} {n % 7}\t{name}" for n, name in names.items()]
    layouts.put(root / "label_colors.txt", "\n".join(["0 0 0 Void", *lines]))


def clothing_like(real: broden.Dataset, root: Path) -> None:
    """The clothing images of the real set as a plain folder with masks of objects, parts and materials."""
    used: dict[tuple[str, int], str] = {}
    rows = [(p, row) for p, row in enumerate(real.rows) if row.image.startswith("ccp/")]
    for position, row in rows[:40]:
        stem = row.image.removeprefix("ccp/").removesuffix(".jpg")
        layouts.put(root / f"images/{stem}.jpg", (real.root / "images" / row.image).read_bytes())
        for at, ((category, _), plane) in enumerate(zip(row.planes, real.read_labels(position).planes, strict=True)):
            kind = real.categories[category].name
            if kind == "color":
                continue
            used.update({(kind, n): str(real.labels.names[n]) for n in np.unique(plane[plane > 0]).tolist()})
            layouts.put(root / f"masks/{kind}/{stem}_{at}.png", makers.png(plane))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("category", "number", "name"))
    writer.writerows((kind, number, name) for (kind, number), name in sorted(used.items()))
    layouts.put(root / "labels.csv", out.getvalue())


@pytest.mark.slow
def test_real_images_go_through_build_and_pack_with_equal_counts(shared_data: Path, tmp_path: Path) -> None:
    real = broden.open(shared_data / "broden_real")
    camvid_like(real, tmp_path / "camvid")
    clothing_like(real, tmp_path / "ccp")
    tables = [
        {"kind": "camvid", "name": "camvid", "path": str(tmp_path / "camvid"), "scene": "street"},
        {"kind": "folder", "name": "ccp", "path": str(tmp_path / "ccp"), "scaled": True},
        {"kind": "broden", "name": "real", "path": str(real.root), "limit": 60},
    ]
    spec = broden.BuildSpec(tables, (112, 112), (112, 112), min_images=2, min_coverage=0.05)
    data = broden.build(spec, tmp_path / "set", workers=1)
    assert len(data) == 140
    assert verify(data.root, workers=1).faults == []
    packed = pack(data.root, tmp_path / "pack", workers=1)
    left, right = recount(data)[0], recount(packed)[0]
    assert (left.images == right.images).all()
    assert (left.pixels == right.pixels).all()
    # Labels of the street images are those of the real set, by name, pixel for pixel.
    twins = {row.image: p for p, row in enumerate(real.rows)}
    obj = next(c.index for c in real.categories if c.name == "object")
    here = next(c.index for c in data.categories if c.name == "object")
    for position, row in enumerate(data.rows):
        if not row.image.startswith("camvid/"):
            continue
        twin = twins[row.image]
        old = real.read_labels(twin).planes[[p.category for p in real.rows[twin].planes].index(obj)]
        new = data.read_labels(position).planes[[p.category for p in row.planes].index(here)]
        old_names = np.array([str(name) for name in real.labels.names])[old]
        new_names = np.array([str(name) for name in data.labels.names])[new]
        assert ((old_names == new_names) | (new == 0)).all()
        assert (new == 0).mean() <= (old == 0).mean() + 0.05
