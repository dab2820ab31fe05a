"""Synthesised pictures stand on the cards of their units, and only there; one command writes all pages."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dissect import publish
from dissect.cli.main import main
from dissect.store import Store, attributions, syntheses
from dissect.store.syntheses import PictureRecord, SynthesisRecord
from reports import data
from tests.dissect.store import makers

MADE = SynthesisRecord("a" * 64, "maximize", "m", 7, {}, {"targets": []}, "inversion/x", weights_sha256="5" * 64)
PICTURES = [
    PictureRecord("maximum-impulse", "3.png", "0" * 64, "conv", 3, "conv unit 3", None, 0, -1.5, {"synthetic": 2.0}),
    PictureRecord("maximum-impulse", "3b.png", "0" * 64, "conv", 3, "conv unit 3", None, 1, -1.5, {"synthetic": 2.5}),
    PictureRecord("maximum-impulse", "gone.png", "1" * 64, "conv", 4, "conv unit 4", None, 0, -1.5),
    PictureRecord("maximum-impulse", "other.png", "2" * 64, "fc", 5, "fc unit 5", None, 0, -1.5),
    PictureRecord("maximum-sheet", "sheet.png", "3" * 64),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with makers.open_store(tmp_path / "w") as opened:
        record = replace(makers.run_record("1" * 64, "mine"), weights_sha256="5" * 64)
        makers.save(opened, record, units=6, concepts=12, layers=("conv",))
        folder = opened.workspace.root / "inversion/x"
        folder.mkdir(parents=True)
        for k, one in enumerate(PICTURES):
            if one.path != "gone.png":
                pixels = np.full((300, 300, 3), 40 * k, np.uint8)
                Image.fromarray(pixels).save(folder / one.path)
        yield opened


def made_in(store: Store) -> dict[int, list]:
    """By unit what its record says of synthesised pictures."""
    (path,) = (store.workspace.report_folder("mine") / "layers/0-conv/data").glob("*.js")
    first, found = data.parse(path.read_text())
    return {first + at: record["m"] for at, record in enumerate(found) if "m" in record}


def test_a_units_card_shows_what_was_made_for_it(store: Store) -> None:
    publish.publish_run(store, "mine")
    assert made_in(store) == {}
    assert not list(store.workspace.report_folder("mine").rglob("*.webp"))
    syntheses.save(store, MADE, PICTURES)
    assert publish.publish_run(store, "mine").redrawn == 6
    assert made_in(store) == {
        3: [
            ["made/00003-0.webp", "Maximum impulse of unit 3", "answer 2", 224, 224],
            ["made/00003-1.webp", "Maximum impulse of unit 3, restart 1", "answer 2.5", 224, 224],
        ]
    }
    folder = store.workspace.report_folder("mine") / "layers/0-conv"
    with Image.open(io.BytesIO((folder / "made/00003-1.webp").read_bytes())) as picture:
        assert abs(int(np.asarray(picture.convert("L")).mean()) - 40) < 3
    assert 'src="made/00003-0.webp" alt="Maximum impulse of unit 3"' in (folder / "plain-0.html").read_text()
    assert publish.publish_run(store, "mine").kept == 6


def test_whose_pictures(store: Store) -> None:
    """Of the run, or of no run and the same weights; never of another run or of other weights."""
    for changes, shown in (
        ({"run_id": "1" * 64, "weights_sha256": None}, True),
        ({}, True),
        ({"weights_sha256": "6" * 64}, False),
        ({"weights_sha256": None}, False),
    ):
        syntheses.save(store, replace(MADE, **changes), PICTURES)
        publish.publish_run(store, "mine")
        assert bool(made_in(store)) == shown, changes


def test_one_command_writes_every_page(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--workspace", str(store.workspace.root)]
    root = store.workspace.root / "reports"
    assert main(["report", "mine", *place]) == 0
    assert not (root / "_gallery").exists()
    assert not (root / "_attributions").exists()
    assert "_gallery" not in (root / "index.html").read_text()
    syntheses.save(store, MADE, PICTURES)
    judged = attributions.JudgementRecord("planted", "pictures", 5, {"seed": 1})
    cell = attributions.ScoreRecord("saliency", "mass-inside", 0, 0, 0.5, None, [0.5])
    attributions.save_judgement(store, judged, [cell])
    assert main(["report", "mine", *place]) == 0
    html = (root / "index.html").read_text()
    for page in ("_gallery", "_attributions"):
        assert (root / page / "index.html").is_file()
        assert f'href="{page}/index.html"' in html
