"""Under a true null, are p-values uniform and false discoveries as rare as they are said to be?

    python -m tests.campaigns.null [--runs 40] [--units 64] [--draws 99] [--seed 0] [--shifts]

A network whose smooth activations know nothing of the images is dissected again and again on a synthetic set; each run
gives a p-value for each unit. Prints the Kolmogorov-Smirnov distance of all of them from the uniform law, beside its
critical value at 1 % (for the discreteness of p, 1 / (B + 1) is added). Then half of the units get to see a colour of
the images: the share of those that do not among the discoveries at q < 0.05 is, on average, at most 5 %.
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
    """Smooth random maps, new for every batch, whatever the images show; the first `seeing` units mix in a colour."""

    def __init__(self, units: int, seed: int, seeing: int = 0) -> None:
        super().__init__()
        self.units, self.generator = units, torch.Generator().manual_seed(seed)
        self.colours = torch.randn(seeing, 3, generator=self.generator)
        self.layer = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        coarse = torch.randn(len(x), self.units, 4, 4, generator=self.generator)
        maps = F.interpolate(coarse, (8, 8), mode="bilinear")
        maps[:, : len(self.colours)] += torch.einsum("uc,bchw->buhw", self.colours, F.adaptive_avg_pool2d(x, 8))
        found: Tensor = self.layer(maps)
        return found

    def __deepcopy__(self, memo: dict[int, object]) -> "Noise":
        return self


def p_values(
    data: broden.Dataset, units: int, draws: int, seed: int, shifts: bool = False, seeing: int = 0
) -> np.ndarray:
    """p [U] of one run; all but the first `seeing` units under the null."""
    method = pipeline.Method(("layer",), null=draws, null_shifts=shifts, quantile=0.05, exemplars=1)
    with tempfile.TemporaryDirectory() as folder:
        network, resources = Noise(units, seed, seeing), pipeline.Resources(Path(folder) / "work")
        result = pipeline.dissect(network, data, method, resources, own=True)
    null = result.layers["layer"].null
    assert null is not None
    return null.p_values()


def false_share(p: np.ndarray, seeing: int) -> tuple[float, int]:
    """(share of units that see nothing among the discoveries at q < 0.05, how many there are)."""
    found = false_discovery_rates(p) < 0.05
    return float(found[seeing:].sum() / max(1, found.sum())), int(found.sum())


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
        settings, seeing = (options.units, options.draws), options.units // 2
        seeds = range(options.seed, options.seed + options.runs)
        blind = np.concatenate([p_values(data, *settings, seed, options.shifts) for seed in seeds])
        mixed = [false_share(p_values(data, *settings, seed, options.shifts, seeing), seeing) for seed in seeds]
    critical = 1.63 / np.sqrt(len(blind)) + 1 / (options.draws + 1)
    print(f"{len(blind):,} p-values: distance from uniform {distance(blind):.4f}, critical {critical:.4f} (1 %)")
    print(f"p <= 0.05 in {(blind <= 0.05).mean():.1%}")
    shares, counts = zip(*mixed)
    print(f"{sum(counts):,} discoveries at q < 0.05 in {len(mixed)} runs: {np.mean(shares):.1%} false on average")


if __name__ == "__main__":
    main()
