"""What a user asks of one dissection."""

from dataclasses import dataclass
from pathlib import Path

from dissect.errors import SpecError


@dataclass(frozen=True)
class RunRequest:
    """What a user asked for; None means the default of the convention, the weights, the data or the device."""

    model: str
    layers: tuple[str, ...]
    data: str | None = None
    weights: str | None = None
    trust: str | None = None
    name: str | None = None
    convention: str = "exact"
    quantile: float | None = None
    batch_size: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    basis: str | None = None
    null: int = 0
    null_shifts: bool = False
    limit: int | None = None
    split: str | None = None
    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    seed: int = 0
    memory: int = 1280 << 20
    cache_dir: Path | None = None
    cache_bytes: int = 8 << 30
    checkpoint_seconds: float = 60.0
    report: bool = True
    thresholds: Path | None = None

    def check(self) -> None:
        """Raises SpecError for values that no run can have."""
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise SpecError(f"--quantile is {self.quantile:g}: expected a share between 0 and 1, such as 0.005")
        for name, value in (
            ("--batch-size", self.batch_size),
            ("--limit", self.limit),
            ("--input-size", self.input_size),
        ):
            if value is not None and value < 1:
                raise SpecError(f"{name} is {value}: expected at least 1")
        if self.std is not None and not all(s > 0 for s in self.std):
            raise SpecError(f"--std is {self.std}: expected three numbers above 0")
        if self.null < 0:
            raise SpecError(f"--null is {self.null}: expected a number of draws such as 200")
        if self.null_shifts and not self.null:
            raise SpecError("--null-shifts moves the labels of the draws of --null: add --null 200")
        repeated = {layer for layer in self.layers if self.layers.count(layer) > 1}
        if repeated:
            raise SpecError(f"layer {sorted(repeated)[0]!r} is asked for twice")
