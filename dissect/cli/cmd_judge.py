"""`dissect judge`: are the maps any good?"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dissect.cli import attribution_options as options
from dissect.cli.common import add_format, add_workspace, open_store, print_rows

if TYPE_CHECKING:
    import numpy as np

    from broden import Dataset
    from dissect.attribution.judge.table import Item, Judgement, Row
    from dissect.attribution.network import Network
    from dissect.attribution.targets import Target
    from dissect.store.attributions import ScoreRecord

METHODS = "gradient,gradient-x-input,integrated-gradients,smoothgrad,deconvnet,guided,excitation,grad-cam,occlusion"
SCORES = "pointing,energy,deletion,insertion"

DESCRIPTION = """\
Judge attribution methods: many images, each with the mask of the right place, every method beside four maps that know
nothing or everything (constant, random, centre, ground truth).

  dissect judge planted                                       a network and images whose answer is known by design
  dissect judge squeezenet1_1 --weights W.pth --data broden1_224 --ask pizza=963 --ask cat=281+282+285
                                                              is the map of class 963 where the set says pizza?
  dissect judge resnet18 --weights W.pth --data broden1_224 --run RUN --layer layer4
                                                              are maps of a concept's detectors where the concept is?

Scores (--scores):
  pointing        the highest place lies in the mask, or less than --tolerance pixels beside it       high is good
  energy          share of the positive part of the map inside the mask                               high is good
  deletion        area under the probability while the highest places are taken away                  low is good
  insertion       area under the probability while the highest places are put back                    high is good
  sensitivity-n   correlation of sums of the map with drops of the score, over random cells           high is good
  randomisation   likeness to maps of a network whose layers are shuffled from the top down           low is good
  class contrast  cosine between the maps of the target and of its strongest rival                    low is good

The table goes to stdout, to the database (`dissect query judgements`) and to the page reports/_attributions.
Deletion, insertion, sensitivity-n and occlusion cost hundreds of passes a map: --limit and --step set the price.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "judge",
        help="how good attribution methods are, beside maps that know nothing",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="planted, or a network as for `dissect attribute`")
    questions = parser.add_argument_group("questions")
    questions.add_argument("--data", metavar="DIR", help="a folder in Broden's format, or a packed set")
    questions.add_argument(
        "--ask", action="append", default=[], metavar="CONCEPT=TARGET",
        help="the target that should lie on a concept; targets as for `dissect attribute`; may repeat",
    )  # fmt: skip
    questions.add_argument("--run", metavar="RUN", help="dissection whose detectors are the targets")
    questions.add_argument("--layer", metavar="L", help="with --run: the layer of the detectors; layer of grad-cam")
    questions.add_argument(
        "--concepts", type=int, default=12, metavar="N", help="with --run: the N best detected concepts (default 12)"
    )
    questions.add_argument("--limit", type=int, default=4, metavar="N", help="images a concept (default 4)")
    questions.add_argument("--items", type=int, default=60, metavar="N", help="planted: images (default 60)")
    asked = parser.add_argument_group("methods and scores")
    asked.add_argument("--methods", default=METHODS, metavar="M,M,…", help=f"default {METHODS}")
    asked.add_argument("--scores", default=SCORES, metavar="S,S,…", help=f"default {SCORES}; all for every one")
    asked.add_argument(
        "--tolerance", type=float, metavar="PX", help="pointing: pixels beside the mask (default 15; planted: 0)"
    )
    asked.add_argument(
        "--smooth", type=float, default=0.02, metavar="X",
        help="pointing: blur of the methods' maps as a share of the side, never of baselines (default 0.02; 0: none)",
    )  # fmt: skip
    asked.add_argument(
        "--step", type=int, metavar="PX", help="deletion, insertion: pixels at a time (default: one image row)"
    )
    asked.add_argument("--patch", type=int, default=16, metavar="P", help="occlusion: window side (default 16)")
    asked.add_argument("--stride", type=int, default=8, metavar="S", help="occlusion: step (default 8)")
    asked.add_argument("--masks", type=int, default=2000, metavar="N", help="rise: masks (default 2000)")
    options.add_network(parser)
    add_format(parser)
    add_workspace(parser)
    parser.set_defaults(handler=run)


@dataclass(frozen=True)
class Questions:
    """A network, what it is asked, and where both come from."""

    network: "Network"
    items: "list[Item]"
    rivals: "list[Target] | None"
    model: str
    data: str
    told: dict[str, Any]
    weights_sha256: str | None = None
    fingerprint: str | None = None
    run_id: str | None = None


