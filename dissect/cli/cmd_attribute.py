"""`dissect attribute`: where in the image a decision came from."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect.cli.common import add_workspace

if TYPE_CHECKING:
    from torch import Tensor

    from dissect.attribution.gradients import Attribution
    from dissect.attribution.network import Network
    from dissect.attribution.targets import Target

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
OTHERS = ("grad-cam", "guided-grad-cam", "occlusion", "rise", "occluder-sensitivity", "units")

DESCRIPTION = """\
Attribute a class, a unit, a direction or a concept to the places of an image; exact, with an audit of every ReLU rule.

  dissect attribute gradient resnet18 --weights my.pth --image dog.jpg --target top
  dissect attribute occlusion resnet18 --image a.jpg b.jpg --target class:207 --patch 16 --stride 8
  dissect attribute guided resnet18 --image dog.jpg --target unit:layer4:33
  dissect attribute units resnet18 --layer layer4 --run RUN --image dog.jpg --target top    which units carried it

Files go to --out: an overlay (PNG) and arrays (NPZ) for each image; one JSON object on stdout says what was done.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "attribute",
        help="where in the image a decision came from",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "method", metavar="METHOD", choices=(*GRADIENTS, *OTHERS), help=", ".join((*GRADIENTS, *OTHERS))
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="torchvision:NAME (or just NAME), timm:NAME, demo, or a trusted file or module:factory",
    )
    parser.add_argument("--image", nargs="+", required=True, type=Path, metavar="FILE", help="one or more images")
    parser.add_argument(
        "--target",
        default="top",
        metavar="T",
        help="top (default), class:N, unit:LAYER:N, direction:LAYER:FILE.npy, concept:LAYER:NAME",
    )
    parser.add_argument(
        "--probability", action="store_true", help="attribute the class probability instead of the logit"
    )
    parser.add_argument(
        "--reduce", choices=("max", "sum", "mean"), default="max", help="how a map becomes one number (default max)"
    )
    parser.add_argument("--layer", metavar="L", help="layer of grad-cam (default: the last with maps) and of units")
    parser.add_argument("--run", metavar="RUN", help="dissection that names the units (units, concept targets)")
    parser.add_argument(
        "--weights", metavar="FILE", help=".safetensors, or a state dict (loaded as weights only, in a child process)"
    )
    parser.add_argument(
        "--trust-code", metavar="SHA256", help="hash of the file whose code may run; a refusal prints it"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights, noise and masks (default 0)")
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="S",
        help="squash images to S x S (default: as they are; 224 for several sizes)",
    )
    parser.add_argument(
        "--mean", metavar="R,G,B", help="mean on the 0..1 scale (default: the weights' own, or ImageNet's)"
    )
    parser.add_argument("--std", metavar="R,G,B", help="standard deviation on the 0..1 scale")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default) or cuda")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the files (default: WORKSPACE/attributions/METHOD)"
    )
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
    import torch

    from dissect import models
    from dissect.attribution.network import Network
    from dissect.errors import SpecError

    if args.method == "units" and not args.layer:
        raise SpecError("units: say whose units with --layer L")
    for path in args.image:
        if not path.is_file():
            raise SpecError(f"image {path} is not there")
    loaded = models.load(
        args.model,
        args.weights,
        args.trust_code,
        _triple("--mean", args.mean),
        _triple("--std", args.std),
        seed=args.seed,
    )
    for note in loaded.notes:
        print(note, file=sys.stderr)
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SpecError(f"--device {args.device}: torch sees no GPU here, use cpu")
    network = Network.of(loaded.module.to(args.device), loaded.preprocessing, loaded.source)
    folder = args.out or Path(args.workspace) / "attributions" / args.method
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    names: set[str] = set()
    for path in args.image:
        name = path.stem
        while name in names:  # two images of one name from two folders keep both files
            name += "-2"
        names.add(name)
        results.append(_one(args, network, path, folder / name))
    record = {
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
    print(json.dumps(record))
    return 0


def _triple(option: str, text: str | None) -> tuple[float, float, float] | None:
    from dissect.errors import SpecError

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3:
        raise SpecError(f"{option} {text!r}: expected three numbers such as 0.485,0.456,0.406")
    return values[0], values[1], values[2]


def _one(args: argparse.Namespace, network: "Network", path: Path, stem: Path) -> dict[str, Any]:
    """One image: its files and its part of the JSON."""
    from PIL import UnidentifiedImageError

    from dissect.attribution import pictures
    from dissect.attribution.naming import parse_target
    from dissect.errors import SpecError

    try:
        image = pictures.read_image(path, (args.input_size, args.input_size) if args.input_size else None)
    except (UnidentifiedImageError, OSError) as error:
        raise SpecError(f"image {path} cannot be read: {error}") from None
    x = network.prepare(image[None])
    target = parse_target(
        args.target, network, x, args.probability, args.reduce, _detectors(args) if args.run else None
    )
    print(f"{path.name}: {target.title}", file=sys.stderr)
    if args.method == "units":
        return {"image": str(path), **_units(args, network, x, target, image, stem)}
    if args.method == "occluder-sensitivity":
        return {"image": str(path), **_occluders(args, network, x, target, image, stem)}
    found = _attribution(args, network, x, target)
    for note in found.notes:
        print(f"  {note}", file=sys.stderr)
    heat = found.map[0].detach().cpu().numpy()
    from PIL import Image

    overlay, arrays = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".npz")
    Image.fromarray(pictures.overlay(image, heat)).save(overlay)
    record = {
        "image": str(path),
        "target": found.target,
        "score": float(found.score[0]),
        "method": found.method,
        "notes": list(found.notes),
        "audit": found.audit.json() if found.audit and found.audit.calls else None,
        "peak": [int(i) for i in divmod(int(heat.argmax()), heat.shape[1])],
        "engine": {
            k: v
            for k, v in found.extra.items()
            if k in ("engine", "incremental_steps", "steps", "checked_gap", "error")
        },
    }
    extra = {
        k: v.detach().cpu().numpy()[0]
        for k, v in found.extra.items()
        if k in ("outputs_class", "deviation", "standard_error")
    }
    pictures.write_arrays(arrays, {"map": heat, "values": found.values[0].detach().cpu().numpy(), **extra}, record)
    return {**record, "overlay": str(overlay), "arrays": str(arrays)}


