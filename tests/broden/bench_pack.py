"""Reading a set from its files and from its pack, side by side: `python -m tests.broden.bench_pack FILES PACK`.

The two are read in turn, round by round, so that a busy machine slows both; the figure is the median ratio.
With `--cold` the page cache is asked to forget the files of the set before each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import broden


def forget(folder: Path) -> None:
    """Ask the system to drop cached pages of every file under `folder`."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def seconds(data: broden.Dataset, images: int, workers: int) -> float:
    """Wall time of streaming pictures and planes of the first images, in batches of 32."""
    begin = time.perf_counter()
    for batch in broden.stream(data, 32, range(-(-images // 32)), workers=workers):
        assert batch.valid.all()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=Path)
    parser.add_argument("pack", type=Path)
    parser.add_argument("--images", type=int, default=960)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cold", action="store_true")
    args = parser.parse_args()
    files, pack = broden.open(args.files), broden.open(args.pack)
    stop = min(args.images, len(files))
    seconds(files, 64, args.workers)
    seconds(pack, 64, args.workers)
    ratios, rates = [], []
    for _ in range(args.rounds):
        times = []
        for data in (files, pack):
            if args.cold:
                forget(data.root)
            times.append(seconds(data, 0, stop, args.workers))
        ratios.append(times[0] / times[1])
        rates.append((stop / times[0], stop / times[1]))
    slow = statistics.median(rate for rate, _ in rates)
    quick = statistics.median(rate for _, rate in rates)
    kind = "cold" if args.cold else "warm"
    print(f"{kind}: files {slow:,.0f} images/s, pack {quick:,.0f} images/s, ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
