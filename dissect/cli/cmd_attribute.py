"""`dissect attribute`: where in the image a decision came from."""

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect.cli import attribution_answers as answers
from dissect.cli import attribution_options as options
from dissect.cli.common import add_workspace, open_store

if TYPE_CHECKING:
    from dissect.attribution.network import Network
    from dissect.models import Model

GRADIENTS = (
    "gradient",
    "gradient-max",
    "deconvnet",
    "deconvnet-switches",
    "guided",
    "gradient-x-input",
    "integrated-gradients",
    "smoothgrad",
    "lrp-epsilon",
    "excitation",
)
OTHERS = ("grad-cam", "guided-grad-cam", "occlusion", "rise")
QUESTIONS = ("units", "occluder-sensitivity")

DESCRIPTION = """\
Attribute a class, a unit, a direction or a concept to the places of an image; exact, with an audit of every ReLU rule.

  dissect attribute gradient resnet18 --weights my.pth --image dog.jpg
  dissect attribute occlusion resnet18 --image a.jpg b.jpg --target class:207 --patch 16 --stride 8
  dissect attribute guided resnet18 --image dog.jpg --target unit:layer4:33 --judge
  dissect attribute units resnet18 --layer layer4 --run RUN --image dog.jpg     which labelled units carried it

Methods
  gradient              norm over the colours of the gradient (gradient-max: its largest magnitude)
  deconvnet             modified backprop: only what is positive from above passes a ReLU; pools add up
  deconvnet-switches    the same with explicit unpooling: where windows overlap, the last one written stays
  guided                guided backprop: passes where both the activation and what arrives are positive
  gradient-x-input      exact contributions of a linear network without biases
  integrated-gradients  the gradient averaged on the way from the mean colour, times that way (--steps)
  smoothgrad            the gradient averaged over noisy copies (--draws, --spread)
  lrp-epsilon           relevance by the epsilon rule
  excitation            relevance along positive weights only
  grad-cam              maps of a layer weighed by their mean gradient (--layer, --signed); guided-grad-cam: x guided
  occlusion             drop of the score when a window is hidden: incremental and exact, or --approximate
  rise                  mean of random masks weighed by the score (--masks)
  occluder-sensitivity  occlusion under eight occluders, and how much the map depends on which
  units                 contributions of the units of --layer, named by --run, drawn on the image

Targets
  top                        the class that the network gives the image (default)
  class:N, class:N+N+…       a class, or several that mean one thing; --probability instead of the logit
  unit:LAYER:N               a unit at its strongest place (--reduce sum or mean over the map)
  direction:LAYER:FILE.npy   a vector over the units of a layer
  concept:LAYER:NAME         the sum of the concept's detectors in --run

What is refused, with the reason: an activation without a definition under a ReLU rule (GELU, SiLU …, unless
--extension derivative), a rule that replaces nothing, a target off the path, a network that answers twice in two ways.

For each image an overlay (PNG) and arrays (NPZ) in --out; a row in the database (`dissect query attributions`,
`dissect query carriers`) and the page reports/_attributions; one JSON object on stdout says what was done. Of several
images one that cannot be read or asked is set aside and told; the exit code is then 3.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "attribute",
        help="where in the image a decision came from",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("method", metavar="METHOD", help="one of the methods above")
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="torchvision:NAME (or just NAME), timm:NAME, demo, or a trusted file or module:factory",
    )
    parser.add_argument("--image", nargs="+", required=True, type=Path, metavar="FILE", help="one or more images")
    parser.add_argument("--target", default="top", metavar="T", help="one of the targets above (default top)")
    parser.add_argument(
        "--probability", action="store_true", help="attribute the class probability instead of the logit"
    )
    parser.add_argument(
        "--reduce", choices=("max", "sum", "mean"), default="max", help="how a map becomes one number (default max)"
    )
    parser.add_argument("--layer", metavar="L", help="layer of grad-cam (default: the last with maps) and of units")
    parser.add_argument("--run", metavar="RUN", help="dissection that names the units (units, concept targets)")
    parser.add_argument(
        "--judge",
        action="store_true",
        help="measure the map too: deletion, insertion, sensitivity-n, randomised layers, class contrast",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="S",
        help="squash images to S x S (default: as they are)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the files (default: WORKSPACE/attributions/METHOD)"
    )
    parser.add_argument("--no-report", action="store_true", help="leave the page as it is")
    options.add_network(parser)
    slots = parser.add_argument_group("slots of the method")
    slots.add_argument(
        "--readout",
        choices=("norm", "maximum", "total", "positive"),
        help="from colour planes to one map (default: the method's own)",
    )
    slots.add_argument(
        "--extension", choices=("derivative",), help="put f'(x) where a ReLU rule has no definition (ReLU6, GELU, SiLU)"
    )
    slots.add_argument("--steps", type=int, default=32, help="integrated-gradients: steps (default 32)")
    slots.add_argument("--draws", type=int, default=25, help="smoothgrad: noisy copies (default 25)")
    slots.add_argument(
        "--spread", type=float, default=0.15, help="smoothgrad: deviation as a share of the range (default 0.15)"
    )
    slots.add_argument("--masks", type=int, default=2000, help="rise: masks (default 2000)")
    slots.add_argument("--signed", action="store_true", help="grad-cam: keep negative places")
    slots.add_argument("--top", type=int, default=8, help="units: how many carriers are drawn (default 8)")
    slots.add_argument(
        "--way",
        choices=("path", "gradient", "ablation"),
        default="path",
        help="units: how contributions are found (default path)",
    )
    hiding = parser.add_argument_group("occlusion")
    hiding.add_argument("--patch", type=int, default=16, metavar="P", help="window side in pixels (default 16)")
    hiding.add_argument("--stride", type=int, default=8, metavar="S", help="step in pixels (default 8)")
    hiding.add_argument(
        "--occluder",
        default="grey",
        metavar="O",
        help="grey (default), mean, black, white, blur, local-mean, noise, neighbour, or a colour such as 0.2,0.4,0.1",
    )
    hiding.add_argument(
        "--value", choices=("drop", "score"), default="drop", help="drop of the score (default) or the score itself"
    )
    hiding.add_argument(
        "--engine",
        choices=("auto", "incremental", "dense"),
        default="auto",
        help="auto: incremental where the network can be traced",
    )
    hiding.add_argument(
        "--approximate",
        type=float,
        metavar="CAP",
        help="let no change grow beyond this share of a map; the error is measured",
    )
    hiding.add_argument(
        "--batch-size", type=int, default=64, metavar="B", help="windows or masks a pass takes (default 64)"
    )
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.suggest import suggestion

    known = (*GRADIENTS, *OTHERS, *QUESTIONS)
    if args.method not in known:
        raise SpecError(f"method {args.method!r} is unknown{suggestion(args.method, known)}")
    if args.method == "units" and not args.layer:
        raise SpecError("units: say whose units with --layer L")
    if args.judge and args.method in QUESTIONS:
        raise SpecError(f"--judge judges maps, {args.method} is none")
    network, loaded = options.open_network(args)
    run_id = options.check_run(args, loaded)
    results: list[dict[str, Any]] = []
    aside: list[tuple[Path, SpecError]] = []
    for path in args.image:
        try:
            results.append(_one(args, network, loaded, run_id, path))
        except SpecError as error:
            aside.append((path, error))
    if not results:
        raise aside[0][1]
    for path, reason in aside:
        print(f"set aside {path}: {reason}", file=sys.stderr)
    if not args.no_report:
        from dissect.publish import publish_attributions

        with open_store(args) as store:
            print(f"page: {publish_attributions(store)}", file=sys.stderr)
    told = {
        "method": args.method,
        "model": loaded.source,
        "weights_sha256": loaded.weights_sha256,
        "preprocessing": {
            "mean": list(loaded.preprocessing.mean),
            "std": list(loaded.preprocessing.std),
            "origin": loaded.preprocessing.origin,
        },
        "images": results,
        "set_aside": [{"image": str(path), "reason": str(reason)} for path, reason in aside],
    }
    print(json.dumps(told))
    return 3 if aside else 0


def _one(
    args: argparse.Namespace, network: "Network", loaded: "Model", run_id: str | None, path: Path
) -> dict[str, Any]:
    """One image: its files, its row, and its part of the JSON. Raises SpecError."""
    from dissect.attribution import pictures
    from dissect.attribution.naming import parse_target
    from dissect.store import attributions

    image = options.read_image(path, args.input_size)
    x = network.prepare(image[None])
    target = parse_target(args.target, network, x, args.probability, args.reduce, options.detectors_of(args))
    target.check(network, x)
    print(f"{path.name}: {target.title}", file=sys.stderr)
    found = answers.find(args.method)(args, network, x, target, image)
    record = attributions.AttributionRecord(
        method=args.method,
        model=loaded.source,
        image=path.name,
        image_sha256=hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
        target=target.title,
        score=found.score,
        arrays="",
        parameters=found.parameters | _input(args, loaded),
        audit=found.audit,
        replaced=len(found.audit["calls"]) if found.audit else None,
        measures=found.measures,
        facts=found.facts,
        weights_sha256=loaded.weights_sha256,
        run_id=run_id,
        layer=found.layer,
    )
    told = {"target": target.title, "score": found.score, **found.told}
    folder = args.out or Path(args.workspace) / "attributions" / args.method
    folder.mkdir(parents=True, exist_ok=True)
    # The id is in the names, so another question never overwrites the arrays that a row stands on.
    stem = folder / f"{path.stem}-{attributions.identity(record)[:10]}"
    overlay, arrays = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".npz")
    found.picture.save(overlay)
    pictures.write_arrays(arrays, {"image": image, **found.arrays}, told)
    with open_store(args, readonly=False) as store:
        at = str(options.inside(arrays, Path(args.workspace)))
        kept = attributions.save(store, replace(record, arrays=at), found.carriers)
    return {"image": str(path), "attribution": kept.id, **told, "overlay": str(overlay), "arrays": str(arrays)}


def _input(args: argparse.Namespace, loaded: "Model") -> dict[str, Any]:
    """What decides the input and the weights beside their hash."""
    told: dict[str, Any] = {"mean": list(loaded.preprocessing.mean), "std": list(loaded.preprocessing.std)}
    return told if loaded.weights_sha256 else told | {"seed_of_weights": args.seed}