def _attribution(args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target") -> "Attribution":
    from dataclasses import replace

    from dissect.attribution import cam, gradients
    from dissect.attribution.occlusion import occlude
    from dissect.attribution.readouts import READOUTS
    from dissect.attribution.rise import rise

    if args.method == "occlusion":
        settings: dict[str, Any] = {
            "patch": args.patch,
            "stride": args.stride,
            "occluder": args.occluder,
            "value": args.value,
            "batch": args.batch_size,
        }
        if args.approximate is not None:
            return occlude.occlude_approximately(network, x, target, cap=args.approximate, seed=args.seed, **settings)
        return occlude.occlude(network, x, target, engine=args.engine, **settings)
    if args.method == "rise":
        return rise(network, x, target, masks=args.masks, seed=args.seed, batch=args.batch_size)
    if args.method == "grad-cam":
        return cam.grad_cam(network, x, target, args.layer, args.signed)
    guided = args.method == "guided-grad-cam"
    method = gradients.METHODS["guided" if guided else args.method]
    if args.method == "integrated-gradients":
        method = gradients.integrated_gradients(args.steps)
    elif args.method == "smoothgrad":
        method = gradients.smoothgrad(args.draws, args.spread, args.seed)
    method = replace(method, extension=args.extension)
    if args.readout:
        method = replace(method, readout=READOUTS[args.readout])
    if guided:
        return cam.guided_grad_cam(network, x, target, args.layer, method)
    return gradients.attribute(network, x, target, method)


def _labels(args: argparse.Namespace, layer: str) -> list[Any]:
    from dissect.attribution.carriers import unit_labels
    from dissect.cli.common import open_store

    with open_store(args) as store:
        return unit_labels(store, args.run, layer)


def _detectors(args: argparse.Namespace) -> Any:
    from dissect.attribution.carriers import detectors

    return lambda layer, concept: detectors(_labels(args, layer), concept)


def _units(
    args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: Any, stem: Path
) -> dict[str, Any]:
    """The units that carried the decision, drawn on the image."""
    import torch
    from torch.nn import functional as F

    from dissect.attribution import pictures
    from dissect.attribution.carriers import carriers, concept_sums, contributions

    labels = _labels(args, args.layer) if args.run else None
    found = contributions(network, x, target, args.layer, args.way)
    best = carriers(found, labels, args.top)
    tiles = []
    for carrier in best:
        small = found.maps[:, carrier.unit : carrier.unit + 1].detach().cpu().to(torch.float64)
        large = F.interpolate(small, size=image.shape[:2], mode="bilinear", align_corners=False)[0, 0]
        name = carrier.label.concept if carrier.label and carrier.label.concept else "no label"
        iou = f" IoU {carrier.label.iou:.3f}" if carrier.label and carrier.label.concept else ""
        tiles.append(
            (
                f"unit {carrier.unit}: {name}{iou}\n{carrier.contribution:+.4g} ({carrier.share:.1%})",
                pictures.overlay(image, large.numpy()),
            )
        )
    overlay, arrays = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".npz")
    pictures.sheet(tiles).save(overlay)
    record: dict[str, Any] = {
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
                "concept": c.label.concept if c.label else None,
                "category": c.label.category if c.label else None,
                "iou": c.label.iou if c.label else None,
            }
            for c in best
        ],
        "concepts": concept_sums(found, labels) if labels else None,
    }
    pictures.write_arrays(
        arrays, {"values": found.values[0].cpu().numpy(), "maps": found.maps[0].cpu().numpy()}, record
    )
    return {**record, "overlay": str(overlay), "arrays": str(arrays)}


def _occluders(
    args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: Any, stem: Path
) -> dict[str, Any]:
    """The map under every occluder, and how well they agree."""
    from dissect.attribution import pictures
    from dissect.attribution.occlusion.sensitivity import occluder_sensitivity

    found = occluder_sensitivity(
        network, x, target, patch=args.patch, stride=args.stride, engine=args.engine, batch=args.batch_size
    )
    maps = {name: a.map[0].detach().cpu().numpy() for name, a in zip(found.occluders, found.maps)}
    overlay, arrays = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".npz")
    pictures.sheet([(name, pictures.overlay(image, heat)) for name, heat in maps.items()]).save(overlay)
    record = {"target": target.title, "score": float(found.maps[0].score[0]), **found.json()}
    pictures.write_arrays(
        arrays, {name.replace(" ", "_").replace(",", "_"): heat for name, heat in maps.items()}, record
    )
    return {**record, "overlay": str(overlay), "arrays": str(arrays)}
