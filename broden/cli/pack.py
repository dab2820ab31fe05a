"""`pack`: checksummed shards that are quick to read. Started again after a stop, it goes on."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from broden.cli.common import add_set, add_workers, print_json


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    parser = commands.add_parser("pack", help="pack a folder for streaming", description=__doc__)
    add_set(parser, narrow=False)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    parser.add_argument(
        "--images",
        choices=("files", "pixels"),
        default="files",
        help="keep the pictures' files (smaller than the set, exact way back), or raw pixels (large, fastest)",
    )
    parser.add_argument("--shard-images", type=int, default=512, metavar="N", help="images in a shard (default 512)")
    add_workers(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Pack and say what was made."""
    from broden.packing import pack
    from broden.progress import Progress

    progress = Progress()
    start = time.monotonic()
    data = pack(args.data, args.out, args.images == "pixels", args.shard_images, args.workers, progress)
    seconds = time.monotonic() - start
    progress.close()
    size = sum(shard.bytes for shard in data.shards)
    if args.json:
        result = {"data": str(args.out), "images": len(data), "shards": len(data.shards), "bytes": size}
        print_json({**result, "fingerprint": data.fingerprint, "wall_s": seconds})
    else:
        rate = len(data) / seconds
        text = f"{args.out}: {len(data):,} images in {len(data.shards):,} shards, {size:,} bytes, {rate:,.0f} images/s"
        print(text, file=sys.stderr)
    return 0
