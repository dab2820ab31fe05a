"""How often a 95 % interval holds the true IoU.

    python -m tests.campaigns.coverage [--draws 2000] [--images 2000] [--seed 0]

A draw is a new set of images from a population with known IoU: concepts in a share of the images, areas of heavy
tail, masks that follow the concept more or less. Fixed pairs are judged; the label of a unit, chosen as the best of
many, is judged apart (the winner's curse).
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dissect.statistics import intervals


@dataclass(frozen=True)
class Population:
    """share of images that hold the concept; overlap: parameters of the beta law of the share of a mask on it."""

    share: float
    overlap: tuple[float, float]

    def images(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of intersection and union in `count` images."""
        held = random.random(count) < self.share
        concept = np.where(held, random.lognormal(6.5, 0.8, count), 0)
        mask = np.where(random.random(count) < 0.3, random.lognormal(6, 1, count), 0)
        drawn = np.maximum(mask, concept * random.uniform(0.2, 1.2, count))
        mask = np.where(held & (random.random(count) < 0.7), drawn, mask)
        meeting = np.where(held, np.minimum(mask, concept) * random.beta(*self.overlap, count), 0)
        return meeting, mask + concept - meeting

    def truth(self) -> float:
        meeting, union = self.images(4_000_000, np.random.default_rng(1))
        return float(meeting.sum() / union.sum())


POPULATIONS = [Population(share, overlap) for share in (0.05, 0.1, 0.3) for overlap in ((2, 2), (0.5, 2), (8, 2))]
BLOCKS = (16, 32, 64)
BATCH = 8


def covered(population: Population, blocks: int, images: int, draws: int, seed: int) -> Iterator[bool]:
    """Whether the interval of each draw holds the truth."""
    random, truth = np.random.default_rng(seed), population.truth()
    block = np.arange(images) // BATCH % blocks
    for _ in range(draws):
        meeting, union = (np.bincount(block, part, blocks)[:, None] for part in population.images(images, random))
        low, high = intervals(meeting, union)
        yield bool(low[0] <= truth <= high[0])


def curse(choices: int, images: int, draws: int, seed: int) -> float:
    """Share of draws in which the interval of the best of `choices` equally good pairs holds their common IoU."""
    population, random = Population(0.1, (2, 2)), np.random.default_rng(seed)
    truth = population.truth()
    block = np.arange(images) // BATCH % 32
    held = 0
    for _ in range(draws):
        parts = [population.images(images, random) for _ in range(choices)]
        meeting, union = (np.stack([np.bincount(block, p[i], 32) for p in parts], 1) for i in (0, 1))
        low, high = intervals(meeting, union)
        best = (meeting.sum(0) / union.sum(0)).argmax()
        held += bool(low[best] <= truth <= high[best])
    return held / draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| images with the concept | overlap | IoU | " + " | ".join(f"{b} blocks" for b in BLOCKS) + " |")
    print("| --- | --- | --- |" + " --- |" * len(BLOCKS))
    for population in POPULATIONS:
        shares = [np.mean(list(covered(population, b, options.images, options.draws, options.seed))) for b in BLOCKS]
        cells = " | ".join(f"{share:.1%}" for share in shares)
        held = population.share * options.images
        print(f"| {held:.0f} | beta{population.overlap} | {population.truth():.3f} | {cells} |", flush=True)
    for choices in (2, 10):
        share = curse(choices, options.images, options.draws // 4, options.seed)
        print(f"\nbest of {choices} equal pairs: {share:.1%} hold the truth (the winner's curse)", flush=True)


if __name__ == "__main__":
    main()
