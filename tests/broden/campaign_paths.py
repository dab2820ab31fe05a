"""Path payloads against every door: `python -m tests.broden.campaign_paths`.

An audit hook sees every file that the process opens. With a payload as an image, as a plane, in a pack header and as
a link, nothing outside the set may be opened, and nothing of the file outside may be read.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import broden
from broden import packed, packing
from broden.verifying import verify

from . import makers, payloads

_watch: list[str] = []
_seen: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch and event == "open" and isinstance(arguments[0], (str, bytes)):
        _seen.append(os.fsdecode(arguments[0]))


def outside_opens(root: Path) -> list[str]:
    """What was opened since `watch` that is neither in the set nor part of Python itself."""
    allowed = (str(root) + "/", sys.prefix, sys.base_prefix, str(Path(broden.__file__).parent), os.__file__[:-6])
    real = [os.path.realpath(path) for path in _seen if "\0" not in path]
    return [path for path in real if not path.startswith(allowed) and path != str(root)]


class watch:
    """Collect opened paths while the block runs."""

    hooked = False

    def __enter__(self) -> None:
        if not watch.hooked:
            sys.addaudithook(_hook)
            watch.hooked = True
        _seen.clear()
        _watch.append("on")

    def __exit__(self, *_: object) -> None:
        _watch.clear()


def index_with(image: str | None, plane: str | None) -> bytes:
    """index.csv of the small set with a payload in its second row."""
    rows = [row.rstrip("\n").split(",") for row in (makers.HEADER, *makers.ROWS)]
    if image is not None:
        rows[2][0] = image
    if plane is not None:
        rows[2][7] = plane
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def use(root: Path) -> bool:
    """Read everything there is; whether the set could be opened at all."""
    try:
        data = broden.open(root)
        data.fingerprint  # noqa: B018
        for batch in broden.stream(data, 4, workers=1):
            assert not batch.valid[1 - batch.first] if batch.first <= 1 < batch.first + len(batch) else True
    except broden.BrodenError:
        return False
    finally:
        verify(root, workers=1)
    return True


def run(folder: Path, step: int = 1) -> dict[str, Any]:
    """All payloads (or every `step`-th); returns counts and what was opened outside."""
    outside = folder / "outside"
    outside.mkdir()
    (outside / payloads.SECRET).write_bytes(makers.plane(makers.np.ones((8, 8), int)))
    root = makers.small(folder / "set")
    bad: list[str] = []
    refused = set_aside = 0
    names = payloads.text_payloads(str(outside))[::step]
    for name in names:
        for image, plane in ((name, None), (None, name)):
            (root / "index.csv").write_bytes(index_with(image, plane))
            with watch():
                opened = use(root)
            bad += [f"{name!r}: {path}" for path in outside_opens(root)]
            refused += not opened
            set_aside += opened
    links = payloads.link_payloads(str(outside))
    for link, target in links:
        os.symlink(target, root / "images/s" / link)
    for link, _ in links:
        for name in (f"s/{link}", f"s/{link}/{payloads.SECRET}", f"s/{link}/outside/{payloads.SECRET}"):
            (root / "index.csv").write_bytes(index_with(None, name))
            with watch():
                set_aside += use(root)
            bad += [f"link {name}: {path}" for path in outside_opens(root)]
    total = len(names) * 2 + len(links) * 3
    shutil.rmtree(root)
    packing.pack(makers.small(folder / "plain"), folder / "pack", workers=1)
    header = json.loads((folder / "pack/pack.json").read_text())
    for name in names:
        change = json.loads(json.dumps(header))
        change["shards"][0]["file"] = name
        change["tables"] = {name: "0" * 64}
        del change["digest"]
        change["digest"] = packed.header_digest(change)
        (folder / "pack/pack.json").write_text(json.dumps(change))
        with watch():
            use_pack(folder / "pack")
        bad += [f"pack {name!r}: {path}" for path in outside_opens(folder / "pack")]
    return {"payloads": len(names) + len(links), "trials": total + len(names), "refused": refused,
            "set_aside": set_aside, "outside": bad}  # fmt: skip


def use_pack(root: Path) -> None:
    """Read a pack with a wrong header."""
    try:
        data = broden.open(root)
        for batch in broden.stream(data, 4, workers=1):
            assert not batch.valid.any()
        verify(root, workers=1)
    except broden.BrodenError:
        pass


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder).resolve())
    for key, value in figures.items():
        print(f"{key}: {value}")
    return 1 if figures["outside"] else 0


if __name__ == "__main__":
    sys.exit(main())
