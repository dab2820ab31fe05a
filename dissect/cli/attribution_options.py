"""What the commands of attribution share: the network, its input, and numbers in comma-separated options."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from dissect.attribution.network import Network
    from dissect.attribution.watching import Watch
    from dissect.models import Model


def add_network(parser: argparse.ArgumentParser) -> None:
    """--weights, --trust-code, --seed, --mean, --std, --device."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--weights", metavar="FILE", help=".safetensors, or a state dict (loaded as weights only, in a child process)"
    )
    group.add_argument(
        "--trust-code", metavar="SHA256", help="hash of the file whose code may run; a refusal prints it"
    )
    group.add_argument("--seed", type=int, default=0, help="seed of random weights, noise and masks (default 0)")
    group.add_argument(
        "--mean", metavar="R,G,B", help="mean on the 0..1 scale (default: the weights' own, or ImageNet's)"
    )
    group.add_argument("--std", metavar="R,G,B", help="standard deviation on the 0..1 scale")
    group.add_argument("--device", default="cpu", metavar="D", help="cpu (default) or cuda")


def open_network(args: argparse.Namespace) -> "tuple[Network, Model]":
    """The network that the options name. Raises SpecError, UnsafeError."""
    import torch

    from dissect import models
    from dissect.attribution.network import Network
    from dissect.errors import SpecError

    loaded = models.load(
        args.model, args.weights, args.trust_code, triple("--mean", args.mean), triple("--std", args.std),
        seed=args.seed,
    )  # fmt: skip
    for note in loaded.notes:
        print(note, file=sys.stderr)
    if args.device != "cpu" and not torch.cuda.is_available():
        raise SpecError(f"--device {args.device}: torch sees no GPU here, use cpu")
    return Network.of(loaded.module.to(args.device), loaded.preprocessing, loaded.source), loaded


def triple(option: str, text: str | None) -> tuple[float, float, float] | None:
    """Three comma-separated numbers. Raises SpecError."""
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


def read_image(path: Path, size: int | None) -> "np.ndarray":
    """uint8 [h, w, 3], squashed to size x size where given. Raises SpecError."""
    from dissect.attribution import pictures
    from dissect.errors import SpecError

    if not path.is_file():
        raise SpecError(f"image {path} is not there")
    try:
        return pictures.read_image(path, (size, size) if size else None)
    except Exception as error:  # a decoder meets broken files in ways of its own
        raise SpecError(f"image {path} cannot be read: {error}") from None


@contextmanager
def progress(phase: str, unit: str) -> "Iterator[Watch]":
    """What an answer tells how far it is, as a line on stderr."""
    from dissect.progress import Progress

    shown: list[Progress] = []

    def watch(done: int, total: int) -> None:
        if not shown:
            shown.append(Progress(phase, total, unit=unit))
        shown[0].advance(done - shown[0].done)

    try:
        yield watch
    finally:
        for line in shown:
            line.close()


def check_run(args: argparse.Namespace, loaded: "Model") -> str | None:
    """The id of the dissection --run, None without one. Raises SpecError where it dissected another network: its names
    would be those of other units. An imported run does not say which weights it had and is taken at its word."""
    from dissect.cli.common import open_store
    from dissect.errors import SpecError

    if not args.run:
        return None
    with open_store(args) as store:
        run = store.get_run(args.run)
    if run.state != "imported" and (run.model, run.weights_sha256) != (loaded.source, loaded.weights_sha256):
        theirs, ours = ((sha or "random")[:12] for sha in (run.weights_sha256, loaded.weights_sha256))
        raise SpecError(
            f"run {run.title} dissected {run.model} with weights {theirs}, this is {loaded.source} with weights "
            f"{ours}: its names would be those of other units; dissect this network first"
        )
    return run.id


def labels_of(args: argparse.Namespace, layer: str) -> list[Any]:
    """What the dissection --run says of a layer's units. Raises SpecError for an unknown run or layer."""
    from dissect.attribution.carriers import unit_labels
    from dissect.cli.common import open_store

    with open_store(args) as store:
        return unit_labels(store, args.run, layer)


def detectors_of(args: argparse.Namespace) -> Callable[[str, str], list[int]] | None:
    """(layer, concept) -> the units that detect it in --run, or SpecError; None without a run."""
    from dissect.attribution.carriers import detectors

    return (lambda layer, concept: detectors(labels_of(args, layer), concept)) if args.run else None


def inside(path: Path, workspace: Path) -> Path:
    """Relative to the workspace where it lies in it, so that both can be moved together."""
    path, workspace = path.resolve(), workspace.resolve()
    return path.relative_to(workspace) if path.is_relative_to(workspace) else path
