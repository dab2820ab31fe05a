"""`dissect import`: published result CSVs into the same tables."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dissect.cli.common import add_workspace, open_store

DESCRIPTION = """\
Read a result CSV of Network Dissection (or a relative) as a run marked imported. Every IoU, label and count is derived
from the file's integers; cells that disagree with them are recorded and shown.

  dissect import caffe_reference_imagenet.csv --model alexnet --layer conv5
  dissect query units --run caffe_reference_imagenet --top 20
"""
_SHOWN = 10


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "import",
        help="read a published result CSV",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE.csv")
    parser.add_argument("--name", metavar="N", help="name of the run (default: the file's)")
    parser.add_argument("--model", metavar="M", help="what was dissected (default: the file's name)")
    parser.add_argument("--layer", metavar="L", help="which layer (default: from LAYER-result.csv, else 'imported')")
    parser.add_argument(
        "--convention", metavar="C", default="netdissect", help="how it was counted (default: netdissect)"
    )
    parser.add_argument(
        "--unit-base", type=int, choices=(0, 1), help="number of the first unit (default: seen from the file)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect import golden
    from dissect.store import RunRecord

    if args.convention != "netdissect":
        from dissect import conventions

        conventions.get(args.convention)
    path = Path(args.file)
    found = golden.read(path, args.unit_base)
    layer_name = args.layer or (path.stem.removesuffix("-result") if path.stem.endswith("-result") else "imported")
    layer, concepts, categories = golden.records(found.cells, layer_name)
    spec = {
        "imported": found.sha256, "layer": layer_name, "model": args.model or path.stem, "convention": args.convention,
        "unit_base": found.style.unit_base,
    }  # fmt: skip
    disagreements = [vars(item) for item in found.disagreements]
    record = RunRecord(
        id=_digest(spec), name=args.name or path.stem, convention=args.convention, model=spec["model"],
        source=path.name, data_name="(imported)", data_fingerprint=found.sha256, spec=spec,
    )  # fmt: skip
    provenance: dict[str, Any] = {
        "file": path.name, "file_sha256": found.sha256, "style": golden.style_values(found.style),
        "disagreements": disagreements,
    }  # fmt: skip
    with open_store(args, readonly=False) as store:
        stored = store.begin_run(record)
        if stored.state != "imported":
            stored = store.finish_run(record.id, [layer], concepts, categories, state="imported", provenance=provenance)
        where = store.where
    for item in found.disagreements[:_SHOWN]:
        print(item, file=sys.stderr)
    if len(disagreements) > _SHOWN:
        print(f"… {len(disagreements) - _SHOWN} more cells disagree; all are in the run's provenance", file=sys.stderr)
    print(
        f"{stored.title}: {len(layer.units.iou)} units, {layer.detectors} detectors, {layer.unique_detectors} unique "
        f"detectors, {layer.unique_concepts} unique concepts, {len(disagreements)} cells disagree; in {where}",
        file=sys.stderr,
    )
    if args.json:
        counts = {
            "units": len(layer.units.iou), "detectors": layer.detectors, "unique_detectors": layer.unique_detectors,
            "unique_concepts": layer.unique_concepts,
        }  # fmt: skip
        answer = {
            "run": record.id, "database": where, "convention": args.convention, "layers": {layer_name: counts},
            "disagreements": disagreements,
        }  # fmt: skip
        print(json.dumps(answer))
    return 0


def _digest(spec: dict[str, Any]) -> str:
    import hashlib

    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