def run(args: argparse.Namespace) -> int:
    from dissect.attribution.catalogue import Slots, mapper
    from dissect.attribution.judge import scores
    from dissect.attribution.judge.table import judge
    from dissect.errors import SpecError
    from dissect.progress import Progress
    from dissect.publish import publish_attributions
    from dissect.store import attributions

    if min(args.limit, args.items, args.concepts) < 1:
        raise SpecError("--limit, --items and --concepts count from 1")
    names = tuple(scores.SCORES) if args.scores == "all" else scores.find_scores(args.scores.split(","))
    planted = args.model == "planted"
    tolerance = args.tolerance if args.tolerance is not None else (0.0 if planted else scores.TOLERANCE)
    settings = scores.Settings(tolerance, args.smooth, args.step, cell=4 if planted else 16, seed=args.seed)
    layer = None if args.run else args.layer
    slots = Slots(patch=args.patch, stride=args.stride, masks=args.masks, layer=layer, seed=args.seed)
    chosen = args.methods.split(",")
    if len(set(chosen)) < len(chosen):
        raise SpecError(f"--methods {args.methods}: a method is named twice")
    methods = {name: mapper(name, slots) for name in chosen}
    asked = _planted(args) if planted else _concepts(args)
    progress = Progress("judging", len(asked.items))
    found = judge(asked.network, asked.items, methods, names, settings, asked.rivals, lambda done: progress.advance(1))
    progress.close()
    told = found.settings | {"patch": args.patch, "stride": args.stride, "masks": args.masks} | asked.told
    record = attributions.JudgementRecord(
        asked.model, asked.data, found.items, told, asked.weights_sha256, asked.fingerprint, asked.run_id
    )
    with open_store(args, readonly=False) as store:
        kept = attributions.save_judgement(store, record, _records(found, names))
        page = publish_attributions(store)
    print(f"judgement {kept.id[:12]}: {found.items} images; page {page}", file=sys.stderr)
    columns = ["method", "baseline", *(column for name in names for column in (name, f"{name} ±"))]
    print_rows(args, columns, [[row.method, int(row.baseline), *_cells(row, names)] for row in found.rows])
    return 0


def _records(found: "Judgement", names: Sequence[str]) -> "list[ScoreRecord]":
    from dissect.store.attributions import ScoreRecord

    return [
        ScoreRecord(row.method, name, place * len(names) + at, int(row.baseline), row.mean(name),
                    _finite(row.error(name)), row.each[name])
        for place, row in enumerate(found.rows)
        for at, name in enumerate(names)
    ]  # fmt: skip


def _cells(row: "Row", names: Sequence[str]) -> list[float | None]:
    return [value for name in names for value in (row.mean(name), _finite(row.error(name)))]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _planted(args: argparse.Namespace) -> Questions:
    """The set and the network whose answer is known by construction."""
    from dissect.attribution.judge.planted import planted_items, planted_network
    from dissect.errors import SpecError

    given = [name for name in ("data", "ask", "run", "weights", "mean", "std") if getattr(args, name)]
    if given:
        raise SpecError(f"judge planted brings its own network and images: --{given[0]} has no meaning here")
    items = list(planted_items(args.items, seed=args.seed))
    return Questions(planted_network(), items, None, "planted", "planted", {"items": args.items})


def _concepts(args: argparse.Namespace) -> Questions:
    """Images of a concept set, each asked for the target of a concept that it shows."""
    import broden
    from dissect.attribution.judge.concepts import concept_items
    from dissect.attribution.network import OUTPUT
    from dissect.errors import SpecError
    from dissect.suggest import near

    if not args.data:
        hint = " (did you mean planted?)" if near(args.model, ("planted",)) else ""
        raise SpecError(f"judge {args.model}{hint}: images with masks come from a concept set, add --data DIR")
    if bool(args.ask) == bool(args.run):
        raise SpecError("say what is asked: --ask CONCEPT=TARGET (may repeat), or --run RUN --layer L")
    data = broden.open(args.data)
    network, loaded = options.open_network(args)
    run_id = options.check_run(args, loaded)
    targets = _of_run(args, data) if args.run else _of_asks(args, network, data)
    items = list(concept_items(data, targets, args.limit))
    if not items:
        raise SpecError(
            f"no image of {data.name!r} shows {', '.join(targets)} on 0.5 to 50 % of its area: ask for other concepts"
        )
    rivals = None if all(target.layer == OUTPUT for target in targets.values()) else list(targets.values())
    told = {"asked": {name: target.title for name, target in targets.items()}, "limit": args.limit}
    return Questions(
        network, items, rivals, loaded.source, data.name, told, loaded.weights_sha256, data.fingerprint, run_id
    )


def _first(data: "Dataset") -> "np.ndarray":
    """The first image that can be read; all have one size. Raises SpecError."""
    import broden
    from dissect.errors import SpecError

    for position in range(len(data)):
        try:
            return data.read_image(position)
        except broden.InputFault:
            continue
    raise SpecError(f"no image of {data.name!r} can be read: `python -m broden verify` says why")


def _of_asks(args: argparse.Namespace, network: "Network", data: "Dataset") -> "dict[str, Target]":
    """Targets by concept, as --ask says."""
    from dissect.attribution.naming import parse_target
    from dissect.errors import SpecError

    x = network.prepare(_first(data)[None])
    targets = {}
    for text in args.ask:
        concept, equals, target = text.rpartition("=")
        if not equals or not concept or target == "top":
            raise SpecError(f"--ask {text!r}: expected CONCEPT=TARGET, such as pizza=963 or dog=unit:layer4:12")
        targets[concept] = parse_target(target, network, x)
        targets[concept].check(network, x)
    return targets


def _of_run(args: argparse.Namespace, data: "Dataset") -> "dict[str, Target]":
    """The best detected concepts of a layer that stand in label planes of the set, each with the sum of its
    detectors."""
    from dissect.attribution.targets import concept_target
    from dissect.errors import SpecError

    if not args.layer:
        raise SpecError("--run: say whose detectors with --layer L")
    known = {name for name in data.labels.names if name}
    units: dict[str, list[int]] = {}
    labels = options.labels_of(args, args.layer)
    for unit in sorted(range(len(labels)), key=lambda unit: -labels[unit].iou):
        label = labels[unit]
        if label.detector and label.concept in known and label.category != "scene":
            units.setdefault(label.concept, []).append(unit)
    if not units:
        raise SpecError(f"run {args.run} has no detector in {args.layer!r} of a concept that {data.name!r} labels")
    return {name: concept_target(args.layer, name, units[name]) for name in list(units)[: args.concepts]}
