"""What the synthesis commands share: the network and its range, photos in, a folder of results out."""

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dissect.cli.common import add_workspace

if TYPE_CHECKING:
    from torch import Tensor

    from dissect.inversion.engine import Watcher
    from dissect.inversion.network import Network
    from dissect.store.syntheses import CellRecord

RANGES = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def triple(text: str) -> tuple[float, float, float]:
    """0.5 or 0.485,0.456,0.406."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers such as 0.485,0.456,0.406")
    return values[0], values[1], values[2]


def numbers(text: str) -> list[int]:
    """3,17,200-204 as a list."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r}: expected numbers such as 3,17,200-204")
        first, last = int(match[1]), int(match[2] or match[1])
        found.extend(range(first, last + 1))
    return found


def add_network(parser: argparse.ArgumentParser) -> None:
    """MODEL, its weights, and the range of its input, which is never guessed."""
    parser.add_argument(
        "model", metavar="MODEL", help="torchvision:NAME, timm:NAME, demo, or a trusted file or module:factory"
    )
    parser.add_argument("--weights", metavar="FILE", help=".safetensors, or a state dict (loaded as weights only)")
    parser.add_argument("--trust-code", metavar="SHA256", help="hash of the file whose code may run")
    parser.add_argument("--range", choices=sorted(RANGES), help="input range by name: mean and std in one word")
    parser.add_argument("--mean", type=triple, metavar="R,G,B", help="mean on the 0..1 scale")
    parser.add_argument("--std", type=triple, metavar="R,G,B", help="standard deviation on the 0..1 scale")
    parser.add_argument("--input-size", type=int, metavar="S", help="side of the square images (default 224)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything that is random (default 0)")


