"""One name for one concept, whatever the sources call it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from broden.sources.base import Names

SUFFIXES = {"scene": "-s", "color": "-c"}
"""Broden's marks: a scene "street-s" is another concept than the object "street"."""


@dataclass(frozen=True)
class NameRules:
    """How names unify.

    `rename` maps a name, or "category:name", to another (many to one). `modifiers` are words that are taken off
    names of `modifier_categories` ("left front wheel" -> "wheel"). `drop` lists names, or "category:name", that are
    left unlabelled. All are compared in lower case, before Broden's suffixes are put on.
    """

    rename: Mapping[str, str] = field(default_factory=dict)
    drop: frozenset[str] = frozenset()
    modifiers: frozenset[str] = frozenset()
    modifier_categories: frozenset[str] = frozenset({"part"})

    def unify(self, category: str, names: Names) -> str | None:
        """The one name of a label: that of the first of `names` that says something; None = unlabelled."""
        for name in names:
            plain = normal(name)
            if category in self.modifier_categories:
                kept = [word for word in plain.split(" ") if word not in self.modifiers]
                plain = " ".join(kept) or plain
            plain = normal(self.rename.get(f"{category}:{plain}", self.rename.get(plain, plain)))
            if plain in ("", "-"):
                continue
            if plain not in self.drop and f"{category}:{plain}" not in self.drop:
                end = SUFFIXES.get(category, "")
                return plain if plain.endswith(end) else plain + end
            return None
        return None


def normal(name: str) -> str:
    """Lower case, single spaces, nothing that would break a cell of label.csv."""
    return re.sub(r"[\s_]+", " ", name.replace(";", ",")).strip().lower()
