"""Weights from a file: safetensors directly, pickled state dicts only through a limited child process.

There is no fallback: what cannot be loaded as weights only is refused. Why two more layers although torch offers
`weights_only`: that mode was bypassed twice (CVE-2025-32434, CVE-2026-24747). First the bytes are judged without
loading anything (`inspection`, `opcodes`), then a child process without network loads them under limits (`child`).
"""

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from dissect.errors import DissectError, SpaceError, SpecError, UnsafeError
from dissect.models import child, inspection, safetensors_file
from dissect.suggest import near

if TYPE_CHECKING:
    from torch.nn.modules.module import _IncompatibleKeys

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
PROGRAMS = (".pt2", ".pkl", ".pickle", ".joblib", ".mar", ".torchscript", ".ptc")
MAX_BYTES = 16 << 30
CACHE_VERSION = 2
"""Grows when the child takes other tensors out of the same file."""
# DenseNets were saved with `norm.1` where the layer is now called `norm1`.
_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True)
class Weights:
    """Tensors by name, the sha256 of the file they came from, and what was done to them."""

    tensors: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]


def read_weights(path: str | Path, cache: Path | None = None) -> Weights:
    """Read a `.safetensors` file or a state dict. `cache`: folder where converted files are kept by sha256.

    Raises SpecError (missing, damaged, unknown kind), UnsafeError (whatever would need code to load), SpaceError.
    """
    path = Path(path)
    if not path.is_file():
        raise SpecError(f"weights {path} do not exist: expected a .safetensors file or a state dict")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SpecError(f"weights {path} have {size:,} bytes, more than {MAX_BYTES:,}")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if 2 * size > memory:
            raise SpaceError(f"weights {path} have {size:,} bytes, too many for a machine with {memory:,} of memory")
        digest = file_sha256(path)
        tensors, notes = _tensors(path, size, digest, cache)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        raise SpecError(f"weights {path} cannot be read: {error.strerror or error}") from error
    if not tensors:
        raise SpecError(f"weights {path} hold no tensors")
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        notes.append(f"{len(bad)} weight tensors hold NaN or infinity, first {bad[0]}")
    return Weights(tensors, digest, tuple(notes))


def _full(path: Path) -> SpaceError:
    folder = tempfile.gettempdir()
    return SpaceError(
        f"no space left in {folder} to convert weights {path}: free some, or set TMPDIR to another folder"
    )


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(path: Path, size: int, digest: str, cache: Path | None) -> tuple[dict[str, Tensor], list[str]]:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        with open(path, "rb") as file:
            if inspection.is_pickled(file.read(8)):
                raise UnsafeError(f"weights {path} are a pickle or an archive under the name of safetensors: refused")
        return safetensors_file.read(path), []
    if suffix in PROGRAMS:
        raise UnsafeError(f"weights {path} ({suffix}) are code to torch: refused; {inspection.SAVE_INSTEAD}")
    if suffix not in PICKLED:
        raise SpecError(
            f"weights {path} have the unknown suffix {path.suffix!r}: expected .safetensors, {', '.join(PICKLED)}"
        )
    kept = cache / f"{digest}-{CACHE_VERSION}.safetensors" if cache else None
    if kept is not None and kept.is_file():
        try:
            return safetensors_file.read(kept), _wrapper_notes(kept)
        except SpecError:  # damaged in the cache: made again
            kept.unlink(missing_ok=True)
    inspection.judge(path)
    return through_child(path, size, kept)


def through_child(path: Path, size: int, kept: Path | None) -> tuple[dict[str, Tensor], list[str]]:
    seconds = child.SECONDS + 2 * child.cpu_seconds(size)
    with tempfile.TemporaryDirectory(prefix="dissect-") as folder:
        target = Path(folder) / "weights.safetensors"
        command = [sys.executable, "-I", child.__file__, str(path.absolute()), str(target), str(size)]
        environment = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                errors="replace", timeout=seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UnsafeError(f"weights {path} did not load within {seconds} s: refused") from None
        if done.returncode == child.REFUSED:
            raise inspection.refusal(path, done.stdout.strip())
        if done.returncode == child.FULL:
            raise _full(path)
        if done.returncode != 0 or not target.is_file():
            how = signal.strsignal(-done.returncode) if done.returncode < 0 else f"code {done.returncode}"
            last = (done.stderr.strip().splitlines() or [""])[-1][:200]
            raise UnsafeError(f"weights {path} ended the loading process ({how}): refused. {last}".rstrip())
        tensors, notes = safetensors_file.read(target), _wrapper_notes(target)
        if kept is not None:
            _keep(target, kept)
    return tensors, notes


