"""The synthetic set: same bytes always, truth equal to what its files say, everything a real set has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import broden
from broden import colours, synthetic
from broden.synthetic import vocabulary as words
from broden.tables import read_table
from broden.writing import hashed_place


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> broden.Dataset:
    return broden.synth(tmp_path_factory.mktemp("synth") / "set", images=200, size=64, seed=3)


def test_same_arguments_give_the_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    broden.synth(tmp_path / "a", images=130, size=48, seed=7, workers=1)
    broden.synth(tmp_path / "b", images=130, size=48, seed=7, workers=3)
    broden.synth(tmp_path / "c", images=130, size=48, seed=8, workers=1)
    a, b, c = (_bytes(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() - {"facts.csv"}
    assert a != c


def test_all_six_categories_and_the_oddities_of_real_sets(made: broden.Dataset) -> None:
    assert {c.name for c in made.categories} == {"color", "object", "part", "material", "scene", "texture"}
    assert made.image_size == (64, 64)
    assert made.label_size == (32, 32)
    part = next(c.index for c in made.categories if c.name == "part")
    assert max(sum(p.category == part for p in row.planes) for row in made.rows) == 2
    assert any(not row.planes and not row.scalars for row in made.rows)
    assert sum(len(label.categories) > 1 for label in made.labels.present()) >= 3
    twice = 0
    for position in range(len(made)):
        planes = made.read_labels(position).planes
        for first in range(len(planes)):
            for second in range(first):
                twice += int(((planes[first] == planes[second]) & (planes[first] > 0)).sum())
    assert twice > 100


def test_tables_equal_a_count_of_the_files(made: broden.Dataset) -> None:
    area = 32 * 32
    frequency: dict[tuple[int, int], int] = {}
    pixels: dict[tuple[int, int], int] = {}
    for position, row in enumerate(made.rows):
        labels = made.read_labels(position)
        masks: dict[tuple[int, int], np.ndarray] = {}
        for (category, _), plane in zip(row.planes, labels.planes, strict=True):
            for number in np.unique(plane[plane > 0]).tolist():
                masks[category, number] = masks.get((category, number), False) | (plane == number)
        for category, number in row.scalars:
            masks[category, number] = np.ones((32, 32), bool)
        for key, mask in masks.items():
            frequency[key] = frequency.get(key, 0) + 1
            pixels[key] = pixels.get(key, 0) + int(mask.sum())
    totals = []
    for label in made.labels.present():
        keys = [key for key in frequency if key[1] == label.number]
        assert label.categories == {made.categories[c].name: frequency[c, n] for c, n in keys}
        assert label.frequency == sum(frequency[key] for key in keys)
        assert label.coverage == pytest.approx(sum(pixels[key] for key in keys) / area, abs=1e-6)
        totals.append(label.frequency)
    assert totals == sorted(totals, reverse=True)
    for category in made.categories:
        numbers = [n for c, n in frequency if c == category.index]
        assert (category.first, category.last, category.count) == (min(numbers), max(numbers), len(numbers))


def test_rows_stand_in_the_published_order_with_the_published_split(made: broden.Dataset) -> None:
    places = [hashed_place(row.image) for row in made.rows]
    assert places == sorted(places)
    assert [row.split for row in made.rows] == ["train" if p <= 0.7 else "val" for p in places]


def test_colours_are_the_names_of_the_painted_pixels(made: broden.Dataset) -> None:
    """JPEG moves single pixels over a boundary; most must agree."""
    color = next(c.index for c in made.categories if c.name == "color")
    agree = []
    for position, row in enumerate(made.rows[:60]):
        labels = made.read_labels(position)
        for (category, _), plane in zip(row.planes, labels.planes, strict=True):
            if category == color:
                named = colours.name_pixels(made.read_image(position)[1::2, 1::2])
                text = np.array([f"{name}-c" for name in colours.NAMES])[named]
                agree.append((text == np.array([str(n) for n in made.labels.names])[plane]).mean())
    assert np.mean(agree) > 0.75


@pytest.mark.parametrize("concepts", [12, 40, words.BASE, words.BASE + 1, 300, 1197])
def test_the_vocabulary_has_as_many_names_as_asked(concepts: int) -> None:
    names = words.make_vocabulary(concepts).names
    assert len({name for _, name in names}) == concepts
    assert {category for category, _ in names} == set(words.KINDS)


def test_many_concepts_are_shown(tmp_path: Path) -> None:
    few = broden.synth(tmp_path / "few", images=150, size=32, concepts=12)
    assert len(few.labels.present()) == 12
    many = broden.synth(tmp_path / "many", images=150, size=32, concepts=1197)
    assert len(many.labels.present()) > 300


@pytest.mark.parametrize(("name", "value"), [("images", 0), ("size", 8), ("concepts", 11), ("concepts", 1198)])
def test_wrong_arguments(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        broden.synth(tmp_path / "x", **{"images": 5, name: value})
    assert not any(tmp_path.iterdir())


def test_a_taken_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(broden.DataError, match="not an empty folder"):
        broden.synth(tmp_path, images=5)
    assert (tmp_path / "mine").read_text() == "x"


def test_facts_follow_the_labels(made: broden.Dataset) -> None:
    told = synthetic.read_facts(made.root)
    assert told.keys() == {row.image for row in made.rows}
    by_category = {c.name: c.index for c in made.categories}
    for position, row in enumerate(made.rows):
        fact = told[row.image]
        assert fact == synthetic.facts(fact.number, seed=3)
        for category, kind in (("scene", fact.scene and f"{fact.scene}-s"), ("texture", fact.texture)):
            names = [made.labels.names[s.number] for s in row.scalars if s.category == by_category[category]]
            assert names == ([kind] if kind else [])
        if fact.object:
            planes = made.read_labels(position).planes
            shown = {made.labels.names[n] for n in np.unique(planes).tolist()}
            assert fact.object in shown
    kinds = [fact.object for fact in told.values() if fact.source == "scenes"]
    assert len(set(kinds)) == 8


def test_checksums_cover_every_file(made: broden.Dataset) -> None:
    files = _bytes(made.root)
    from broden.paths import Root
    from broden.writing import CHECKSUM_COLUMNS, CHECKSUMS, checksum

    rows = {r.text("file"): r for r in read_table(Root(made.root), CHECKSUMS, CHECKSUM_COLUMNS)}
    assert rows.keys() == files.keys() - {CHECKSUMS}
    for name, record in rows.items():
        assert checksum(name, files[name]) == (name, record.integer("bytes", 0, 10**9), record.text("sha256"))


@pytest.mark.parametrize("size", [33, 113, 227])
def test_odd_sizes_line_up(tmp_path: Path, size: int) -> None:
    data = broden.synth(tmp_path / "set", images=6, size=size)
    assert data.label_size == (size // 2, size // 2)
    for batch in broden.stream(data, 4):
        assert batch.valid.all()
    with Image.open(data.root / "images" / data.rows[0].image) as image:
        assert image.size == (size, size)
