"""What `dissect attribute` answers for one image: a map, the units that carried it, or maps under every occluder."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dissect.cli import attribution_options as options

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from torch import Tensor

    from dissect.attribution.carriers import Carrier, UnitLabel
    from dissect.attribution.catalogue import Slots
    from dissect.attribution.gradients import Attribution
    from dissect.attribution.network import Network
    from dissect.attribution.targets import Target
    from dissect.store.attributions import CarrierRecord

# What a method tells beside its map: plain values for the record, arrays for the file.
_TOLD = ("engine", "incremental_steps", "steps", "checked_gap", "error")
_ARRAYS = ("outputs_class", "deviation", "standard_error")


@dataclass(frozen=True)
class Answer:
    """What one image gave: the columns of its row, the arrays and the picture to write, and what the JSON tells."""

    score: float
    picture: "Image"
    arrays: "dict[str, np.ndarray]"
    told: dict[str, Any]
    parameters: dict[str, Any]
    facts: dict[str, Any]
    layer: str | None = None
    audit: dict[str, Any] | None = None
    measures: dict[str, float] = field(default_factory=dict)
    carriers: "list[CarrierRecord]" = field(default_factory=list)


def find(method: str) -> "Callable[[argparse.Namespace, Network, Tensor, Target, np.ndarray], Answer]":
    """What answers for a method: f(args, network, x [1, C, h, w], target, image uint8 [h, w, 3])."""
    return {"units": _units, "occluder-sensitivity": _occluders}.get(method, _map)


def _map(args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray") -> Answer:
    """A method that answers with a map."""
    from PIL import Image

    from dissect.attribution import catalogue, pictures
    from dissect.attribution.judge.single import measure

    slots = _slots(args)
    with options.progress(args.method, {"occlusion": "windows", "rise": "masks"}.get(args.method, "passes")) as watch:
        found = catalogue.find(args.method, slots, watch)(network, x, target)
    for note in found.notes:
        print(f"  {note}", file=sys.stderr)
    measures = measure(network, x, target, found.map[0], catalogue.mapper(args.method, slots)) if args.judge else {}
    for name, value in measures.items():
        print(f"  {name} {value:.3f}", file=sys.stderr)
    heat = found.map[0].detach().cpu().numpy()
    audit = found.audit.json() if found.audit and found.audit.calls else None
    engine = {key: found.extra[key] for key in _TOLD if key in found.extra}
    return Answer(
        score=float(found.score[0]),
        picture=Image.fromarray(pictures.overlay(image, heat)),
        arrays={"map": heat, "values": found.values[0].detach().cpu().numpy()} | _arrays(found),
        told={
            "method": found.method,
            "notes": list(found.notes),
            "audit": audit,
            "measures": measures,
            "peak": [int(i) for i in divmod(int(heat.argmax()), heat.shape[1])],
            "engine": engine,
        },
        parameters=found.method,
        facts={"notes": list(found.notes), **engine},
        layer=found.method.get("layer"),
        audit=audit,
        measures=measures,
    )


def _slots(args: argparse.Namespace) -> "Slots":
    from dissect.attribution.catalogue import Slots

    return Slots(
        readout=args.readout, extension=args.extension, steps=args.steps, draws=args.draws, spread=args.spread,
        masks=args.masks, layer=args.layer, signed=args.signed, patch=args.patch, stride=args.stride,
        occluder=args.occluder, value=args.value, engine=args.engine, approximate=args.approximate,
        batch=args.batch_size, seed=args.seed,
    )  # fmt: skip


def _arrays(found: "Attribution") -> "dict[str, np.ndarray]":
    return {key: found.extra[key].detach().cpu().numpy()[0] for key in _ARRAYS if key in found.extra}


def _units(args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray") -> Answer:
    """The units that carried the decision, drawn on the image."""
    import numpy as np
    import torch
    from torch.nn import functional as F

    from dissect.attribution import pictures
    from dissect.attribution.carriers import carriers, concept_sums, contributions

    labels = options.labels_of(args, args.layer) if args.run else None
    found = contributions(network, x, target, args.layer, args.way)
    best = carriers(found, labels, args.top)
    small = found.maps[0, [carrier.unit for carrier in best]].detach().cpu().to(torch.float64)
    large = F.interpolate(small[None], size=image.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    facts = {
        "completeness_gap": None if found.gap is None else float(found.gap[0]),
        "concepts": concept_sums(found, labels) if labels else None,
    }
    records = [_carrier(rank, carrier) for rank, carrier in enumerate(best, 1)]
    shown = ("unit", "contribution", "share", "concept", "category", "iou")
    return Answer(
        score=float(found.score[0]),
        picture=pictures.sheet([(_caption(c), pictures.overlay(image, heat)) for c, heat in zip(best, large)]),
        arrays={"values": found.values[0].cpu().numpy(), "carriers": small.numpy().astype(np.float32)},
        told={
            "layer": found.layer,
            "way": found.way,
            "carriers": [{name: getattr(record, name) for name in shown} for record in records],
            **facts,
        },
        parameters={"way": found.way},
        facts=facts,
        layer=found.layer,
        carriers=records,
    )


def _carrier(rank: int, carrier: "Carrier") -> "CarrierRecord":
    from dissect.store.attributions import CarrierRecord

    label = carrier.label
    names = (None, None, None, None) if label is None else _columns(label)
    return CarrierRecord(rank, carrier.unit, carrier.contribution, carrier.share, *names)


def _columns(label: "UnitLabel") -> tuple[str | None, str | None, float, int]:
    return label.concept, label.category, label.iou, int(label.detector)


def _caption(carrier: "Carrier") -> str:
    label = carrier.label
    name = f"{label.concept} IoU {label.iou:.3f}" if label and label.concept else "no label"
    return f"unit {carrier.unit}: {name}\n{carrier.contribution:+.4g} ({carrier.share:.1%})"


def _occluders(
    args: argparse.Namespace, network: "Network", x: "Tensor", target: "Target", image: "np.ndarray"
) -> Answer:
    """Occlusion under every occluder."""
    from dissect.attribution import pictures
    from dissect.attribution.occlusion.sensitivity import occluder_sensitivity

    with options.progress("occlusion", "maps") as watch:
        found = occluder_sensitivity(
            network, x, target, watch=watch, patch=args.patch, stride=args.stride, engine=args.engine,
            batch=args.batch_size,
        )  # fmt: skip
    maps = [one.map[0].detach().cpu().numpy() for one in found.maps]
    facts = {
        "occluders": list(found.occluders),
        "correlation": found.correlation[0].tolist(),
        "agreement": float(found.agreement[0]),
    }
    print(f"  occluders agree by {facts['agreement']:.3f} (mean rank correlation)", file=sys.stderr)
    return Answer(
        score=float(found.maps[0].score[0]),
        picture=pictures.sheet([(name, pictures.overlay(image, heat)) for name, heat in zip(found.occluders, maps)]),
        arrays={f"occluder_{at}": heat for at, heat in enumerate(maps)},
        told=facts,
        parameters={"patch": args.patch, "stride": args.stride},
        facts=facts,
    )
