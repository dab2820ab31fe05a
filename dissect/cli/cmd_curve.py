"""`dissect curve`: unique detectors against the rotation of a layer."""

import argparse
import json
import sys
from pathlib import Path

from dissect.cli.common import add_workspace, open_workspace, print_rows

DESCRIPTION = """\
Draw the paper's curve for a layer of any model: unique detectors along its units (alpha 0), along axes rotated by
Q^alpha for several random rotations Q, along random directions, and along the units of untrained copies. A network
whose units are nothing special draws a flat curve. Predictions are the same everywhere on it.

  dissect curve demo --layer conv5 --data DIR
  dissect curve resnet18 --weights my.pth --layer layer4 --data broden1_224 --alphas 0.5,1 --seeds 5 --format csv

Every point is a run (`dissect run --basis …`); finished ones are taken as they are, so more seeds cost only the new
ones. Points go to stdout, the page to reports/curve-….
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "curve",
        help="unique detectors against the rotation of a layer",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="as for `dissect run`")
    parser.add_argument("--layer", required=True, metavar="L", help="dotted layer name")
    parser.add_argument("--data", required=True, metavar="DIR", help="a folder in Broden's format, or a packed set")
    parser.add_argument("--weights", metavar="FILE", help=".safetensors or a state dict")
    parser.add_argument("--trust-code", metavar="SHA256", help="hash of the file whose code may run")
    parser.add_argument(
        "--alphas",
        type=_numbers,
        metavar="X,X,…",
        default=(0.2, 0.4, 0.6, 0.8, 1.0),
        help="shares of the rotation, 0 to 1 (default 0.2,0.4,0.6,0.8,1; 0 is always there)",
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="draws of every random thing (default 3)")
    parser.add_argument("--convention", default="exact", help="exact (default), netdissect, lite or dissect2020")
    parser.add_argument("--quantile", type=float, metavar="Q", help="P(activation > threshold); default 0.005")
    parser.add_argument("--batch-size", type=int, metavar="B", help="images a forward pass takes")
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", metavar="T", help="float32 (default) or bfloat16")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--split", choices=("train", "val"), help="images of one split only")
    parser.add_argument("--input-size", type=int, metavar="S", help="squash images to S x S (default: as stored)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the page (default: in the reports)")
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table",
        help="how points are written (default table); json: one object with the points and the page",
    )  # fmt: skip
    add_workspace(parser)
    parser.set_defaults(handler=run, output=None, excel_safe=False)


def run(args: argparse.Namespace) -> int:
    from dissect import curve
    from dissect.publish import publish_curve
    from dissect.request import RunRequest
    from dissect.store import Store

    request = RunRequest(
        model=args.model, layers=(args.layer,), data=args.data, weights=args.weights, trust=args.trust_code,
        convention=args.convention, quantile=args.quantile, batch_size=args.batch_size, device=args.device,
        dtype=args.dtype, limit=args.limit, split=args.split, input_size=args.input_size,
    )  # fmt: skip
    workspace = open_workspace(args)
    points = curve.draw(workspace, request, args.alphas, args.seeds, lambda line: print(line, file=sys.stderr))
    rows = [point.json() for point in points]
    with Store.open(workspace) as store:
        page = publish_curve(store, rows, args.out)
    print(f"page  {page}", file=sys.stderr)
    if args.format == "json":
        print(json.dumps({"page": str(page), "layer": args.layer, "points": rows}))
    else:
        print_rows(args, curve.COLUMNS, [[row[name] for name in curve.COLUMNS] for row in rows])
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers from 0 to 1, such as 0.2,0.6,1") from None
