"""Store to pages: the numbers are the database's, pictures come from the run's own data, nothing local leaks."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import broden
import reports
from dissect import publish
from dissect.cli.main import main
from dissect.errors import DissectError, SpecError
from dissect.store import ExemplarTable, Store
from reports import data as scripts
from reports import pages
from tests.dissect.store import makers
from tests.dissect.tiny import TinySet


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with makers.open_store(tmp_path / "w") as opened:
        yield opened


def columns_of(folder: Path) -> dict[str, list[Any]]:
    (path,) = folder.glob("layers/*/units-0.js")
    return scripts.parse(path.read_text())[1]


def test_every_unit_has_the_numbers_of_the_database(store: Store) -> None:
    """All units of the page's data file against the rows of `query units`: labels, integers, scores to the last bit."""
    run = makers.save(store, makers.run_record(name="r"), units=300, concepts=40)
    written = publish.publish_run(store, "r")
    sent = columns_of(written.index.parent)
    concepts = {c.number: c for c in store.concepts(run.id)}
    from dissect.api import open as open_workspace

    rows = {row["unit"]: row for row in open_workspace(str(store.workspace.root)).units(run="r")}
    assert sorted(rows) == list(range(300))
    for unit, row in rows.items():
        number = sent["concept"][unit]
        assert row["concept"] == (concepts[number].name if number >= 0 else None)
        assert (row["intersection"], row["unit_area"]) == (sent["intersection"][unit], sent["area"][unit])
        assert row["threshold"] == sent["threshold"][unit]
        area = concepts[number].area if number >= 0 else 0
        i, a = sent["intersection"][unit], sent["area"][unit]
        assert row["iou"] == (i / (a + area - i) if i else 0.0)
        assert [row["dead"], row["saturated"]] == [sent["flags"][unit] & 1, sent["flags"][unit] >> 1 & 1]
    assert "iou" not in sent


def test_cards_hold_the_best_concepts_and_the_best_of_each_category(store: Store) -> None:
    run = makers.save(store, units=20, concepts=60)
    page, _ = publish.run_page(store, run)
    layer = store.layers(run.id)[0]
    counts, areas = np.asarray(store.counts(layer)), store.unit_areas(layer)
    concepts = {c.number: c for c in store.concepts(run.id)}
    for card in page.layers[0].cards(0, 20):

        def score(number: int, unit: int = card.unit) -> float:
            i, a = counts[unit, number], areas[unit, concepts[number].category]
            return i / (a + concepts[number].area - i) if i else 0.0

        order = sorted((n for n in concepts if score(n)), key=lambda n: (-score(n), -concepts[n].category, n))
        assert [s.concept for s in card.best] == order[:10]
        firsts = {}
        for n in order:
            firsts.setdefault(concepts[n].category, n)
        assert [s.concept for s in card.by_category] == list(firsts.values())
        for s in (*card.best, *card.by_category):
            assert s.intersection == counts[card.unit, s.concept]
            assert s.unit_area == areas[card.unit, concepts[s.concept].category]


def test_without_the_counts_file_the_stored_pairs_serve(store: Store) -> None:
    run = makers.save(store, units=5, concepts=30)
    page, _ = publish.run_page(store, run)
    complete = [c.by_category for c in page.layers[0].cards(0, 5)]
    (store.workspace.root / store.workspace.counts_name(run.id, 0)).unlink()
    again, _ = publish.run_page(store, run)
    assert [c.by_category for c in again.layers[0].cards(0, 5)] == complete
    assert again.layers[0].digest != page.layers[0].digest


def with_pictures(store: Store, folder: Path) -> broden.Dataset:
    """A finished run over a real small set, with activation maps of its exemplars."""
    TinySet(folder)
    data = broden.open(folder)
    known = makers.concept_records(10)
    counts = makers.counts_of(6, known)
    unit, rank = np.repeat(np.arange(6), 3), np.tile(np.arange(1, 4), 6)
    position = (unit * 3 + rank) % len(data)
    shown = ExemplarTable(
        unit, rank, position, np.array([data.rows[p].image for p in position.tolist()], object),
        np.linspace(9, 1, 18), rank, rank,
    )  # fmt: skip
    run = makers.run_record(
        name="seen", data_name=data.name, data_fingerprint=data.fingerprint, provenance={"data_root": str(data.root)}
    )
    layer = makers.layer_record("conv", counts, map_h=4, map_w=4)
    store.begin_run(run)
    store.finish_run(run.id, [dataclasses.replace(layer, exemplars=shown)], known, makers.category_records())
    maps = np.random.default_rng(0).normal(size=(6, 3, 4, 4)).astype(np.float32) + 1
    store.workspace.cache_folder(run.id).mkdir(parents=True, exist_ok=True)
    np.save(store.workspace.cache_folder(run.id) / "0-exemplar-maps.npy", maps)
    return data


