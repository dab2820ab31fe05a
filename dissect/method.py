"""What is asked for: the method, which decides the numbers, and the resources, which never do."""

from dataclasses import dataclass
from pathlib import Path

from dissect.bases import Recipe


@dataclass(frozen=True)
class Method:
    """What is computed: everything here belongs to a run's identity."""

    layers: tuple[str, ...]
    convention: str = "exact"
    quantile: float = 0.005
    batch_size: int = 8
    input_size: int | None = None
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    dtype: str = "float32"
    compiled: bool = False
    exemplars: int = 10
    basis: Recipe | None = None
    null: int = 0
    null_shifts: bool = False


@dataclass(frozen=True)
class Resources:
    """With what it is computed: nothing here changes a number. memory and disk in bytes."""

    folder: Path
    device: str = "cpu"
    workers: int | None = None
    memory: int = 1280 << 20
    disk: int = 8 << 30
    checkpoint_seconds: float = 60.0  # 0: after every batch
