"""`dissect attribute`: where in the image a decision came from."""

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect.cli import attribution_options as options
from dissect.cli.common import add_workspace, open_store

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dissect.attribution.catalogue import Slots
    from dissect.attribution.network import Network
    from dissect.attribution.targets import Target
    from dissect.models import Model
    from dissect.store.attributions import AttributionRecord, CarrierRecord

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
`dissect query carriers`) and the page reports/_attributions; one JSON object on stdout says what was done.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "attribute",
        help="where in the image a decision came from",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "method", metavar="METHOD", choices=(*GRADIENTS, *OTHERS, *QUESTIONS), help="one of the methods above"
    )
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


@dataclass
class Found:
    """What one image gave: parts of its record, arrays, the picture to write, and what only the JSON tells."""

    record: "AttributionRecord"
    arrays: "dict[str, np.ndarray]"
    picture: Any
    told: dict[str, Any]
    carriers: "list[CarrierRecord]" = field(default_factory=list)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError

    if args.method == "units" and not args.layer:
        raise SpecError("units: say whose units with --layer L")
    if args.judge and args.method in QUESTIONS:
        raise SpecError(f"--judge judges maps, {args.method} is none")
    images = [options.read_image(path, args.input_size) for path in args.image]
    network, loaded = options.open_network(args)
    run_id = options.check_run(args, loaded)
    folder = args.out or Path(args.workspace) / "attributions" / args.method
    folder.mkdir(parents=True, exist_ok=True)
    results = [_one(args, network, loaded, run_id, path, image, folder) for path, image in zip(args.image, images)]
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
    }
    print(json.dumps(told))
    return 0


def _one(
    args: argparse.Namespace,
    network: "Network",
    loaded: "Model",
    run_id: str | None,
    path: Path,
    image: "np.ndarray",
    folder: Path,
) -> dict[str, Any]:
    """One image: its files, its row, and its part of the JSON."""
    import hashlib

    from dissect.attribution import pictures
    from dissect.attribution.naming import parse_target
    from dissect.store import attributions

    x = network.prepare(image[None])
    target = parse_target(args.target, network, x, args.probability, args.reduce, options.detectors_of(args))
    print(f"{path.name}: {target.title}", file=sys.stderr)
    ask = {"units": _units, "occluder-sensitivity": _occluders}.get(args.method, _map)
    found = ask(args, network, x, target, image)
    with open_store(args, readonly=False) as store:
        base = replace(
            found.record,
            method=args.method,
            model=loaded.source,
            weights_sha256=loaded.weights_sha256,
            image=path.name,
            image_sha256=hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(),
            run_id=run_id,
            parameters=found.record.parameters | _input(args, loaded),
        )
        # The id is in the names, so another question never overwrites the arrays that a row stands on.
        stem = folder / f"{path.stem}-{attributions.identity(base)[:10]}"
        overlay, arrays = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".npz")
        found.picture.save(overlay)
        pictures.write_arrays(arrays, {"image": image, **found.arrays}, found.told)
        kept = attributions.save(
            store, replace(base, arrays=str(options.inside(arrays, Path(args.workspace)))), found.carriers
        )
    return {
        "image": str(path), "attribution": kept.id, **found.told, "overlay": str(overlay), "arrays": str(arrays)
    }  # fmt: skip


def _input(args: argparse.Namespace, loaded: "Model") -> dict[str, Any]:
    """What decides the input and the weights beside their hash."""
    told: dict[str, Any] = {"mean": list(loaded.preprocessing.mean), "std": list(loaded.preprocessing.std)}
    return told if loaded.weights_sha256 else told | {"seed_of_weights": args.seed}


def _record(target: "Target", score: float, **parts: Any) -> "AttributionRecord":
    from dissect.store.attributions import AttributionRecord

    return AttributionRecord("", "", "", "", target.title, score, "", **parts)


