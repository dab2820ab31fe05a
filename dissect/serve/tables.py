"""The tables over HTTP: the filter grammar of the command line, as parameters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request, Response

from dissect.errors import SpecError
from dissect.query import diff, export, grammar
from dissect.serve.answer import Answer, check_kind, etag, matches, respond, stream, unchanged
from dissect.serve.limits import Limits
from dissect.store import Store
from dissect.store.deadline import limit
from dissect.store.filters import ConceptFilter, ImageFilter, UnitFilter
from dissect.store.other_rows import CONCEPT_COLUMNS, RUN_COLUMNS, concept_rows, image_rows, run_rows
from dissect.store.sql import read_only_sql
from dissect.store.stamp import stamp
from dissect.store.unit_rows import COLUMNS, UnitRows
from dissect.suggest import suggestion
from dissect.workspace import Workspace

Asked = dict[str, list[str]]
FACET_SECONDS = 0.2
_PAGING = (
    grammar.Parameter("limit", "rows of this answer; `all` streams every row (csv, tsv, ndjson)", False),
    grammar.Parameter("after", "the `next` of the answer before", False),
)
_TOP = (grammar.Parameter("limit", "rows of this answer", False),)
_DIFF = (
    grammar.Parameter("one", "a run", False),
    grammar.Parameter("other", "the run to hold against it", False),
    grammar.Parameter("units", "1: unit by unit instead of by concept", False),
    grammar.Parameter("layer", "layer name", True),
)
_SQL = (
    grammar.Parameter("sql", "one SELECT over the tables and the views v_units, v_best_label, v_concepts", False),
    grammar.Parameter("seconds", "time that it may take", False),
    grammar.Parameter("limit", "rows of this answer", False),
)


@dataclass(frozen=True)
class Desk:
    """Where questions are answered: the workspace, and what a request may cost."""

    workspace: Workspace
    limits: Limits

    @contextmanager
    def store(self, each: bool = False) -> Iterator[Store]:
        """The store, open for one request and only as long as that may take."""
        with Store.open(self.workspace, readonly=True) as store:
            yield limit(store, self.limits.seconds, each)

    def answer(self, request: Request, kind: str, produce: Callable[[Store, Asked], Answer], known: Sequence[str]) -> (
        Response
    ):  # fmt: skip
        """304, or the rows that `produce` makes of the parameters, with their validator."""
        check_kind(kind)
        asked = self.parameters(request, known)
        with self.store() as store:
            tag = etag(request, stamp(store))
            if matches(request, tag):
                return unchanged(tag)
            response = respond(request, kind, produce(store, asked))
        response.headers["ETag"], response.headers["Cache-Control"] = tag, "no-cache"
        return response

    def parameters(self, request: Request, known: Sequence[str]) -> Asked:
        """Values by name. Raises SpecError for names that mean nothing here, and for too many values."""
        asked: Asked = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                raise SpecError(f"no parameter {name[:60]!r} here{suggestion(name[:60], sorted(known))}")
            asked.setdefault(name, []).append(value)
            if len(asked[name]) > self.limits.values:
                raise SpecError(f"{name} has more than {self.limits.values} values: ask in parts")
        return asked

    def size(self, asked: Asked) -> int:
        """Rows wanted. Raises SpecError."""
        return min(_number(_one(asked, "limit", str(self.limits.page)), "limit"), self.limits.rows)

    def affordable(self, found: UnitRows) -> UnitRows:
        """Raise SpecError where pairs would have to be computed by the hundred thousand."""
        if found.filter.complete:
            pairs = 0
            for scoped in found.scope.layers:
                numbers = scoped.numbers if scoped.numbers is not None else scoped.catalogue.concepts
                pairs += len(numbers) * (len(set(found.filter.units)) or scoped.layer.units)
            if pairs > self.limits.pairs:
                raise SpecError(
                    f"complete: {pairs} pairs would be computed, {self.limits.pairs} are possible here: name fewer "
                    "units, concepts, layers or runs, or use `dissect query units --complete`"
                )
        return found


def router(desk: Desk) -> APIRouter:
    """The routes below /api."""
    routes = APIRouter(prefix="/api")
    units, concepts, images = (grammar.parameters(kind) for kind in (UnitFilter, ConceptFilter, ImageFilter))

    def get(path: str, about: str, extra: Sequence[grammar.Parameter], handler: Callable[[Request, str], Response]) -> (
        None
    ):  # fmt: skip
        def plain(request: Request) -> Response:
            return handler(request, "json")

        def suffixed(request: Request, kind: str) -> Response:
            return handler(request, kind)

        name = path.strip("/")
        options: dict[str, Any] = {"summary": about, "openapi_extra": {"parameters": _described(extra)}}
        routes.get(path, operation_id=name, response_class=Response, **options)(plain)
        routes.get(f"{path}.{{kind}}", operation_id=f"{name}_as", response_class=Response, **options)(suffixed)

    def table(
        path: str,
        about: str,
        extra: Sequence[grammar.Parameter],
        produce: Callable[[Store, Asked], Answer],
    ) -> None:
        known = [parameter.name for parameter in extra]
        get(path, about, extra, lambda request, kind: desk.answer(request, kind, produce, known))

    def all_runs(store: Store, asked: Asked) -> Answer:
        return Answer(RUN_COLUMNS, run_rows(store))

    def all_layers(store: Store, asked: Asked) -> Answer:
        runs = [store.get_run(name) for name in asked.get("run", [])] or store.runs()
        rows = [row for run in runs for row in export.table(store, run, "layers", None)[1]]
        return Answer(export.LAYER_COLUMNS, rows)

    def some_units(store: Store, asked: Asked) -> Answer:
        size, token = desk.size(asked), _one(asked, "after", "")
        wanted = grammar.from_text(UnitFilter, _without(asked, "limit", "after"))
        after = grammar.read_token(token, wanted) if token else None
        rows, last = desk.affordable(UnitRows(store, wanted)).page(size, after)
        return Answer(COLUMNS, rows, None if last is None else grammar.page_token(last, wanted), last is not None)

    def unit_table(request: Request, kind: str) -> Response:
        known = [parameter.name for parameter in (*units, *_PAGING)]
        asked = desk.parameters(request, known)
        if asked.get("limit") != ["all"]:
            return desk.answer(request, kind, some_units, known)
        wanted = grammar.from_text(UnitFilter, _without(asked, "limit", "after"))
        with desk.store() as store:  # what can be refused is refused before the first byte
            desk.affordable(UnitRows(store, wanted))
        return stream(check_kind(kind), COLUMNS, every(wanted), desk.limits.export_bytes)

    def every(wanted: UnitFilter) -> Iterator[Sequence[Any]]:
        with desk.store(each=True) as store:
            yield from UnitRows(store, wanted).rows()

    def facets(store: Store, asked: Asked) -> Answer:
        found = UnitRows(store, grammar.from_text(UnitFilter, asked)).facets(FACET_SECONDS)
        rows = [(name, value, count) for name, values in (found or {}).items() for value, count in values]
        return Answer(("facet", "value", "count"), rows[: desk.limits.rows], None, found is None)

    def some_concepts(store: Store, asked: Asked) -> Answer:
        rows = concept_rows(store, grammar.from_text(ConceptFilter, _without(asked, "limit")))
        return _first(CONCEPT_COLUMNS, rows, desk.size(asked))

    def some_images(store: Store, asked: Asked) -> Answer:
        size = desk.size(asked)
        columns, rows = image_rows(store, grammar.from_text(ImageFilter, _without(asked, "limit")), size + 1)
        return _first(columns, rows, size)

    def difference(store: Store, asked: Asked) -> Answer:
        one, other = (_one(asked, name, "") for name in ("one", "other"))
        if not one or not other:
            raise SpecError("diff holds two runs against each other: expected one=RUN and other=RUN")
        by_unit = _one(asked, "units", "0") not in ("", "0", "false", "no", "off")
        work = diff.diff_units if by_unit else diff.diff_concepts
        rows = work(store, one, other, asked.get("layer", []))
        return _first(diff.UNIT_COLUMNS if by_unit else diff.CONCEPT_COLUMNS, rows, desk.limits.rows)

    def sql(store: Store, asked: Asked) -> Answer:
        statement = _one(asked, "sql", "")
        if not statement:
            raise SpecError("sql is missing: expected sql=SELECT …")
        seconds = min(_seconds(_one(asked, "seconds", "1")), desk.limits.seconds)
        rows = min(_number(_one(asked, "limit", str(desk.limits.rows)), "limit"), desk.limits.rows)
        found = read_only_sql(store, statement, seconds, rows)
        return Answer(found.columns, found.rows, None, found.more)

    table("/runs", "All runs, oldest first", (), all_runs)
    table("/layers", "Layers of runs", (grammar.Parameter("run", "id or name of a run", True),), all_layers)
    get("/units", "Rows of the unit x concept table: IoU descending, then unit", (*units, *_PAGING), unit_table)
    table("/facets", "How many of these rows each run, layer, category and concept has", units, facets)
    table("/concepts", "Concepts with their units, detectors and best unit", (*concepts, *_TOP), some_concepts)
    table("/images", "Exemplars of units, or the images that were set aside", (*images, *_TOP), some_images)
    table("/diff", "What two runs say differently", _DIFF, difference)
    table("/sql", "A SELECT of your own", _SQL, sql)
    return routes


def _first(columns: Sequence[str], rows: Iterator[Sequence[Any]], size: int) -> Answer:
    found = list(islice(rows, size + 1))
    return Answer(columns, found[:size], None, len(found) > size)


def _described(parameters: Sequence[grammar.Parameter]) -> list[dict[str, Any]]:
    """Parameters as OpenAPI has them."""
    text = {"type": "string"}
    return [
        {
            "name": p.name, "in": "query", "required": False, "description": p.help,
            "schema": {"type": "array", "items": text} if p.several else text,
        }
        for p in parameters
    ]  # fmt: skip


def _without(asked: Asked, *names: str) -> Asked:
    return {name: values for name, values in asked.items() if name not in names}


def _one(asked: Asked, name: str, default: str) -> str:
    values = asked.get(name, [default])
    if len(values) != 1:
        raise SpecError(f"{name} was given {len(values)} times: expected once")
    return values[0]


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < 1:
        raise SpecError(f"{name} {text[:40]!r} is no number of rows: expected 1, 2 …")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise SpecError(f"seconds {text[:40]!r} is no time: expected a number over 0")
    return found
