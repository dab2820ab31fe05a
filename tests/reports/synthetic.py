"""Made-up runs of any size: consistent integers, smooth activation maps, pictures without files."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from reports import images
from reports.pages import (
    Concept,
    Excluded,
    Exemplar,
    Fact,
    Histogram,
    LayerPage,
    RunPage,
    Score,
    UnitCard,
    UnitColumns,
)

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
WORDS = {
    "object": [
        "dog",
        "cat",
        "car",
        "building",
        "tree",
        "person",
        "horse",
        "bicycle",
        "chair",
        "table",
        "lamp",
        "bottle",
        "boat",
        "train",
        "plane",
        "sofa",
    ],
    "part": ["head", "leg", "wheel", "window", "door", "roof", "arm", "hair", "eye", "ear"],
    "scene": ["street-s", "kitchen-s", "forest_path-s", "beach-s"],
    "material": ["wood", "metal", "fabric", "glass", "skin"],
    "texture": ["striped", "dotted", "cobwebbed", "lined", "woven", "zigzagged"],
    "color": ["red-c", "blue-c", "green-c"],
}


def concepts(count: int = 0) -> tuple[Concept, ...]:
    """The words above, and made-up objects until there are `count`."""
    named = [(word, category) for category, words in WORDS.items() for word in words]
    named += [(f"thing {k}", "object") for k in range(count - len(named))]
    return tuple(Concept(n + 1, w, c, 40_000 + 977 * n, 30 + n) for n, (w, c) in enumerate(named))


class Pictures:
    """Procedural photographs: a coloured gradient with a bright disc, different for each position."""

    def __init__(self, count: int = 400, absent: Sequence[int] = ()) -> None:
        self.count, self.absent = count, set(absent)
        self.thumbs: dict[tuple[int, int], np.ndarray] = {}

    def thumb(self, position: int, px: int) -> np.ndarray | None:
        if position in self.absent:
            return None
        key = (position % self.count, px)
        if key not in self.thumbs:
            rng = np.random.default_rng(position % self.count)
            y, x = np.mgrid[0:px, 0:px] / px
            base = rng.integers(40, 200, 3) + 60 * (
                rng.normal(size=3) * x[..., None] + rng.normal(size=3) * y[..., None]
            )
            disc = (x - rng.random()) ** 2 + (y - rng.random()) ** 2 < 0.06
            noise = rng.normal(0, 9, (px, px, 1))
            self.thumbs[key] = np.clip(base + 90 * disc[..., None] + noise, 0, 255).astype(np.uint8)
        return self.thumbs[key]

    def labels(self, position: int) -> tuple[list[np.ndarray], list[int]] | None:
        plane = np.zeros((112, 112), dtype=np.uint16)
        plane[20 + position % 30 : 80, 30:90] = 1 + position % 40
        return [plane], [27]


def layer(
    units: int, position: int = 0, name: str = "layer4", known: tuple[Concept, ...] = (), seed: int = 0,
    size: tuple[int, int] = (7, 7), exemplars: int = 4, baseline: bool = False, histogram: bool = False,
    positions: int = 400,
) -> LayerPage:  # fmt: skip
    """A layer whose IoU follow from its integers; every 37th unit is dead, 41st saturated, 43rd not finite."""
    known = known or concepts()
    rng = np.random.default_rng(seed + 1000 * position)
    g = np.array([c.area for c in known])
    pick = np.minimum((rng.pareto(1.1, units) * 2).astype(int), len(known) - 1)
    pick = (pick * 7 + rng.integers(0, 3, units)) % len(known)
    a = rng.integers(20_000, 90_000, units)
    i = (np.minimum(a, g[pick]) * np.clip(rng.gamma(1.4, 0.07, units), 0.0005, 0.9)).astype(np.int64)
    unit = np.arange(units)
    dead, saturated, nonfinite = unit % 37 == 36, unit % 41 == 40, unit % 43 == 42
    none = dead | saturated | nonfinite
    i[none], a[none] = 0, 0
    label = np.where(none, -1, np.array([c.number for c in known])[pick])
    iou = np.where(none, 0.0, i / np.maximum(a + g[pick] - i, 1))
    threshold = np.where(nonfinite, np.nan, 1.0 + rng.random(units))
    odd: dict[str, Any] = {}
    if baseline:
        odd = {
            "low": iou * 0.9,
            "high": iou * 1.12,
            "null": np.minimum(iou, 0.012),
            "q": np.where(iou > 0.05, 0.01, 0.3),
        }
    columns = UnitColumns(label, i, a, iou, threshold, dead, saturated, 5 * nonfinite, **odd)
    y, x = np.mgrid[0 : size[0], 0 : size[1]]

    def cards(first: int, stop: int) -> list[UnitCard]:
        out = []
        for u in range(first, stop):
            own = np.random.default_rng((seed, position, u))
            best = []
            if label[u] >= 0:
                best = [Score(int(label[u]), int(i[u]), int(a[u]))]
                for step in range(1, 12):
                    number = (int(label[u]) - 1 + 5 * step) % len(known) + 1
                    best.append(Score(number, int(i[u] * 0.8**step), int(a[u])))
            shown = []
            for rank in range(0 if dead[u] else exemplars):
                cy, cx, wide = own.random() * size[0], own.random() * size[1], 0.8 + own.random() * 1.6
                blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / wide**2)
                peak = 4.0 - 0.2 * rank
                values = (peak * blob / blob.max() + own.random(size) * 0.3).astype(np.float32)
                row, column = np.unravel_index(int(values.argmax()), size)
                where = int(own.integers(0, positions))
                shown.append(
                    Exemplar(where, f"set/photo_{where:05d}.jpg", float(values.max()), int(row), int(column), values)
                )
            counts = tuple(int(v) for v in own.integers(0, 5000, 20)) if histogram else ()
            chart = Histogram(tuple(np.linspace(-1, 4, 21).tolist()), counts) if histogram else None
            out.append(UnitCard(u, tuple(best), tuple(best[:4]), tuple(shown), chart))
        return out

    unique = len(np.unique(label[(iou > 0.04) & (label > 0)]))
    return LayerPage(name, position, size, columns, cards, f"{seed}/{units}/{baseline}", 19_600, 98, unique + 3)


def run(*layers: LayerPage, known: tuple[Concept, ...] = (), **changes: Any) -> RunPage:
    """A run of these layers."""
    page = RunPage(
        id="3f9c2a7b41d8", name="resnet18-demo", model="torchvision:resnet18", data="broden1_224", split=None,
        images=400,
        label_size=(112, 112), quantile=0.005, cut=0.04, convention="exact", categories=CATEGORIES,
        concepts=known or concepts(), layers=layers,
        provenance=(Fact("weights sha256", "ab" * 32), Fact("concept data", "cd" * 32), Fact("decoder", "Pillow 13.0")),
        honesty=("Thresholds are exact order statistics.", "2 of 402 inputs were set aside."),
        excluded=(Excluded(3, "set/broken.jpg", "truncated file"), Excluded(9, "set/gone.jpg", "no such file")),
    )  # fmt: skip
    return replace(page, **changes)


def small(units: int = 64, **options: Any) -> RunPage:
    """One layer."""
    return run(layer(units, **options))


def picture_of_mask(card: UnitCard, threshold: float) -> np.ndarray:
    """The mask of a card's first exemplar at label resolution."""
    return images.mask(card.exemplars[0].map, threshold, (112, 112))