def test_pictures_masks_and_segmentations_of_the_runs_own_data(store: Store, tmp_path: Path) -> None:
    data = with_pictures(store, tmp_path / "set")
    written = publish.publish_run(store, "seen")
    out = written.index.parent
    assert out == store.workspace.report_folder("seen")
    assert len(list(out.glob("layers/0-conv/img/*.jpg"))) == 6
    _, found = scripts.parse((out / "layers/0-conv/data/00000.js").read_text())
    exemplar = found[2]["e"][1]
    assert exemplar[:2] == [8, data.rows[8].image]
    assert exemplar[5].startswith("M")
    assert exemplar[6][:2] == [4, 4]
    _, labels = scripts.parse((out / "segments/0.js").read_text())
    planes = data.read_labels(8).planes
    assert len(labels["8"][1]) == len(planes)
    runs = labels["8"][1][0]
    assert np.repeat(runs[2::2], runs[3::2]).reshape(runs[:2]).tolist() == planes[0].tolist()


def test_missing_broken_and_exchanged_images_are_said(store: Store, tmp_path: Path) -> None:
    data = with_pictures(store, tmp_path / "set")
    images = tmp_path / "set" / "images"
    (images / data.rows[1].image).unlink()
    (images / data.rows[2].image).write_bytes(b"no picture")
    out = publish.publish_run(store, "seen").index.parent
    _, found = scripts.parse((out / "layers/0-conv/data/00000.js").read_text())
    gone = {e[0] for record in found for e in record["e"] if e[7]}
    assert gone == {1, 2}
    assert "has changed since the run" in (out / "index.html").read_text()
    assert "2 of its top images are missing" in (out / "layers/0-conv/plain-0.html").read_text()


def test_other_data_is_refused_when_named_and_said_when_not(store: Store, tmp_path: Path) -> None:
    with_pictures(store, tmp_path / "set")
    TinySet(tmp_path / "other", seed=5)
    with pytest.raises(SpecError, match="fingerprint"):
        publish.publish_run(store, "seen", data=tmp_path / "other")
    with pytest.raises(SpecError, match="nowhere"):
        publish.publish_run(store, "seen", data=tmp_path / "nowhere")
    (tmp_path / "set").rename(tmp_path / "moved")
    out = publish.publish_run(store, "seen").index
    assert "not where the run found it" in out.read_text()
    assert not list(out.parent.rglob("*.jpg"))
    again = publish.publish_run(store, "seen", data=tmp_path / "moved")
    assert again.redrawn == 6
    assert list(out.parent.rglob("*.jpg"))


def test_no_folder_no_clock_no_host_on_any_page(store: Store, tmp_path: Path) -> None:
    run = makers.run_record(
        name="private", source="/home/ann/models/net.py:make", model="/home/ann/models/net.py:make",
        spec={"weights": "/srv/secret/w.pth", "limit": None},
        provenance={"data_root": "/srv/secret/data", "gpu": "H200", "wall_time": 12.5, "hostname": "node7",
                    "libraries": {"pillow": "13.0", "path": "C:\\Users\\ann\\x.dll"},
                    "notes": ["read ~/private/w.pth"]},
    )  # fmt: skip
    makers.save(store, run, units=40)
    out = publish.publish_run(store, "private").index.parent
    record = store.get_run("private")
    text = "\n".join(p.read_text() for p in out.rglob("*") if p.suffix in (".html", ".js") and p.name != "report.js")
    for secret in (
        "/home",
        "secret",
        "Users",
        "~/",
        "node7",
        "12.5",
        record.created_at,
        str(record.finished_at),
        str(tmp_path),
    ):
        assert secret not in text, secret
    for kept in ("net.py:make", "w.pth", "H200", "13.0", "x.dll"):
        assert kept in text, kept


