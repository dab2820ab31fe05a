"""The unit x concept table: every question equals a plain filter over all pairs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dissect.api
from dissect import scores
from dissect.errors import SpecError
from dissect.query import grammar
from dissect.store import ConceptRecord, Store, UnitTable
from dissect.store.filters import ConceptFilter, ImageFilter, Key, UnitFilter
from dissect.store.other_rows import concept_rows, image_rows
from dissect.store.unit_rows import COLUMNS, UnitRows
from tests.dissect.query import console
from tests.dissect.query.conftest import NAMES
from tests.dissect.store import makers

CATEGORIES = list(makers.CATEGORIES)
INTEGERS = ("iou", "intersection", "unit_area", "concept_area", "rank")
REALS = ("iou_low", "iou_high", "phi", "iqr", "ap")
KEYS = (
    "run",
    "layer",
    "unit",
    "concept",
    "category",
    "iou",
    "intersection",
    "unit_area",
    "concept_area",
    "threshold",
    "rank",
)


@pytest.fixture(scope="module")
def store(folder: Path):
    with Store.open(folder, readonly=True) as opened:
        yield opened


def _names(concept: ConceptRecord) -> dict:
    return {"concept": concept.name, "category": CATEGORIES[concept.category]}


def _known(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


def _unit(units: UnitTable, unit: int) -> dict:
    threshold = float(units.threshold[unit])
    return {
        "threshold": threshold if np.isfinite(threshold) else None, "dead": int(units.dead[unit]),
        "saturated": int(units.saturated[unit]), "nonfinite": int(units.nonfinite[unit] > 0),
        **{name: _known(getattr(units, name)[unit]) for name in ("stability", "p_value", "q_value", "iou_null")},
    }  # fmt: skip


@pytest.fixture(scope="module")
def pairs(store: Store) -> list[dict]:
    """All stored pairs and all labels of all runs, by plain loops; the order of layers as `order`."""
    found = []
    order = 0
    for run in store.runs(["finished"]):
        concepts = {concept.number: concept for concept in store.concepts(run.id)}
        for layer in store.layers(run.id):
            units, table = store.units(layer), store.scores(layer)

            place = {"run": run.id, "run_name": run.name, "layer": layer.name, "order": order}
            for i in range(len(table.unit)):
                facts = {name: getattr(table, name)[i].item() for name in ("unit", *INTEGERS)}
                facts |= {name: _known(getattr(table, name)[i]) for name in REALS}
                meeting, area, size = (facts[name] for name in ("intersection", "unit_area", "concept_area"))
                facts |= {"precision": meeting / area, "recall": meeting / size, "f1": 2 * meeting / (area + size)}
                row = place | facts | _names(concepts[table.concept[i].item()]) | _unit(units, facts["unit"])
                found.append(row | {"stored": True})
                if facts["rank"] == 1:
                    found.append(row | {"stored": False})
            for unit in np.flatnonzero(units.label == 0).tolist():
                nothing = dict.fromkeys(INTEGERS, 0) | {"unit": unit, "iou": 0.0, "rank": 1, "stored": False}
                nothing |= dict.fromkeys(REALS) | dict.fromkeys(("precision", "recall", "f1"), 0.0)
                found.append(place | nothing | {"concept": None, "category": None} | _unit(units, unit))
            order += 1
    return found


def plain(pairs: list[dict], wanted: UnitFilter) -> list[tuple]:
    """What a filter means, spelt out."""
    kept = []
    for row in pairs:
        odd = {"dead": row["dead"], "saturated": row["saturated"], "nonfinite": row["nonfinite"]}
        if all(
            (
                row["stored"] == (wanted.rank != 1),
                wanted.rank is None or row["rank"] == wanted.rank,
                not wanted.runs or row["run"] in wanted.runs or row["run_name"] in wanted.runs,
                not wanted.layers or row["layer"] in wanted.layers,
                not wanted.units or row["unit"] in wanted.units,
                not wanted.concepts or row["concept"] in wanted.concepts,
                not wanted.categories or row["category"] in wanted.categories,
                wanted.search is None or wanted.search.lower() in (row["concept"] or ""),
                wanted.min_iou is None or row["iou"] >= wanted.min_iou,
                wanted.max_iou is None or row["iou"] <= wanted.max_iou,
                not wanted.detectors or row["iou"] > 0.04,
                wanted.state is None or (not any(odd.values()) if wanted.state == "sound" else odd[wanted.state]),
            )
        ) and not (wanted.search is not None and row["concept"] is None):
            kept.append(row)
    kept.sort(key=lambda row: (-row["iou"], row["unit"], row["order"], row["rank"]))
    return [tuple(row[name] for name in COLUMNS) for row in kept]


FILTERS = st.builds(
    UnitFilter,
    runs=st.sampled_from([(), (), ("first",), ("b" * 64,), ("first", "b" * 64)]),
    layers=st.sampled_from([(), (), ("conv",), ("conv", "fc")]),
    units=st.one_of(st.just(()), st.lists(st.integers(0, 45), max_size=5).map(tuple)),
    concepts=st.one_of(st.just(()), st.lists(st.sampled_from(NAMES), max_size=10, unique=True).map(tuple)),
    categories=st.one_of(st.just(()), st.lists(st.sampled_from(CATEGORIES), max_size=3, unique=True).map(tuple)),
    min_iou=st.one_of(st.none(), st.floats(0, 0.4)),
    max_iou=st.one_of(st.none(), st.floats(0, 0.4)),
    rank=st.sampled_from([1, 1, None, None, 2, 5]),
    detectors=st.booleans(),
    search=st.sampled_from([None, None, "o", "-s"]),
    state=st.sampled_from([None, None, None, "sound", "dead", "nonfinite", "saturated"]),
).filter(lambda wanted: wanted.runs != ("b" * 64,) or "fc" not in wanted.layers)


@settings(max_examples=120, deadline=None)
@given(wanted=FILTERS)
def test_every_filter_means_what_it_says(store: Store, pairs: list[dict], wanted: UnitFilter) -> None:
    assert list(UnitRows(store, wanted).rows()) == plain(pairs, wanted)


@settings(max_examples=25, deadline=None)
@given(wanted=FILTERS, size=st.integers(20, 90))
def test_pages_are_the_whole(store: Store, pairs: list[dict], wanted: UnitFilter, size: int) -> None:
    """Any page size, through tokens: no row twice, none lost."""
    found, token = [], None
    while True:
        asked = UnitRows(store, wanted)
        rows, last = asked.page(size, None if token is None else grammar.read_token(token, wanted))
        found += rows
        if last is None:
            break
        assert len(rows) == size
        token = grammar.page_token(last, wanted)
    assert found == plain(pairs, wanted)


def test_small_chunks_change_nothing(store: Store, pairs: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    from dissect.store import unit_rows

    monkeypatch.setattr(unit_rows, "CHUNK", 7)
    for rank in (1, None):
        assert list(UnitRows(store, UnitFilter(rank=rank)).rows()) == plain(pairs, UnitFilter(rank=rank))


@settings(max_examples=40, deadline=None)
@given(wanted=FILTERS)
def test_facets_count_the_rows(store: Store, pairs: list[dict], wanted: UnitFilter) -> None:
    facets = UnitRows(store, wanted).facets(seconds=30)
    assert facets is not None
    rows = [dict(zip(COLUMNS, row)) for row in plain(pairs, wanted)]
    for name in ("layer", "concept", "category"):
        values = [row[name] for row in rows]
        assert dict(facets[name]) == {value: values.count(value) for value in values}
        assert [count for _, count in facets[name]] == sorted((count for _, count in facets[name]), reverse=True)


def test_facets_give_up_in_time(store: Store) -> None:
    assert UnitRows(store, UnitFilter()).facets(seconds=0) is None


def test_one_row_a_unit_by_default(folder: Path) -> None:
    found = console.rows("query", "units", "--workspace", str(folder), "--run", "first", "--layer", "conv")
    assert sorted(row["unit"] for row in found) == list(range(40))
    assert all(set(KEYS) <= set(row) for row in found)
    assert [(-row["iou"], row["unit"]) for row in found] == sorted((-row["iou"], row["unit"]) for row in found)
    odd = [row for row in found if row["dead"] or row["nonfinite"]]
    assert [(row["concept"], row["iou"], row["rank"]) for row in odd] == [(None, 0.0, 1)] * 2
    for row in found:
        union = row["unit_area"] + row["concept_area"] - row["intersection"]
        assert row["iou"] == (row["intersection"] / union if union else 0.0)


def test_command_line_python_and_sql_say_the_same(folder: Path) -> None:
    words = [
        "query",
        "units",
        "--workspace",
        str(folder),
        "--min-iou",
        "0.05",
        "--category",
        "object",
        "--category",
        "part",
    ]
    from_console = console.rows(*words)
    work = dissect.api.open(folder)
    assert work.units(min_iou=0.05, category=["object", "part"]).rows == from_console
    statement = (
        "SELECT * FROM v_units WHERE iou >= 0.05 AND category IN ('object', 'part') ORDER BY iou DESC, unit, run, layer"
    )
    assert work.sql(statement).rows == from_console
    assert console.rows("query", "sql", statement, "--workspace", str(folder)) == from_console
    assert len(from_console) > 3
    texts = {"min_iou": ["0.05"], "category": ["object", "part"]}
    assert grammar.from_text(UnitFilter, texts) == UnitFilter(categories=("object", "part"), min_iou=0.05)


def test_top_and_pages_on_the_command_line(folder: Path) -> None:
    words = ["query", "units", "--workspace", str(folder), "--rank", "all"]
    everything = console.rows(*words)
    assert console.rows(*words, "--top", "5") == everything[:5]
    out, err = console.run(*words, "--limit", "7", "--format", "json")
    assert json.loads(out) == everything[:7]
    token = err.split("--after ")[1].strip()
    assert json.loads(console.run(*words, "--limit", "7", "--after", token, "--format", "json")[0]) == everything[7:14]
    with pytest.raises(SpecError, match="give --limit"):
        console.run(*words, "--after", token)


def test_complete_answers_any_pair(folder: Path, store: Store) -> None:
    layer = store.layer("a" * 64, "fc")
    meeting, areas = store.counts(layer), store.unit_areas(layer)
    table = scores.ScoreTable(**vars(store.scores(layer)))
    concepts = {concept.name: concept for concept in store.concepts("a" * 64)}
    found = console.rows(
        "query",
        "units",
        "--workspace",
        str(folder),
        "--run",
        "first",
        "--layer",
        "fc",
        "--concept",
        "dog",
        "--complete",
    )
    assert sorted(row["unit"] for row in found) == list(range(40))
    dog = concepts["dog"]
    for row in found:
        unit = row["unit"]
        common, area = int(meeting[unit, dog.number]), int(areas[unit, dog.category])
        assert (row["intersection"], row["unit_area"], row["concept_area"]) == (common, area, dog.area)
        assert row["iou"] == (common / (area + dog.area - common) if common else 0.0)
    assert any(row["iou"] == 0 for row in found)
    # One unit against everything: the stored ranks, and all 16 concepts.
    whole = console.rows(
        "query", "units", "--workspace", str(folder), "--run", "first", "--layer", "fc", "--unit", "5", "--complete"
    )
    assert sorted(row["rank"] for row in whole) == list(range(1, 17))
    stored = {(int(u), int(c)): int(r) for u, c, r in zip(table.unit, table.concept, table.rank)}
    for row in whole:
        assert stored.get((5, concepts[row["concept"]].number), row["rank"]) == row["rank"]
    few = UnitRows(store, UnitFilter(("first",), ("fc",), (5,), ("dog", "cat"), rank=None, complete=True))
    picked = {row[4]: row for row in few.rows()}
    assert {name: picked[name][11] for name in picked} == {
        row["concept"]: row["rank"] for row in whole if row["concept"] in ("dog", "cat")
    }
    with pytest.raises(SpecError, match="name the concepts or the units"):
        console.run("query", "units", "--workspace", str(folder), "--complete")


@settings(max_examples=20, deadline=None)
@given(wanted=FILTERS, size=st.integers(1, 50))
def test_complete_pairs_hold_the_stored_ones(store: Store, pairs: list[dict], wanted: UnitFilter, size: int) -> None:
    if not (wanted.concepts or wanted.units):
        wanted = replace(wanted, units=(3, 5))
    every = replace(wanted, complete=True, rank=None)
    rows = list(UnitRows(store, every).rows())
    stored = plain(pairs, replace(wanted, rank=None))
    assert set(stored) <= set(rows)
    assert [row for row in rows if row[6] > 0] == stored  # 16 concepts: all pairs that meet are stored
    page, last = UnitRows(store, every).page(size)
    assert page == rows[:size]
    if last is not None:
        assert list(UnitRows(store, every).rows(after=last)) == rows[size:]


def test_unknown_names_get_suggestions(folder: Path, synonyms: Path) -> None:
    words = ("query", "units", "--workspace", str(folder))
    for option, text, message in (
        ("--concept", "dgo", "no concept 'dgo' in these runs: did you mean dog"),
        ("--concept", "street", "did you mean street-s"),
        ("--category", "objects", "did you mean object"),
        ("--layer", "cnv", "did you mean conv"),
        ("--run", "frist", "did you mean first"),
        ("--run", "unfinished", "is running: only finished"),
        ("--min-iou", "0,1", "--min-iou '0,1' is no number"),
        ("--min-iou", "nan", "is no number"),
        ("--rank", "0", "--rank '0' is no rank"),
        ("--rank", "best", "expected 1, 2 … or all"),
        ("--unit", "-1", "is no unit"),
        ("--unit", "١", "is no unit"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=message.replace("'", ".")):
            console.run(*words, f"{option}={text}")
    work = dissect.api.open(synonyms)
    assert {row["concept"] for row in work.units(concept="sofa", rank="all")} == {"couch"}
    assert {row["concept"] for row in work.units(concept="dog", rank=None)} == {"Dog"}
    with pytest.raises(SpecError, match="did you mean couch"):
        work.units(concept="sofas")
    with pytest.raises(SpecError, match=r"no filter 'conzept' here: did you mean concept"):
        work.units(conzept="dog")


@pytest.mark.parametrize(
    ("given", "prefix", "message"),
    [
        ({"rank": ["1", "2"]}, "", "rank was given 2 times: expected once"),
        ({"min_iou": []}, "--", "--min-iou was given 0 times: expected once"),
        ({"detectors": ["maybe"]}, "", "detectors 'maybe' is no flag: expected 1 or 0"),
        ({"state": ["alive"]}, "--", "--state 'alive' is no state: expected one of sound, dead, saturated, nonfinite"),
        ({"max_iou": ["inf"]}, "", "max_iou 'inf' is no number: expected an IoU such as 0.04"),
        ({"rank": ["1234567890"]}, "--", "--rank '1234567890' is no rank: expected 1, 2 … or all"),
        ({"unit": ["3", "1234567890123"]}, "", "unit '1234567890123' is no unit: expected a number from 0"),
    ],
)  # fmt: skip
def test_values_that_no_filter_takes_are_named(given: dict[str, list[str]], prefix: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        grammar.from_text(UnitFilter, given, prefix)
    assert str(refused.value) == message


def test_flags_and_ranks_in_words() -> None:
    for words, meant in ((("1", "true", "YES", "on", ""), True), (("0", "False", "no", "OFF"), False)):
        for word in words:
            assert grammar.from_text(UnitFilter, {"detectors": [word]}) == UnitFilter(detectors=meant)
    assert grammar.from_text(UnitFilter, {"rank": ["All"]}) == UnitFilter(rank=None)
    complete = {"complete": ["1"], "concept": ["dog"]}
    assert grammar.from_text(UnitFilter, complete) == UnitFilter(concepts=("dog",), complete=True, rank=None)
    ranked = grammar.from_text(UnitFilter, complete | {"rank": ["2"]})
    assert ranked == UnitFilter(concepts=("dog",), complete=True, rank=2)


def test_a_known_concept_without_rows_is_no_error(folder: Path) -> None:
    assert console.rows("query", "units", "--workspace", str(folder), "--concept", "dog", "--min-iou", "0.99") == []


@pytest.mark.parametrize(
    "token",
    [
        "", "x", "é", "AAAA", "W10", "bnVsbA", "A" * 5000,
        "WyJhIiwxLDIsMyw0XQ",  # right shape, wrong types
        "WyJhIiwxZTk5OSwxLDEsMV0", "WyJhIiwwLjUsLTEsMSwxXQ", "W1tbW1tbW1tbW1tbW1tbW1tbW1tb",
    ],
)  # fmt: skip
def test_damaged_tokens(token: str) -> None:
    with pytest.raises(SpecError, match="token is damaged"):
        grammar.read_token(token, UnitFilter())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(SpecError):
        grammar.read_token(text, UnitFilter())


def test_tokens_belong_to_their_filter(store: Store) -> None:
    key = Key(0.1 + 0.2, 5, 1, 1)
    token = grammar.page_token(key, UnitFilter())
    assert grammar.read_token(token, UnitFilter()) == key
    with pytest.raises(SpecError, match="another filter"):
        grammar.read_token(token, UnitFilter(rank=None))
    with pytest.raises(SpecError, match="other runs or layers"):
        UnitRows(store, UnitFilter()).page(5, Key(0.1, 1, 999, 1))


def test_concepts(folder: Path, store: Store, pairs: list[dict]) -> None:
    found = console.rows("query", "concepts", "--workspace", str(folder), "--run", "first", "--layer", "fc")
    assert {row["concept"] for row in found} == set(NAMES)
    assert len(found) == 16
    labels = [row for row in pairs if not row["stored"] and row["layer"] == "fc"]
    with store.reading() as connection:
        view = connection.exec_driver_sql("SELECT * FROM v_concepts WHERE layer = 'fc'").mappings().all()
    for row in found:
        assert row["units"] == sum(item["concept"] == row["concept"] for item in labels)
        assert dict(next(item for item in view if item["concept"] == row["concept"])) == row
    best = [row["best_iou"] or 0.0 for row in found]
    assert best == sorted(best, reverse=True)
    kept = list(concept_rows(store, ConceptFilter(("first",), ("fc",), categories=("object",), detectors=True)))
    assert [row[3] for row in kept] == [
        row["concept"] for row in found if row["category"] == "object" and row["detectors"]
    ]  # fmt: skip


def test_images(folder: Path, store: Store) -> None:
    found = console.rows(
        "query", "images", "--workspace", str(folder), "--run", "first", "--layer", "fc", "--unit", "7"
    )
    assert [row["unit"] for row in found] == [7, 7, 7]
    assert {row["rank"] for row in found} == {1, 2, 3}
    name = found[0]["image"]
    _, rows = image_rows(store, ImageFilter(image=name.upper()))
    assert all(name in row[6] for row in rows)
    set_aside = console.rows("query", "images", "--workspace", str(folder), "--run", "first", "--excluded")
    assert set_aside == [
        {"run": "a" * 64, "run_name": "first", "image_position": 3, "image": "images/3.jpg", "reason": "truncated"}
    ]


def test_diff(folder: Path) -> None:
    found = console.rows("query", "diff", "first", "b" * 64, "--layer", "conv", "--workspace", str(folder))
    work = dissect.api.open(folder)
    sides = [
        {row["concept"]: row for row in work.concepts(run=run, layer="conv")} for run in ("first", "b" * 64)
    ]  # fmt: skip
    for row in found:
        left, right = (side[row["concept"]]["detectors"] for side in sides)
        assert (row["detectors_a"], row["detectors_b"]) == (left, right)
        assert row["change"] == ("both" if left and right else "only a" if left else "only b")
    assert {row["concept"] for row in found} == {
        name for name in NAMES if sides[0][name]["detectors"] or sides[1][name]["detectors"]
    }
    labels = [
        {row["unit"]: (row["concept"], row["iou"]) for row in work.units(run=run, layer="conv")}
        for run in ("first", "b" * 64)
    ]
    units = work.diff("first", "b" * 64, units=True).rows
    for row in units:
        assert labels[0][row["unit"]] == (row["concept_a"], row["iou_a"])
        assert labels[1][row["unit"]] == (row["concept_b"], row["iou_b"])
    changed = {unit for unit in labels[0] if labels[0][unit][0] != labels[1][unit][0]}
    assert {row["unit"] for row in units} >= changed
    assert work.diff("first", "first", units=True).rows == []


def test_diff_refuses_mixed_conventions(tmp_path: Path) -> None:
    with makers.open_store(tmp_path) as store:
        makers.save(store, makers.run_record("a" * 64, "one"))
        makers.save(store, makers.run_record("b" * 64, "two", convention="lite"))
    with pytest.raises(SpecError, match="not comparable"):
        console.run("query", "diff", "one", "two", "--workspace", str(tmp_path))


def test_runs(folder: Path) -> None:
    found = console.rows("runs", "--workspace", str(folder))
    assert [(row["name"], row["state"], row["layers"], row["units"]) for row in found] == [
        ("first", "finished", 2, 80), (None, "finished", 1, 40), ("unfinished", "running", 0, 0),
    ]  # fmt: skip
    text = console.run("runs", "--workspace", str(folder))[0].decode()
    assert "first" in text
    assert "bbbbbbbbbbbb" in text


def test_an_empty_workspace_has_no_rows(tmp_path: Path) -> None:
    makers.open_store(tmp_path).close()
    for words in (
        ("runs",),
        ("query", "units"),
        ("query", "concepts"),
        ("query", "images"),
        ("query", "units", "--concept", "x"),
    ):
        assert console.rows(*words, "--workspace", str(tmp_path)) == []
    with pytest.raises(SpecError, match="there is no database"):
        console.run("runs", "--workspace", str(tmp_path / "absent"))
