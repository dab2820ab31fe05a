"""`dissect run`: dissect layers of a network on a concept set."""

import argparse
import json
import sys
from pathlib import Path

from dissect.cli.common import add_workspace, open_workspace

DESCRIPTION = """\
Dissect one or more layers of a network: exact thresholds, every unit x concept IoU, exemplars, a database and a report.

  dissect run resnet18 --layer layer4 --data broden1_224
  dissect run torchvision:mobilenet_v2 --weights my.pth --layer features.14 --layer features.18.1 --data DIR
  dissect run resnet18 --layer '?'                 list the layers with their shapes

  dissect run resnet18 --layer layer4 --data DIR --basis rotate:seed=1,alpha=0.5

The same command again returns the finished run; an interrupted one goes on from where it was.
"""
BASIS = (  # the text of dissect.bases, which would import torch
    "see the layer along other directions than its units: rotate[:seed=N,alpha=X] (a random rotation Q, as Q^X), "
    "random[:seed=N,directions=D] (random unit vectors), or a file with a matrix [D, U], .npy or .safetensors"
)


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "run",
        help="dissect a network",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="torchvision:NAME (or just NAME), timm:NAME, demo, or a trusted file or module:factory",
    )
    parser.add_argument(
        "--layer", action="append", metavar="L", help="dotted layer name; repeat for several; '?' lists them"
    )
    parser.add_argument("--data", metavar="DIR", help="a folder in Broden's format, or a packed set")
    parser.add_argument(
        "--weights", metavar="FILE", help=".safetensors, or a state dict (loaded as weights only, in a child process)"
    )
    parser.add_argument(
        "--trust-code", metavar="SHA256", help="hash of the file whose code may run; a refusal prints it"
    )
    parser.add_argument("--name", help="name of the run, unique in the workspace")
    parser.add_argument("--convention", default="exact", help="exact (default), netdissect, lite or dissect2020")
    parser.add_argument("--quantile", type=float, metavar="Q", help="P(activation > threshold); default 0.005")
    parser.add_argument(
        "--thresholds",
        metavar="FILE",
        help="CSV with layer, unit, threshold (see `dissect export`): use these instead of finding them",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="images a forward pass takes (default: 8 of 224 pixels; on a GPU 64)",
    )
    parser.add_argument("--device", default="cpu", metavar="D", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", metavar="T", help="float32 (default) or bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="compile the network first (torch.compile): pays for many images"
    )
    parser.add_argument(
        "--null",
        type=int,
        default=0,
        metavar="B",
        help="p- and q-values of every unit from B draws of chance, such as 200",
    )
    parser.add_argument(
        "--null-shifts",
        action="store_true",
        help="move the labels of each draw too: a preference for places is then no chance",
    )
    parser.add_argument("--basis", metavar="SPEC", help=BASIS)
    parser.add_argument(
        "--untrained",
        action="store_true",
        help="an untrained copy of the network: random weights from --seed, the same mean and std",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")
    parser.add_argument("--split", choices=("train", "val"), help="images of one split only")
    parser.add_argument("--input-size", type=int, metavar="S", help="squash images to S x S (default: as stored)")
    parser.add_argument(
        "--mean",
        type=_triple,
        metavar="R,G,B",
        help="mean on the 0..1 scale (default: the weights' own, or ImageNet's)",
    )
    parser.add_argument("--std", type=_triple, metavar="R,G,B", help="standard deviation on the 0..1 scale")
    parser.add_argument("--seed", type=int, default=0, help="seed of random weights where none are given (default 0)")
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="measure shard I of N only (0 <= I < N <= 64); `dissect merge` finishes",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: spread over a Ray cluster whose nodes see the same files (extra [ray])",
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="host:port of the cluster (default: the one on this machine)"
    )
    parser.add_argument(
        "--memory",
        type=_bytes,
        default=_bytes("1280M"),
        metavar="BYTES",
        help="memory for tails, candidates and labels (default 1280M)",
    )
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="where what does not fit into memory waits (default: the workspace's cache)"
    )
    parser.add_argument(
        "--cache-bytes",
        type=_bytes,
        default=_bytes("8G"),
        metavar="BYTES",
        help="disk for it (default 8G); beyond that images are forwarded again",
    )
    parser.add_argument("--no-report", action="store_true", help="leave the report out")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.running import RunRequest, list_layers, run_dissection

    if not args.layer:
        raise SpecError("no layer given: add --layer NAME, or --layer '?' to list them")
    request = RunRequest(
        model=args.model,
        layers=tuple(args.layer),
        data=args.data,
        weights=args.weights,
        trust=args.trust_code,
        name=args.name,
        convention=args.convention,
        quantile=args.quantile,
        batch_size=args.batch_size,
        device=args.device,
        dtype=args.dtype,
        compiled=args.compile,
        basis=args.basis,
        null=args.null,
        null_shifts=args.null_shifts,
        limit=args.limit,
        split=args.split,
        input_size=args.input_size,
        mean=args.mean,
        std=args.std,
        seed=args.seed,
        memory=args.memory,
        cache_dir=Path(args.cache_dir) if args.cache_dir else None,
        cache_bytes=args.cache_bytes,
        report=not args.no_report,
        thresholds=Path(args.thresholds) if args.thresholds else None,
    )
    if args.untrained:
        from dissect.untrained import untrained

        request = untrained(request, args.seed)
    if "?" in args.layer:
        sys.stdout.write(list_layers(request) + "\n")
        return 0
    if args.ray_address and args.engine != "ray":
        raise SpecError("--ray-address belongs to --engine ray")
    if args.shard and args.engine == "ray":
        raise SpecError("--shard measures one shard here; --engine ray spreads them all: choose one")
    if args.shard:
        from dissect.shards import run_shard

        path = run_shard(open_workspace(args), request, args.shard, lambda line: print(line, file=sys.stderr))
        shard = {"run": path.parent.parent.name, "shard": "{}/{}".format(*args.shard), "partial": str(path)}
        print(json.dumps(shard) if args.json else "run {run}, shard {shard}: {partial}".format(**shard))
        return 0
    if args.engine == "ray":
        from dissect.service.ray import Ray
        from dissect.service.spread import run_spread

        with Ray(args.ray_address) as engine:
            outcome = run_spread(open_workspace(args), request, engine, lambda line: print(line, file=sys.stderr))
    else:
        outcome = run_dissection(open_workspace(args), request, announce=lambda line: print(line, file=sys.stderr))
    print(outcome.summary(), file=sys.stderr)
    if args.json:
        print(json.dumps(outcome.json()))
    return 3 if outcome.excluded else 0


def _triple(text: str) -> tuple[float, float, float]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers such as 0.485,0.456,0.406")
    return values[0], values[1], values[2]


def _shard(text: str) -> tuple[int, int]:
    i, slash, n = text.partition("/")
    if not (slash and i.isdigit() and n.isdigit() and int(i) < int(n) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r}: expected I/N with 0 <= I < N <= 64, such as 0/8")
    return int(i), int(n)


def _bytes(text: str) -> int:
    factor = {"k": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
    digits = text[:-1] if factor > 1 else text
    try:
        return int(float(digits) * factor)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected bytes such as 800M or 4G") from None