def test_provenance_names_everything(store: Store) -> None:
    run = makers.save(store)
    page, _ = publish.run_page(store, run)
    facts = {f.key: f.value for f in page.provenance}
    wanted = "run, model, weights sha256, concept data, concept data fingerprint, split, images, images set aside"
    wanted += ", convention, quantile, code version, layer conv, torch"
    assert set(wanted.split(", ")) <= set(facts)
    assert page.excluded == (pages.Excluded(3, "images/3.jpg", "truncated"),)
    assert any("1 image could not be used" in line for line in page.honesty)
    assert any("dead" in line and "not finite" in line for line in page.honesty)


def test_same_database_same_bytes(store: Store, tmp_path: Path) -> None:
    makers.save(store, makers.run_record(name="r"), units=40)
    with makers.open_store(tmp_path / "second") as other:
        makers.save(other, makers.run_record(name="r"), units=40)
        one = publish.publish_run(store, "r", tmp_path / "a").index.parent
        two = publish.publish_run(other, "r", tmp_path / "b").index.parent

    def read(root: Path) -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    assert read(one) == read(two)


def test_unfinished_and_unknown_runs_are_refused(store: Store) -> None:
    store.begin_run(makers.run_record(name="half"))
    with pytest.raises(SpecError, match="half is running"):
        publish.publish_run(store, "half")
    with pytest.raises(SpecError, match="no run"):
        publish.publish_run(store, "nobody")
    makers.save(store, makers.run_record("b" * 64, name="whole"))
    with pytest.raises(DissectError, match="--max-report-bytes"):
        publish.publish_run(store, "whole", max_bytes=1000)


def test_comparison_and_workspace(store: Store) -> None:
    makers.save(store, makers.run_record("a" * 64, name="one"), units=30, layers=("l1", "l2"))
    makers.save(store, makers.run_record("b" * 64, name="two"), units=30, seed=3, layers=("l1",))
    with pytest.raises(SpecError, match=r"2 layers \(l1, l2\).*one:LAYER"):
        publish.publish_compare(store, ["one", "two"])
    index = publish.publish_compare(store, ["one:l1", "two"])
    text = index.read_text()
    assert "What became of the labels" in text
    one, two = (store.units(store.layer(store.get_run(r).id, "l1")) for r in ("one", "two"))
    for units in (one, two):
        assert f'<td class="n">{int((units.iou > 0.04).sum())}</td>' in text
    publish.publish_run(store, "one")
    page = publish.publish_workspace(store)
    html = page.read_text()
    assert 'href="one/index.html"' in html
    assert 'href="two/index.html"' not in html
    assert f'<a href="{index.parent.name}/index.html">one and two</a>' in html
    for path in page.parent.joinpath("_workspace").glob("*.html"):
        for link in re.findall(r'href="([^"#]*)', path.read_text()):
            assert not link or (path.parent / link).exists(), (path.name, link)
    makers.save(store, makers.run_record("c" * 64, name="lite", convention="lite"))
    with pytest.raises(SpecError, match="different convention"):
        publish.publish_compare(store, ["two", "lite"])


def test_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makers.save(store, makers.run_record(name="r"), units=12)
    place = ["--workspace", str(store.workspace.root)]
    assert main(["report", "r", *place]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(store.workspace.report_folder("r") / "index.html")
    assert "12 units drawn" in said.err
    assert main(["report", "r", "--out", str(tmp_path / "stick"), *place]) == 0
    assert (tmp_path / "stick/index.html").is_file()
    assert main(["report", "nobody", *place]) == 2
    assert main(["report", "r", "--max-report-bytes", "10", *place]) == 1
    assert "--max-report-bytes" in capsys.readouterr().err


def test_report_folder_names(store: Store) -> None:
    for name, folder in (("a b", "a b"), ("x:y", None), ("résumé", "résumé")):
        record = makers.run_record(name=name)
        assert publish.report_folder(store, record).name == (folder or record.id)
    assert reports.layer_folder(3, "features.18.1") == "layers/3-features.18.1"
    assert json.dumps(reports.layer_folder(0, "a/../b"))[1:-1] == "layers/0-a-..-b"
