"""The whole campaign against `verify`: `python -m tests.broden.campaign_verify [--files 2000]`.

Damages that many files of a synthetic set, each in one of some forty ways, and writes as many odd but sound
pictures beside them. `verify` must name exactly the damaged files with their rows, within 1 GB, and a stream over
the set must set aside exactly their images. One-bit flips in JPEG data are counted apart: a decoder cannot see most
of them, so they are judged against checksums.csv, which every set that we write has.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import broden
from broden.paths import Root
from broden.verifying import verify
from broden.writing import CHECKSUM_COLUMNS, CHECKSUMS, checksum

from . import damage


def sabotage(root: Path, files: int, seed: int = 0) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Damage `files` files and write as many odd pictures. Returns damaged, flipped JPEG and odd files, with how."""
    data = broden.open(root)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data)).tolist()
    damaged: dict[str, str] = {}
    flipped: dict[str, str] = {}
    odd: dict[str, str] = {}

    def change(name: str, maker: damage.Maker, size: tuple[int, int]) -> None:
        path = root / "images" / name
        before = path.read_bytes()
        after = maker(before, size, rng)
        path.write_bytes(after)

    kinds = list(damage.IMAGE_DAMAGE.items())
    plane_kinds = list(damage.PLANE_DAMAGE.items())
    odd_kinds = list(damage.ODD_IMAGES.items())
    for turn, position in enumerate(rows, 1):
        if len(damaged) + len(flipped) >= files:
            break
        row = data.rows[position]
        if turn % 10 == 0:
            change(row.image, damage.flipped_jpeg, data.image_size)
            flipped[row.image] = "flipped jpeg"
        elif turn % 2 and row.planes:
            name = row.planes[int(rng.integers(len(row.planes)))].path
            how, maker = plane_kinds[len(damaged) % len(plane_kinds)]
            change(name, maker, data.label_size)
            damaged[name] = how
            how, maker = odd_kinds[len(odd) % len(odd_kinds)]
            change(row.image, maker, data.image_size)
            odd[row.image] = how
        else:
            how, maker = kinds[len(damaged) % len(kinds)]
            change(row.image, maker, data.image_size)
            damaged[row.image] = how
    return damaged, flipped, odd


def record_sums(root: Path, odd: dict[str, str]) -> None:
    """Odd pictures are part of the set: give checksums.csv their new content."""
    from broden.tables import read_table, table_bytes

    rows = []
    for record in read_table(Root(root), CHECKSUMS, CHECKSUM_COLUMNS):
        name = record.text("file")
        if name.removeprefix("images/") in odd:
            rows.append(checksum(name, (root / name).read_bytes()))
        else:
            rows.append((name, record.integer("bytes", 0, 2**62), record.text("sha256")))
    (root / CHECKSUMS).write_bytes(table_bytes(CHECKSUM_COLUMNS, rows))


def judge(root: Path, files: int, workers: int | None = None) -> dict[str, object]:
    """Run the campaign on the set at `root`; returns figures, of which `missed` and `wrong` must be empty."""
    damaged, flipped, odd = sabotage(root, files)
    record_sums(root, odd)
    start = time.monotonic()
    report = verify(root, workers)
    seconds = time.monotonic() - start
    data = broden.open(root)
    line = {name: row.line for row in data.rows for name in (row.image, *(p.path for p in row.planes))}
    found = {fault.file.removeprefix("images/"): fault for fault in report.faults}
    every = {**damaged, **flipped}
    rows_wrong = [name for name, fault in found.items() if fault.row != line.get(name)]
    (root / CHECKSUMS).unlink()
    bare = {fault.file.removeprefix("images/") for fault in verify(root, workers).faults}
    set_aside = {fault.file for batch in broden.stream(data, 32) for fault in batch.faults}
    return {
        "files": len(every),
        "odd": len(odd),
        "missed": sorted(f"{name} ({every[name]})" for name in every.keys() - found.keys()),
        "wrong": sorted(f"{name} ({odd.get(name, 'sound')})" for name in found.keys() - every.keys()),
        "rows_wrong": rows_wrong,
        "missed_without_checksums": sorted(f"{name} ({damaged[name]})" for name in damaged.keys() - bare),
        "wrong_without_checksums": sorted(bare - every.keys()),
        "flips_without_checksums": f"{len(bare & flipped.keys())} of {len(flipped)} seen",
        "stream_differs": sorted(set_aside ^ bare),
        "seconds": round(seconds, 1),
    }


BAD = ("missed", "wrong", "rows_wrong", "missed_without_checksums", "wrong_without_checksums", "stream_differs")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = broden.synth(Path(folder) / "set", images=args.files + args.files // 10, size=args.size)
        figures = judge(data.root, args.files)
    for key, value in figures.items():
        print(f"{key}: {value}")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory: {own:.0f} MB, largest worker {child:.0f} MB")
    return 1 if any(figures[key] for key in BAD) else 0


if __name__ == "__main__":
    sys.exit(main())
