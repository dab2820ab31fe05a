"""The concepts of a synthetic set, at any number from a dozen to Broden's 1,197.

A concept is a kind and a variant ("house", "house 2"): variants differ in shape and colour. When fewer concepts
are asked for than the pictures show, the rest is drawn but not labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from broden.colours import NAMES
from broden.schema import CATEGORIES
from broden.synthetic.patterns import MATERIALS, TEXTURES

THINGS = ("house", "car", "tree", "face", "boat", "flower", "lamp", "fish")
STUFF = ("sky", "wall", "grass", "road", "sand", "water", "floor", "snow", "door", "window")
PARTS = (
    "roof", "window", "door", "wheel", "foliage", "trunk", "eye", "mouth", "hair", "petal", "sail", "hull",
    "shade", "fin", "bumper", "hub", "pupil", "knob", "stem", "nose", "chimney", "base",
)  # fmt: skip
SCENES = ("street", "beach", "field", "bedroom", "desert", "sea", "night", "snowfield", "park", "corridor")

KINDS: dict[str, tuple[str, ...]] = {
    "color": tuple(f"{name}-c" for name in NAMES),
    "object": THINGS + STUFF,
    "part": PARTS,
    "material": MATERIALS,
    "scene": tuple(f"{name}-s" for name in SCENES),
    "texture": TEXTURES,
}
BASE = len({name for names in KINDS.values() for name in names})
"""Distinct names of the basic vocabulary: names such as "door", "foliage" or "water" live in two categories."""
MOST = 1197
LEAST = 12

# Shares of what goes beyond the basic vocabulary, about as in Broden.
_GROWTH = {"scene": 39, "object": 43, "part": 16, "texture": 2}


@dataclass(frozen=True)
class Vocabulary:
    """`variants[category]` = variants of every kind; `allowed` = names that get a label, None for all."""

    variants: dict[str, int]
    extra: dict[str, int]
    allowed: frozenset[tuple[str, str]] | None

    @cached_property
    def names(self) -> list[tuple[str, str]]:
        """Every (category, name) that can be labelled."""
        pairs = []
        for category in CATEGORIES:
            for variant in range(self.variants[category] + 1):
                for order, kind in enumerate(KINDS[category]):
                    if variant < self.count(category, order):
                        pairs.append((category, variant_name(kind, variant)))
        return [pair for pair in pairs if self.allowed is None or pair in self.allowed]

    def count(self, category: str, order: int) -> int:
        """Variants of the kind number `order` of a category."""
        return self.variants[category] + (order < self.extra[category])

    def labelled(self, category: str, name: str) -> bool:
        """Whether the concept gets a label in this set."""
        return self.allowed is None or (category, name) in self.allowed


def variant_name(kind: str, variant: int) -> str:
    """Name of a variant: the kind itself for variant 0, "street 3-s" for others."""
    if variant == 0:
        return kind
    return f"{kind[:-2]} {variant + 1}-s" if kind.endswith("-s") else f"{kind} {variant + 1}"


def make_vocabulary(concepts: int | None = None) -> Vocabulary:
    """The vocabulary with so many distinct names (default: the basic one). Raises ValueError."""
    if concepts is None:
        concepts = BASE
    if not LEAST <= concepts <= MOST:
        raise ValueError(f"concepts is {concepts}; expected {LEAST}..{MOST}")
    counts = {category: len(kinds) for category, kinds in KINDS.items()}
    allowed = None
    if concepts < BASE:
        # Drop from the end of each category in turn, most from the longest, and leave two in each.
        keep = dict(counts)

        def kept() -> frozenset[tuple[str, str]]:
            return frozenset((c, name) for c, names in KINDS.items() for name in names[: keep[c]])

        while len({name for _, name in kept()}) > concepts:
            keep[max(keep, key=lambda category: (keep[category], category))] -= 1
        allowed = kept()
    else:
        for category, share in _GROWTH.items():
            counts[category] += (concepts - BASE) * share // 100
        # Variants of names that live in two categories count once: scenes, which share none, make up for them.
        counts["scene"] += concepts - len({name for _, name in _grown(counts, None).names})
    return _grown(counts, allowed)


def _grown(counts: dict[str, int], allowed: frozenset[tuple[str, str]] | None) -> Vocabulary:
    variants = {category: counts[category] // len(KINDS[category]) for category in counts}
    extra = {category: counts[category] % len(KINDS[category]) for category in counts}
    return Vocabulary(variants, extra, allowed)