def add_output(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--out", metavar="DIR", help=f"folder of results (default: WORKSPACE/inversion/{name}-…)")
    parser.add_argument("--run", metavar="RUN", help="dissection that the results belong to (its name or id)")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    add_workspace(parser)


def network(args: argparse.Namespace) -> "Network":
    """The network of the options. Raises SpecError where its input range is not known."""
    return open_network(args.model, args, args.weights, args.range, args.mean, args.std)


def open_network(
    source: str,
    args: argparse.Namespace,
    weights: str | None,
    named: str | None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
) -> "Network":
    import torch

    from dissect import models
    from dissect.errors import SpecError
    from dissect.inversion.network import Network
    from dissect.inversion.pixels import InputRange
    from dissect.models.preprocessing import IMAGENET

    if named is not None:
        mean, std = mean or RANGES[named][0], std or RANGES[named][1]
    model = models.load(source, weights, args.trust_code, mean, std)
    for note in model.notes:
        print(f"{model.source}: {note}", file=sys.stderr)
    preprocessing = model.preprocessing
    if preprocessing.origin == IMAGENET.origin:
        raise SpecError(
            f"the input range of {model.source} is not known, and a wrong one ruins the pictures: add --range imagenet "
            "(torchvision's own weights), --range half (pixels to -1..1), or --mean and --std"
        )
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SpecError("--device cuda: torch sees no GPU; leave it out to use the CPU")
    side = args.input_size or 224
    if side < 1:
        raise SpecError(f"--input-size {side}: expected a positive number of pixels")
    found = Network(model.module.to(device), InputRange.of(preprocessing), (side, side), model.source)
    found.weights_sha256 = model.weights_sha256
    found.identity = [model.source, model.weights_sha256, preprocessing.mean, preprocessing.std, side]
    return found


def parse_other(text: str) -> tuple[str, str | None, str | None]:
    """MODEL[,weights=FILE][,range=NAME] of a second network."""
    from dissect.errors import SpecError

    source, *parts = text.split(",")
    given = dict(part.split("=", 1) for part in parts if "=" in part)
    unknown = set(given) - {"weights", "range"}
    if unknown or len(given) != len(parts) or given.get("range", "half") not in RANGES:
        raise SpecError(f"{text!r}: expected MODEL,weights=FILE,range={'|'.join(sorted(RANGES))}")
    return source, given.get("weights"), given.get("range")


def others(args: argparse.Namespace, texts: Sequence[str]) -> "list[Network]":
    return [open_network(source, args, weights, named) for source, weights, named in map(parse_other, texts)]


def photos(net: "Network", paths: Sequence[str], limit: int | None = None) -> "tuple[list[str], Tensor]":
    """Names and byte-unit images z [N, C, h, w] of files and folders, cut to the network's square."""
    import numpy as np

    from dissect.inversion.sheet import image_files, read_image

    files = image_files(paths)[:limit]
    images = np.stack([read_image(path, net.size, net.pixels.planes) for path in files])
    return [path.name for path in files], net.pixels.from_uint8(images, net.dtype).to(net.device)


@dataclass
class Results:
    """A folder of results: pictures, then results.json, which lists them with their sha256 for the artifacts table."""

    folder: Path
    command: str
    facts: dict[str, Any]
    id: str
    run_id: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    cells: "list[CellRecord]" = field(default_factory=list)

    @classmethod
    def at(cls, args: argparse.Namespace, command: str, identity: object) -> "Results":
        """The folder of a result; the same `identity` is the same result. Raises SpecError for an unknown --run."""
        from dissect.cli.common import open_store
        from dissect.inversion.state import fingerprint

        known = fingerprint([command, identity])
        folder = Path(args.out) if args.out else Path(args.workspace) / "inversion" / f"{command}-{known[:10]}"
        run_id = None
        if args.run:
            with open_store(args) as store:
                run_id = store.get_run(args.run).id
        return cls(folder, command, {"command": command, "run": args.run, "model": args.model}, known, run_id)

    def picture(self, kind: str, name: str, drawn: Any, **about: Any) -> None:
        """uint8 [h, w, C] as a PNG of the folder; `about` sets fields of its PictureRecord."""
        from dissect.inversion.sheet import write_png

        self.note(kind, name, write_png(self.folder / name, drawn), **about)

    def text(self, kind: str, name: str, text: str) -> None:
        from dissect.inversion.sheet import write_bytes

        self.note(kind, name, write_bytes(self.folder / name, text.encode()))

    def note(self, kind: str, name: str, sha256: str, **about: Any) -> None:
        self.files.append({"kind": kind, "path": name, "sha256": sha256} | plain(about))

    def finish(self, args: argparse.Namespace, weights_sha256: str | None = None) -> None:
        """Write results.json, the rows of the database and the gallery; with --json the same object on stdout."""
        listed = {"synthesis": self.id, "out": str(self.folder), "parts": self.parts, "files": list(self.files)}
        told = plain(self.facts | listed)
        self.text("results", "results.json", json.dumps(told, indent=1, allow_nan=False) + "\n")
        self._record(args, weights_sha256)
        print(f"results in {self.folder}", file=sys.stderr)
        if args.json:
            print(json.dumps(plain(self.facts | listed | {"files": self.files}), allow_nan=False))

    def _record(self, args: argparse.Namespace, weights_sha256: str | None) -> None:
        from dissect.cli.common import open_store
        from dissect.publish import publish_gallery
        from dissect.store import syntheses

        record = syntheses.SynthesisRecord(
            self.id, self.command, args.model or self.facts["model"], args.seed, plain(self.parts),
            {key: value for key, value in plain(self.facts).items() if key != "files"},
            str(_inside(self.folder, Path(args.workspace))), self.run_id, weights_sha256,
        )  # fmt: skip
        with open_store(args, readonly=False) as store:
            syntheses.save(store, record, [syntheses.PictureRecord(**file) for file in self.files], self.cells)
            print(f"gallery: {publish_gallery(store)}", file=sys.stderr)


def _inside(folder: Path, workspace: Path) -> Path:
    """Relative to the workspace where it lies in it, so that both can be moved together."""
    folder, workspace = folder.resolve(), workspace.resolve()
    return folder.relative_to(workspace) if folder.is_relative_to(workspace) else folder


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def watcher(net: "Network", folder: Path, phase: str) -> "Watcher":
    """Counts the steps on the terminal and keeps a live sheet of thumbnails, live.png, in the folder."""
    from dissect.inversion.sheet import LiveSheet
    from dissect.progress import Progress

    live = LiveSheet(folder / "live.png", net.pixels)
    progress: list[Progress] = []

    def watch(glance: Any) -> None:
        if not progress:
            progress.append(Progress(phase, glance.steps, glance.done - 1, "steps"))
        progress[0].advance(glance.done - progress[0].done)
        live(glance)
        if glance.done == glance.steps:
            progress[0].close()

    return watch
