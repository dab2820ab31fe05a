"""`dissect query`: ask the unit x concept table."""

import argparse
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any

from dissect.cli.common import add_format, add_workspace, open_store, print_rows

DESCRIPTION = """\
Ask the unit x concept table.

  dissect query units --concept dog --min-iou 0.04       units labelled dog
  dissect query units --unit 12 --rank all               every stored concept of unit 12
  dissect query units --concept dog --complete --top 50  every unit against dog, stored or not
  dissect query units --facet category                   how many rows each category has
  dissect query concepts --category part --detectors     concepts that some unit detects
  dissect query images --layer layer4 --unit 12          its exemplars
  dissect query syntheses --layer layer4 --unit 12       its maximum impulses and inversions
  dissect query attributions --image dog.jpg             maps, with what was replaced and how they were judged
  dissect query carriers --concept dog                   decisions that detectors of dog had a part in
  dissect query judgements --method guided               how good a method was, beside maps that know nothing
  dissect query diff before after                        concepts that came or went
  dissect query sql "SELECT concept, count(*) FROM v_best_label GROUP BY concept"
"""
_UNITS = (
    "run", "layer", "unit", "concept", "category", "iou", "intersection", "unit_area", "concept_area", "threshold",
    "rank",
)  # fmt: skip
_FACETS = ("run", "layer", "category", "concept")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from dissect.query.grammar import add_filter
    from dissect.store.filters import ConceptFilter, ImageFilter, UnitFilter

    parser = commands.add_parser(
        "query",
        help="ask the unit x concept table",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(
        title="what", metavar="units|concepts|images|syntheses|attributions|carriers|judgements|diff|sql", required=True
    )

    def add(
        name: str, handler: Callable[[argparse.Namespace], int], about: str, filters: type[Any] | None = None
    ) -> Any:
        made = kinds.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        if filters is not None:
            add_filter(made, filters)
        add_format(made)
        add_workspace(made)
        made.set_defaults(handler=handler)
        return made

    units = add("units", run_units, "rows of the unit x concept table: IoU descending, then unit", UnitFilter)
    paging = units.add_mutually_exclusive_group()
    paging.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    paging.add_argument("--limit", type=_positive, metavar="N", help="a page of N rows; stderr says how to go on")
    paging.add_argument("--facet", choices=_FACETS, action="append", help="counts by value instead of rows")
    units.add_argument("--after", metavar="TOKEN", help="with --limit: the page after this token")
    concepts = add("concepts", run_concepts, "concepts with their units, detectors and best unit", ConceptFilter)
    concepts.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    images = add("images", run_images, "exemplars of units, or the images that were set aside", ImageFilter)
    images.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    made = add("syntheses", run_syntheses, "synthesised pictures: what they show, how good they are, their files")
    made.add_argument("--run", metavar="RUN", help="those that belong to a dissection")
    made.add_argument("--command", metavar="NAME", help="those of one command: invert, maximize, dream, fool …")
    made.add_argument("--layer", metavar="L", help="those made at a layer")
    made.add_argument("--unit", type=int, metavar="U", help="those of a unit or class, from 0")
    made.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    maps = add("attributions", run_attributions, "where decisions came from: maps, audits, measures, files")
    maps.add_argument("--method", metavar="NAME", help="those of one method, such as guided")
    carried = add("carriers", run_carriers, "units that carried decisions, with their labels")
    carried.add_argument("--concept", metavar="NAME", help="units with this label")
    carried.add_argument("--unit", type=int, metavar="U", help="this unit, from 0")
    for made in (maps, carried):
        made.add_argument("--run", metavar="RUN", help="those whose units a dissection named")
        made.add_argument("--image", metavar="FILE", help="those of an image, by its file name")
        made.add_argument("--target", metavar="TITLE", help="those of a target, as it is told: 'class 3 (logit)'")
        made.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    judged = add("judgements", run_judgements, "cells of the tables that judge methods")
    judged.add_argument("--run", metavar="RUN", help="tables whose targets a dissection found")
    judged.add_argument("--method", metavar="NAME", help="one method or baseline")
    judged.add_argument("--top", type=_positive, metavar="N", help="the first N rows (default: all)")
    diff = add("diff", run_diff, "what two runs say differently")
    diff.add_argument("one", metavar="RUN")
    diff.add_argument("other", metavar="RUN")
    diff.add_argument("--units", action="store_true", help="unit by unit, for layers that both have")
    diff.add_argument("--layer", action="append", default=[], metavar="L", help="layer name")
    sql = add("sql", run_sql, "a SELECT of your own over the tables and the views v_units, v_best_label, v_concepts")
    sql.add_argument("statement", metavar="SELECT")
    sql.add_argument("--timeout", type=float, default=1.0, metavar="S", help="seconds it may take (default: 1)")
    sql.add_argument("--max-rows", type=_positive, default=1000, metavar="N", help="rows at most (default: 1000)")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def run_units(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.query import grammar
    from dissect.store.filters import UnitFilter
    from dissect.store.unit_rows import COLUMNS, UnitRows

    wanted = grammar.from_options(UnitFilter, args)
    if args.after is not None and args.limit is None:
        raise SpecError("--after goes on with pages: give --limit N too")
    with open_store(args) as store:
        asked = UnitRows(store, wanted)
        if args.facet:
            return _facets(args, asked)
        if args.limit is None:
            print_rows(args, COLUMNS, asked.rows(limit=args.top), shown=_UNITS)
            return 0
        after = None if args.after is None else grammar.read_token(args.after, wanted)
        rows, last = asked.page(args.limit, after)
    print_rows(args, COLUMNS, rows, shown=_UNITS)
    if last is not None:
        print(f"more: --limit {args.limit} --after {grammar.page_token(last, wanted)}", file=sys.stderr)
    return 0


def _facets(args: argparse.Namespace, asked: Any) -> int:
    from dissect.errors import RetryLater

    found = asked.facets(seconds=10.0)
    if found is None:
        raise RetryLater("too many rows to count in 10 s: narrow the filter")
    rows = [(name, value, count) for name in args.facet for value, count in found[name]]
    print_rows(args, ("facet", "value", "count"), rows)
    return 0


def run_concepts(args: argparse.Namespace) -> int:
    from dissect.query import grammar
    from dissect.store.filters import ConceptFilter
    from dissect.store.other_rows import CONCEPT_COLUMNS, concept_rows

    wanted = grammar.from_options(ConceptFilter, args)
    with open_store(args) as store:
        print_rows(args, CONCEPT_COLUMNS, islice(concept_rows(store, wanted), args.top))
    return 0


def run_images(args: argparse.Namespace) -> int:
    from dissect.query import grammar
    from dissect.store.filters import ImageFilter
    from dissect.store.other_rows import image_rows

    wanted = grammar.from_options(ImageFilter, args)
    with open_store(args) as store:
        columns, rows = image_rows(store, wanted)
        print_rows(args, columns, islice(rows, args.top))
    return 0


def run_syntheses(args: argparse.Namespace) -> int:
    from dissect.store import syntheses

    with open_store(args) as store:
        rows = syntheses.rows(store, args.run, args.command, args.layer, args.unit)
        shown = [name for name in syntheses.COLUMNS if name not in ("measures", "sha256")]
        print_rows(args, syntheses.COLUMNS, islice(rows, args.top), shown=shown)
    return 0


def run_attributions(args: argparse.Namespace) -> int:
    from dissect.store import attributions

    with open_store(args) as store:
        rows = attributions.rows(store, args.run, args.method, args.image, args.target)
        shown = [name for name in attributions.COLUMNS if name not in ("parameters", "measures", "audit")]
        print_rows(args, attributions.COLUMNS, islice(rows, args.top), shown=shown)
    return 0


def run_carriers(args: argparse.Namespace) -> int:
    from dissect.store import attributions

    with open_store(args) as store:
        rows = attributions.carrier_rows(store, args.run, args.image, args.target, args.concept, args.unit)
        shown = [name for name in attributions.CARRIER_COLUMNS if name != "attribution"]
        print_rows(args, attributions.CARRIER_COLUMNS, islice(rows, args.top), shown=shown)
    return 0


def run_judgements(args: argparse.Namespace) -> int:
    from dissect.store import attributions

    with open_store(args) as store:
        rows = attributions.judgement_rows(store, args.run, args.method)
        shown = [name for name in attributions.JUDGEMENT_COLUMNS if name not in ("judgement", "settings")]
        print_rows(args, attributions.JUDGEMENT_COLUMNS, islice(rows, args.top), shown=shown)
    return 0


def run_diff(args: argparse.Namespace) -> int:
    from dissect.query import diff

    with open_store(args) as store:
        if args.units:
            print_rows(args, diff.UNIT_COLUMNS, diff.diff_units(store, args.one, args.other, args.layer))
        else:
            print_rows(args, diff.CONCEPT_COLUMNS, diff.diff_concepts(store, args.one, args.other, args.layer))
    return 0


def run_sql(args: argparse.Namespace) -> int:
    from dissect.store.sql import read_only_sql

    with open_store(args) as store:
        table = read_only_sql(store, args.statement, args.timeout, args.max_rows)
    print_rows(args, table.columns, table.rows)
    if table.more:
        print(f"only the first {args.max_rows} rows: raise the limit with --max-rows", file=sys.stderr)
    return 0
