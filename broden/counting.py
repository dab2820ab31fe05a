"""How many images hold each concept and how many label pixels it covers, by category, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broden.schema import ImageLabels, Row


def united(planes: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Planes [K, H, W] with a label that repeats at one pixel kept once (the others become 0)."""
    if len(planes) < 2:
        return planes
    ordered = np.sort(planes, axis=0)
    ordered[1:][ordered[1:] == ordered[:-1]] = 0
    return ordered


def image_pixels(row: Row, labels: ImageLabels, numbers: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For each category that the image has: its index and pixels by label number, int64 [numbers].

    A pixel counts once for a label of a category; a whole-image label covers all pixels; 0 never counts.
    """
    area = int(np.prod(labels.planes.shape[1:]))
    at = np.array([plane.category for plane in row.planes], np.int64)
    for category in sorted({plane.category for plane in row.planes} | {scalar.category for scalar in row.scalars}):
        planes = united(labels.planes[at == category]) if len(at) else labels.planes
        pixels = np.bincount(planes.reshape(-1), minlength=numbers).astype(np.int64)
        for scalar in row.scalars:
            if scalar.category == category:
                pixels[scalar.number] = area
        pixels[0] = 0
        yield category, pixels


@dataclass
class Counts:
    """Sums over images: `images` and `pixels`, int64 [categories, label numbers]. Adds up in any order."""

    images: NDArray[np.int64]
    pixels: NDArray[np.int64]

    @classmethod
    def empty(cls, categories: int, numbers: int) -> Counts:
        """No images counted yet."""
        shape = (categories, numbers)
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def update(self, row: Row, labels: ImageLabels) -> None:
        """Count one image."""
        for category, pixels in image_pixels(row, labels, self.images.shape[1]):
            self.images[category] += pixels > 0
            self.pixels[category] += pixels

    def merge(self, others: Iterable[Counts]) -> None:
        """Add the counts of other parts."""
        for other in others:
            self.images += other.images
            self.pixels += other.pixels
