"""Under a true null, are p-values uniform and false discoveries as rare as they are said to be?

    python -m tests.campaigns.null [--runs 40] [--units 64] [--draws 99] [--seed 0] [--shifts]

A network whose smooth activations know nothing of the images is dissected again and again on a synthetic set; each run
gives a p-value for each unit. Prints the Kolmogorov-Smirnov distance of all of them from the uniform law, beside its
critical value at 1 % (for the discreteness of p, 1 / (B + 1) is added), and the share of runs that discover anything
at q < 0.05, which must not exceed 5 % but by chance.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import broden
from dissect import pipeline
from dissect.statistics import false_discovery_rates


class Noise(nn.Module):
    """Smooth random maps, new for every batch, whatever the images show."""

    def __init__(self, units: int, seed: int) -> None:
        super().__init__()
        self.units, self.generator = units, torch.Generator().manual_seed(seed)
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        coarse = torch.randn(len(x), self.units, 4, 4, generator=self.generator)
        maps: Tensor = self.layer(F.interpolate(coarse, (8, 8), mode="bilinear"))
        return maps

    def __deepcopy__(self, memo: dict[int, object]) -> "Noise":
        return self


def p_values(data: broden.Dataset, units: int, draws: int, seed: int, shifts: bool = False) -> np.ndarray:
    """p [U] of one run under the null."""
    method = pipeline.Method(("layer",), null=draws, null_shifts=shifts, quantile=0.05, exemplars=1)
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.dissect(Noise(units, seed), data, method, pipeline.Resources(Path(folder) / "work"), own=True)
    null = result.layers["layer"].null
    assert null is not None
    return null.p_values()


def distance(p: np.ndarray) -> float:
    """Largest distance between the distribution of p and the uniform one."""
    found = np.sort(p)
    steps = np.arange(len(p) + 1) / len(p)
    return float(max(np.abs(steps[1:] - found).max(), np.abs(steps[:-1] - found).max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--draws", type=int, default=99)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shifts", action="store_true", help="move the labels as well (not uniform: edges are places)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = broden.synth(Path(folder) / "set", images=options.images, size=32)
        runs = [
            p_values(data, options.units, options.draws, options.seed + i, options.shifts) for i in range(options.runs)
        ]
    together = np.concatenate(runs)
    critical = 1.63 / np.sqrt(len(together)) + 1 / (options.draws + 1)
    discovering = np.mean([(false_discovery_rates(p) < 0.05).any() for p in runs])
    print(f"{len(together):,} p-values: distance from uniform {distance(together):.4f}, critical {critical:.4f} (1 %)")
    print(f"p <= 0.05 in {(together <= 0.05).mean():.1%}; runs with a discovery at q < 0.05: {discovering:.1%}")


if __name__ == "__main__":
    main()