def _map(args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray") -> Found:
    """A method that answers with a map."""
    from PIL import Image

    from dissect.attribution import catalogue, pictures
    from dissect.attribution.judge.single import measure

    slots = _slots(args)
    found = catalogue.find(args.method, slots)(network, x, target)
    for note in found.notes:
        print(f"  {note}", file=sys.stderr)
    heat = found.map[0].detach().cpu().numpy()
    measures = measure(network, x, target, found.map[0], catalogue.mapper(args.method, slots)) if args.judge else {}
    for name, value in measures.items():
        print(f"  {name} {value:.3f}", file=sys.stderr)
    audit = found.audit.json() if found.audit and found.audit.calls else None
    engine = {
        k: v for k, v in found.extra.items() if k in ("engine", "incremental_steps", "steps", "checked_gap", "error")
    }
    told = {
        "target": found.target,
        "score": float(found.score[0]),
        "method": found.method,
        "notes": list(found.notes),
        "audit": audit,
        "measures": measures,
        "peak": [int(i) for i in divmod(int(heat.argmax()), heat.shape[1])],
        "engine": engine,
    }
    extra = {
        k: v.detach().cpu().numpy()[0]
        for k, v in found.extra.items()
        if k in ("outputs_class", "deviation", "standard_error")
    }
    record = _record(
        target, float(found.score[0]), parameters=found.method, audit=audit, measures=measures,
        replaced=len(audit["calls"]) if audit else None, layer=found.method.get("layer"),
        facts={"notes": list(found.notes), **engine},
    )  # fmt: skip
    arrays = {"map": heat, "values": found.values[0].detach().cpu().numpy(), **extra}
    return Found(record, arrays, Image.fromarray(pictures.overlay(image, heat)), told)


def _slots(args: argparse.Namespace) -> "Slots":
    from dissect.attribution.catalogue import Slots

    return Slots(
        readout=args.readout, extension=args.extension, steps=args.steps, draws=args.draws, spread=args.spread,
        masks=args.masks, layer=args.layer, signed=args.signed, patch=args.patch, stride=args.stride,
        occluder=args.occluder, value=args.value, engine=args.engine, approximate=args.approximate,
        batch=args.batch_size, seed=args.seed,
    )  # fmt: skip


def _units(args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray") -> Found:
    """The units that carried the decision, drawn on the image."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from dissect.attribution import pictures
    from dissect.attribution.carriers import carriers, concept_sums, contributions
    from dissect.store.attributions import CarrierRecord

    labels = options.labels_of(args, args.layer) if args.run else None
    found = contributions(network, x, target, args.layer, args.way)
    best = carriers(found, labels, args.top)
    small = found.maps[0, [carrier.unit for carrier in best]].detach().cpu().to(torch.float64)
    large = F.interpolate(small[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    tiles = []
    for carrier, heat in zip(best, large):
        name = carrier.label.concept if carrier.label and carrier.label.concept else "no label"
        iou = f" IoU {carrier.label.iou:.3f}" if carrier.label and carrier.label.concept else ""
        title = f"unit {carrier.unit}: {name}{iou}\n{carrier.contribution:+.4g} ({carrier.share:.1%})"
        tiles.append((title, pictures.overlay(image, heat)))
    records = [
        CarrierRecord(
            rank, c.unit, c.contribution, c.share, c.label.concept if c.label else None,
            c.label.category if c.label else None, c.label.iou if c.label else None,
            int(c.label.detector) if c.label else None,
        )
        for rank, c in enumerate(best, 1)
    ]  # fmt: skip
    told: dict[str, Any] = {
        "target": found.target,
        "layer": found.layer,
        "way": found.way,
        "score": float(found.score[0]),
        "completeness_gap": None if found.gap is None else float(found.gap[0]),
        "carriers": [
            {
                "unit": c.unit,
                "contribution": c.contribution,
                "share": c.share,
                "concept": c.concept,
                "category": c.category,
                "iou": c.iou,
            }
            for c in records
        ],
        "concepts": concept_sums(found, labels) if labels else None,
    }
    record = _record(
        target, told["score"], parameters={"way": found.way}, layer=found.layer,
        facts={"completeness_gap": told["completeness_gap"], "concepts": told["concepts"]},
    )  # fmt: skip
    arrays = {"values": found.values[0].cpu().numpy(), "carriers": small.numpy().astype(np.float32)}
    return Found(record, arrays, pictures.sheet(tiles), told, records)


def _occluders(
    args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray"
) -> Found:
    """Occlusion under every occluder."""
    from dissect.attribution import pictures
    from dissect.attribution.occlusion.sensitivity import occluder_sensitivity

    found = occluder_sensitivity(
        network, x, target, patch=args.patch, stride=args.stride, engine=args.engine, batch=args.batch_size
    )
    maps = [a.map[0].detach().cpu().numpy() for a in found.maps]
    score = float(found.maps[0].score[0])
    facts = {
        "occluders": list(found.occluders), "correlation": found.correlation[0].tolist(),
        "agreement": float(found.agreement[0]),
    }  # fmt: skip
    print(f"  occluders agree by {facts['agreement']:.3f} (mean rank correlation)", file=sys.stderr)
    record = _record(target, score, parameters={"patch": args.patch, "stride": args.stride}, facts=facts)
    sheet = pictures.sheet([(name, pictures.overlay(image, heat)) for name, heat in zip(found.occluders, maps)])
    arrays = {f"occluder_{at}": heat for at, heat in enumerate(maps)}
    return Found(record, arrays, sheet, {"target": target.title, "score": score, **facts})