def _keep(source: Path, kept: Path) -> None:
    """Copy into the cache, atomically; a full or read-only disk, or no folder, only costs the next run some time."""
    aside = kept.with_suffix(f".{os.getpid()}.tmp")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, aside)
        aside.replace(kept)
    except OSError:
        with suppress(OSError):  # there may be no folder to remove it from
            aside.unlink()


def _wrapper_notes(path: Path) -> list[str]:
    wrappers = safetensors_file.metadata(path).get("wrappers", "")
    return [f"weights taken from {name!r} inside the checkpoint" for name in wrappers.split(",") if name]


def strip(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Take off what wrappers (data-parallel, compile, Lightning) put before every name and the network lacks."""
    found = dict(tensors)
    for _ in range(4):
        prefix = next(iter(found)).partition(".")[0] + "."
        if not all(name.startswith(prefix) and len(name) > len(prefix) for name in found):
            break
        shorter = {name.removeprefix(prefix): value for name, value in found.items()}
        known = prefix in ("module.", "_orig_mod.")
        if any(name.startswith(prefix) for name in own) or not (known or own.keys() & shorter.keys()):
            break
        found = shorter
        notes.append(f"prefix {prefix!r} taken off the names of the weights")
    return found


def differences(missing: Sequence[str], unexpected: Sequence[str], shapes: Sequence[str]) -> str:
    """What keeps weights from fitting a network, in words, with names that may have been meant."""
    faults = [
        f"{len(names)} {what} ({', '.join(names[:3])}{' …' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if names
    ]
    meant = ((name, near(name, missing[:2000], 1)) for name in unexpected[:3])
    pairs = [f"{name} for {close[0]}" for name, close in meant if close]
    return "; ".join([*faults, f"perhaps {', '.join(pairs)}"] if pairs else faults)


def fit(module: nn.Module, tensors: Mapping[str, Tensor], source: str, notes: list[str]) -> None:
    """Load strictly, with the renaming of old names that modules do themselves; only a norm's counter of batches may be
    absent. Raises SpecError listing what is missing, unexpected or of another shape."""
    own = module.state_dict()
    state = OrderedDict((_DENSENET.sub(r"\1\2", name), value) for name, value in tensors.items())
    shapes = [
        f"{n}: {list(state[n].shape)}, expected {list(own[n].shape)}"
        for n in own
        if n in state and own[n].shape != state[n].shape
    ]
    counted = "num_batches_tracked"
    missing = [n for n in own if n not in state and not n.endswith(counted)]
    unexpected = [n for n in state if n not in own and not n.endswith(counted)]
    if not shapes:
        try:
            found = _load(module, state, own)
        except RuntimeError as error:
            raise DissectError(f"the weights do not load into {source}: {error}") from error
        missing = [n for n in found.missing_keys if not n.endswith(counted)]
        unexpected = [n for n in found.unexpected_keys if not n.endswith(counted)]
    if shapes or missing or unexpected:
        raise SpecError(f"the weights do not fit {source}: {differences(missing, unexpected, shapes)}")
    kinds = {
        f"{state[n].dtype} to {value.dtype}".replace("torch.", "")
        for n, value in own.items()
        if n in state and state[n].dtype != value.dtype
    }
    if kinds:
        notes.append(f"weights converted from {', '.join(sorted(kinds))}")


def _load(module: nn.Module, state: "OrderedDict[str, Tensor]", own: Mapping[str, Tensor]) -> "_IncompatibleKeys":
    """Files keep no version of the modules that wrote them: as if from before versions, which renames old names; a
    module that insists on one (MNASNet) is told its own."""
    try:
        return module.load_state_dict(state, strict=False)
    except ValueError:
        state._metadata = own._metadata  # type: ignore[attr-defined]
        return module.load_state_dict(state, strict=False)
