"""Weights from a file: safetensors directly, pickled state dicts only through a limited child process.

There is no fallback: what cannot be loaded as weights only is refused. Why a child process although torch offers
`weights_only`: that mode was bypassed twice (CVE-2025-32434, CVE-2026-24747).
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dissect.errors import DissectError, SpecError, UnsafeError
from dissect.models import child, safetensors_file

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
MAX_BYTES = 16 << 30
# Part of a member's name -> what kind of archive it betrays.
PROGRAMS = (
    ("/code/", "a TorchScript program"),
    ("constants.pkl", "a TorchScript program"),
    (".data/extern_modules", "a torch.package archive"),
    ("models/model.json", "an exported program"),
    ("serialized_exported_program.json", "an exported program"),
)


@dataclass(frozen=True)
class Weights:
    """Tensors by name, the sha256 of the file they came from, and what was done to them."""

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]


def read_weights(path: str | Path, cache: Path | None = None) -> Weights:
    """Read a `.safetensors` file or a state dict. `cache`: folder where converted files are kept by sha256.

    Raises SpecError (missing, damaged, unknown kind), UnsafeError (whatever would need code to load).
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f"weights {path} do not exist: expected a .safetensors file or a state dict")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise SpecError(f"weights {path} have {size:,} bytes, more than {MAX_BYTES:,}")
    digest = file_sha256(path)
    notes: list[str] = []
    if path.suffix == ".safetensors":
        tensors = safetensors_file.read(path)
    elif path.suffix in PICKLED:
        tensors, notes = _through_child(path, size, digest, cache)
    else:
        raise SpecError(
            f"weights {path} have the unknown suffix {path.suffix!r}: expected .safetensors, {', '.join(PICKLED)}"
        )
    tensors = _strip(tensors, notes)
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        notes.append(f"{len(bad)} weight tensors hold NaN or infinity, first {bad[0]}")
    return Weights(tensors, digest, tuple(notes))


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_code(path: Path) -> None:
    """Archives that are programs are told from state dicts by what they contain, before anything is loaded."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnsafeError(f"weights {path} are a damaged archive ({error}): refused") from None
    for mark, kind in PROGRAMS:
        if any(mark in name for name in names):
            raise UnsafeError(
                f"weights {path} are {kind}, which is code: refused; save the state dict instead "
                "(torch.save(model.state_dict(), FILE) or safetensors)"
            )


def _through_child(path: Path, size: int, digest: str, cache: Path | None) -> tuple[dict[str, Tensor], list[str]]:
    _refuse_code(path)
    kept = cache / f"{digest}.safetensors" if cache else None
    if kept is not None and kept.is_file():
        return safetensors_file.read(kept), _wrapper_notes(kept)
    with tempfile.TemporaryDirectory(prefix="dissect-") as folder:
        target = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-I", child.__file__, str(path.absolute()), str(target), str(size)]
        try:
            done = subprocess.run(
                command, cwd=folder, env={"PATH": os.defpath}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=child.SECONDS + 30, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UnsafeError(f"weights {path} did not load within {child.SECONDS + 30} s: refused") from None
        if done.returncode == 3:
            raise UnsafeError(
                f"weights {path} cannot be loaded as weights only, and there is no other way: {done.stdout.strip()}"
            )
        if done.returncode != 0 or not target.is_file():
            raise UnsafeError(f"weights {path} made the loading process end with code {done.returncode}: refused")
        safetensors_file.check(target)
        tensors, notes = safetensors_file.read(target), _wrapper_notes(target)
        if kept is not None:
            _keep(target, kept)
    return tensors, notes


def _keep(source: Path, kept: Path) -> None:
    """Copy into the cache, atomically; a full or read-only disk only costs the next run some time."""
    aside = kept.with_suffix(f".{os.getpid()}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(source.read_bytes())
        aside.replace(kept)
    except OSError:
        aside.unlink(missing_ok=True)


def _wrapper_notes(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        wrappers = (file.metadata() or {}).get("wrappers", "")
    return [f"weights taken from {name!r} inside the checkpoint" for name in wrappers.split(",") if name]


def _strip(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Take off `module.` prefixes that data-parallel training leaves."""
    if not tensors:
        raise SpecError("the weights file holds no tensors")
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
            notes.append(f"prefix {prefix!r} taken off the names of the weights")
    return tensors


def fit(module: torch.nn.Module, weights: Weights, source: str) -> None:
    """Load strictly. Raises SpecError listing what is missing, unexpected or of another shape."""
    own = module.state_dict()
    given = weights.tensors
    missing = [n for n in own if n not in given and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in given if n not in own and not n.endswith("num_batches_tracked")]
    shapes = [n for n in own if n in given and own[n].shape != given[n].shape]
    faults = []
    if missing:
        faults.append(f"{len(missing)} missing ({', '.join(missing[:3])}{' …' if len(missing) > 3 else ''})")
    if unexpected:
        faults.append(
            f"{len(unexpected)} unexpected ({', '.join(unexpected[:3])}{' …' if len(unexpected) > 3 else ''})"
        )
    if shapes:
        name = shapes[0]
        faults.append(
            f"{len(shapes)} of another shape ({name}: {list(given[name].shape)}, expected {list(own[name].shape)})"
        )
    if faults:
        raise SpecError(f"the weights do not fit {source}: {'; '.join(faults)}")
    try:
        module.load_state_dict({n: v for n, v in given.items() if n in own}, strict=False)
    except RuntimeError as error:
        raise DissectError(f"the weights do not load into {source}: {error}") from error
