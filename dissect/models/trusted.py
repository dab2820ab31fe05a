"""Networks from the user's own code: run only where the user vouches for the very bytes of the file by their hash."""

import hashlib
import importlib.machinery
import importlib.util
import inspect
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dissect.errors import DissectError, SpecError, UnsafeError

FACTORY = "model"
"""The function that a FILE.py without `:factory` is asked for."""


@dataclass(frozen=True)
class Trusted:
    """A factory of trusted code; `source` names file, factory and hash."""

    source: str
    make: Any
    root: Path

    def build(self, classes: int | None) -> nn.Module:
        """Call the factory, with `num_classes` where it takes that. Raises SpecError where it returns no module."""
        known = inspect.signature(self.make).parameters
        options = {"num_classes": classes} if classes is not None and "num_classes" in known else {}
        if classes is not None and not options:
            raise TypeError("the factory takes no num_classes")
        with _importing_from(self.root):
            try:
                network = self.make(**options)
            except Exception as error:
                raise SpecError(f"{self.source} failed: {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise SpecError(f"{self.source} returns a {type(network).__name__}, expected a torch.nn.Module")
        return network


def load(source: str, trust: str | None) -> Trusted:
    """`FILE.py:factory` or `pkg.module:factory`. Nothing of it runs, no package around it either, before the hash is
    compared; then the file runs, and so does what it imports.

    Raises UnsafeError (no trust, or for other bytes), SpecError (nothing there, or the code fails).
    """
    place, _, factory = source.rpartition(":")
    if not place or source.endswith(".py"):
        place, factory = source, FACTORY
    is_file = place.endswith(".py")
    path = Path(place) if is_file else _module_file(place)
    if path is None or not path.is_file():
        expected = "a Python file" if is_file else "a module that Python finds"
        raise SpecError(
            f"model {source!r}: {place!r} is not {expected}; expected FILE.py:factory or pkg.module:factory"
        )
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if trust is None or trust.lower().removeprefix("sha256:") != digest:
        why = "it is code" if trust is None else f"--trust-code is {trust[:12]}…, but the file's hash is another"
        raise UnsafeError(
            f"model {source!r} is refused: {why}. Read {path}; if you trust it, repeat with its hash:\n"
            f"  {_again(digest)}"
        )
    package = "" if is_file else place.rpartition(".")[0]
    root = path.absolute().parents[package.count(".") + 1 if package else 0]
    with _importing_from(root):
        module = _run(path, text, f"dissect_trusted_{digest[:16]}", package)
    make = getattr(module, factory, None)
    if not callable(make):
        raise SpecError(f"{path.name} has no function {factory!r}: add it after a colon, {place}:factory")
    return Trusted(f"{path.name}:{factory}@{digest[:16]}", make, root)


def _run(path: Path, text: bytes, name: str, package: str) -> ModuleType:
    """The module made from those very bytes, which may differ by now from what the file holds."""
    spec = importlib.machinery.ModuleSpec(name, None, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    module.__file__, module.__package__ = str(path), package
    sys.modules[name] = module
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102 - the very bytes whose hash was given
    except DissectError:
        raise
    except Exception as error:
        del sys.modules[name]
        raise SpecError(f"{path.name} failed: {type(error).__name__}: {error}") from error
    return module


def _again(digest: str) -> str:
    """The command that would work: the one that was given, with the hash; for Python, the argument."""
    if Path(sys.argv[0]).name == "dissect":
        return shlex.join(["dissect", *sys.argv[1:], "--trust-code", digest])
    return f"--trust-code {digest}"


@contextmanager
def _importing_from(root: Path) -> Iterator[None]:
    """Lets code import its neighbours, as it could if it were run itself."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def _module_file(name: str) -> Path | None:
    """The file of a dotted module, found without importing anything: packages run code when they are imported."""
    places, origin, whole = [str(Path.cwd()), *sys.path], None, ""
    for part in name.split("."):
        whole = f"{whole}.{part}" if whole else part
        spec = importlib.machinery.PathFinder.find_spec(whole, places) if part.isidentifier() else None
        if spec is None:
            return None
        places, origin = list(spec.submodule_search_locations or []), spec.origin
    return Path(origin) if origin and origin.endswith(".py") else None
