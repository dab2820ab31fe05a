"""A concept set of a few small images, written by hand so that nothing of the product is used to make it.

It holds the odd cases of the format: several planes of a category, a label in two planes at one pixel, a name that
lives in two categories, scalars, a zero scalar, images without labels.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("", "red-c", "blue-c", "cat", "dog", "wheel", "wood", "kitchen-s", "street-s", "dotted", "skin")
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
# Categories of each label; the first one is primary.
HOMES = (
    (), ("color",), ("color",), ("object",), ("object",), ("part",), ("material",), ("scene",), ("scene",),
    ("texture",), ("part", "material"),
)  # fmt: skip


class TinySet:
    """`images` pictures of 2 s x 2 s with label maps of s x s. The picture's red value is 20 x the object label, green
    20 x the part label, blue is noise: a 1 x 1 layer can therefore plant any mask."""

    def __init__(self, folder: Path, images: int = 24, size: int = 8, seed: int = 0) -> None:
        self.folder, self.images, self.size = folder, images, size
        rng = np.random.default_rng(seed)
        (folder / "images" / "a").mkdir(parents=True)
        self.planes: list[list[tuple[str, np.ndarray]]] = []
        self.scalars: list[list[tuple[str, int]]] = []
        rows = []
        for i in range(images):
            name = f"a/{i:03d}.png"
            planes: dict[str, list[np.ndarray]] = {}
            scalars: dict[str, list[int]] = {}
            if i % 6 != 5:  # every sixth image is unlabelled
                planes["color"] = [rng.integers(1, 3, (size, size))]
                thing = self._blob(rng, 3 + i % 2)
                planes["object"] = [thing]
                part = np.where(thing > 0, self._blob(rng, 5), 0)
                planes["part"] = [part, self._blob(rng, 10), part * (rng.random((size, size)) < 0.5)]
                if i % 3 == 0:
                    planes["material"] = [self._blob(rng, 6), self._blob(rng, 10)]
                scalars["scene"] = [7 + i % 2] if i % 4 else [0]
                if i % 4 == 1:
                    scalars["texture"] = [9]
            self.planes.append([(c, p.astype(np.uint16)) for c in CATEGORIES for p in planes.get(c, [])])
            self.scalars.append([(c, s) for c in CATEGORIES for s in scalars.get(c, [])])
            cells = {}
            for category in CATEGORIES:
                items = []
                for k, plane in enumerate(planes.get(category, []), 1):
                    path = f"a/{i:03d}_{category}_{k}.png"
                    rgb = np.stack([plane % 256, plane // 256, plane * 0], 2).astype(np.uint8)
                    Image.fromarray(rgb).save(folder / "images" / path)
                    items.append(path)
                cells[category] = ";".join(items + [str(s) for s in scalars.get(category, [])])
            blank = np.zeros((size, size), np.uint16)
            red = planes.get("object", [blank])[0] * 20
            green = planes.get("part", [blank])[0] * 20
            noise = rng.integers(0, 256, (size, size))
            picture = np.stack([red, green, noise], 2).astype(np.uint8).repeat(2, 0).repeat(2, 1)
            Image.fromarray(picture).save(folder / "images" / name)
            rows.append(
                [name, "train" if i % 3 else "val", 2 * size, 2 * size, size, size, *(cells[c] for c in CATEGORIES)]
            )
        self._write_tables(rows)

    def _blob(self, rng: np.random.Generator, label: int) -> np.ndarray:
        plane = np.zeros((self.size, self.size), np.int64)
        y, x = rng.integers(0, self.size - 2, 2)
        plane[y : y + 3, x : x + 2 + int(rng.integers(2))] = label
        return plane

    def _write_tables(self, rows: list[list[object]]) -> None:
        frequency = np.zeros((len(NAMES), len(CATEGORIES)), int)
        coverage = np.zeros((len(NAMES), len(CATEGORIES)))
        for planes, scalars in zip(self.planes, self.scalars):
            for k, category in enumerate(CATEGORIES):
                for number in range(1, len(NAMES)):
                    share = sum(float((p == number).mean()) for c, p in planes if c == category)
                    share += sum(1.0 for c, s in scalars if c == category and s == number)
                    frequency[number, k] += share > 0
                    coverage[number, k] += share
        self._csv("index.csv", ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES], rows)
        labels = []
        for number in range(1, len(NAMES)):
            homes = ";".join(f"{c}({frequency[number, CATEGORIES.index(c)]})" for c in HOMES[number])
            labels.append([number, NAMES[number], homes, frequency[number].sum(), coverage[number].sum(), ""])
        self._csv("label.csv", ["number", "name", "category", "frequency", "coverage", "syns"], labels)
        table = []
        for k, category in enumerate(CATEGORIES):
            mine = [n for n in range(1, len(NAMES)) if category in HOMES[n]]
            table.append([category, mine[0], mine[-1], len(mine), frequency[:, k].sum()])
            codes = [[c, n, NAMES[n], frequency[n, k], coverage[n, k]] for c, n in enumerate(mine, 1)]
            self._csv(f"c_{category}.csv", ["code", "number", "name", "frequency", "coverage"], codes)
        self._csv("category.csv", ["name", "first", "last", "count", "frequency"], table)
        self.primary = [-1] + [
            max((coverage[n, k], k) for k in range(6) if CATEGORIES[k] in HOMES[n])[1] for n in range(1, len(NAMES))
        ]

    def _csv(self, name: str, header: list[str], rows: list[list[object]]) -> None:
        with open(self.folder / name, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])

    def holds(self, image: int) -> np.ndarray:
        """bool [labels, s, s]: where each label lies, planes united, scalars everywhere; label 0 nowhere."""
        where = np.zeros((len(NAMES), self.size, self.size), bool)
        for _, plane in self.planes[image]:
            for number in np.unique(plane):
                where[number] |= plane == number
        for _, number in self.scalars[image]:
            where[number] = True
        where[0] = False
        return where
