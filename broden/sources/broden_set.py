"""A Broden-format folder, as published or as we write it."""

from __future__ import annotations

from typing import Any

from broden.dataset import FolderDataset
from broden.index import read_tables
from broden.paths import Root
from broden.sources.base import FolderSource, Layer, Sample, numbered, option


class BrodenSource(FolderSource):
    """Options: name, path, `categories` (list; default all but color, which is derived anew unless listed)."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._data = FolderDataset(Root(self.root.path), read_tables(self.root))
        there = [category.name for category in self._data.categories]
        default = [name for name in there if name != "color"]
        self._wanted = set(option(options, "categories", list, default))
        self._names = numbered({label.number: (label.name, *label.synonyms) for label in self._data.labels.present()})

    def __len__(self) -> int:
        return len(self._data)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._data.rows[index].image

    def read(self, index: int) -> Sample:
        """See Source."""
        row = self._data.rows[index]
        sample = self.picture(f"images/{row.image}")
        for (category, path), plane in zip(row.planes, self._data.read_labels(index).planes, strict=True):
            name = self._data.categories[category].name
            if name in self._wanted:
                sample.layers.append(Layer(name, plane, self._names, path, scaled=True))
        for category, number in row.scalars:
            name = self._data.categories[category].name
            if number and name in self._wanted:
                sample.scalars.append((name, self._names[number]))
        return sample
