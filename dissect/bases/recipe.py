"""How a basis is asked for: `--basis SPEC`."""

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dissect.bases.basis import MAX_DIRECTIONS, Basis
from dissect.bases.rotation import power, random_directions, random_rotation
from dissect.errors import SpecError

_LARGEST_SEED = (1 << 32) - 1


@dataclass(frozen=True)
class Recipe:
    """A basis for layers of any width. `key` decides it, and with it the numbers of a run."""

    key: str
    make: Callable[[int], np.ndarray]

    def __call__(self, units: int) -> Basis:
        """The basis for a layer of so many units. Raises SpecError where it is made for another width."""
        directions = self.make(units)
        if directions.ndim == 2 and directions.shape[1] != units:
            raise SpecError(f"basis {self.key}: made for {directions.shape[1]} units, the layer has {units}")
        return Basis(directions)


def parse(text: str, units: int) -> Basis:
    """The basis of a SPEC for a layer of so many units. Raises SpecError."""
    return recipe(text)(units)


def recipe(text: str) -> Recipe:
    """Read a SPEC; a file is read at once. Raises SpecError naming what is wrong with it."""
    name, _, rest = text.partition(":")
    if name == "rotate":
        options = _options(text, rest, {"seed": 0.0, "alpha": 1.0})
        seed, alpha = _seed(text, options["seed"]), options["alpha"]
        if not -1 <= alpha <= 1:
            raise SpecError(f"basis {text!r}: alpha is {alpha:g}, expected a number from 0 (no rotation) to 1 (all)")
        return Recipe(f"rotate:seed={seed},alpha={alpha!r}", lambda units: power(random_rotation(units, seed), alpha))
    if name == "random":
        options = _options(text, rest, {"seed": 0.0, "directions": 0.0})
        seed, count = _seed(text, options["seed"]), int(options["directions"])
        if count != options["directions"] or not 0 <= count <= MAX_DIRECTIONS:
            raise SpecError(f"basis {text!r}: directions are counted, expected 1 to {MAX_DIRECTIONS:,}")
        shown = f",directions={count}" if count else ""
        return Recipe(f"random:seed={seed}{shown}", lambda units: random_directions(units, count or units, seed))
    return _file(Path(text))


def _options(text: str, rest: str, known: dict[str, float]) -> dict[str, float]:
    """name=number pairs over their defaults."""
    found = dict(known)
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        if name not in known:
            raise SpecError(f"basis {text!r}: option {name!r} is unknown, expected {' or '.join(known)}")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            raise SpecError(f"basis {text!r}: {item!r} is no setting, expected e.g. {name}=1")
    return found


def _seed(text: str, value: float) -> int:
    if value != int(value) or not 0 <= value <= _LARGEST_SEED:
        raise SpecError(f"basis {text!r}: seed is {value:g}, expected a whole number from 0 to {_LARGEST_SEED:,}")
    return int(value)


def _file(path: Path) -> Recipe:
    """Directions from a .npy or .safetensors file; of the latter the tensor `directions`, or the only one."""
    if path.suffix not in (".npy", ".safetensors"):
        raise SpecError(
            f"basis {str(path)!r} is unknown: expected rotate[:…], random[:…], or a .npy or .safetensors file"
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"basis {path} cannot be read: {error.strerror}") from None
    if path.suffix == ".npy":
        try:
            directions = np.load(io.BytesIO(raw), allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise SpecError(f"basis {path} is no array: {error}") from None
    else:
        from dissect.models import safetensors_file

        tensors = safetensors_file.read(path)
        if "directions" not in tensors and len(tensors) != 1:
            raise SpecError(f"basis {path} holds {len(tensors)} tensors: expected one, or one named 'directions'")
        directions = tensors.get("directions", next(iter(tensors.values()))).float().numpy()
    Basis(directions)
    return Recipe(f"file:{hashlib.sha256(raw).hexdigest()}", lambda units: directions)
