"""A plain folder of your own: images/, masks/<category>/, labels.csv or labels.json.

images/street/7.jpg
masks/object/street/7.png      grey, palette or 16-bit PNG of label numbers; 0 and 255 unlabelled
masks/part/street/7_1.png      more masks of one image: NAME_1.png, NAME_2.png ...
labels.csv                     category,number,name  (more names after ';' are synonyms; no name = unlabelled)
labels.json                    {"object": {"1": "car", "2": ["truck", "lorry"]}}
images.csv                     optional: image,category,name gives whole images a scene, a texture ...
"""

from __future__ import annotations

import json
from typing import Any

from broden.errors import DataError, InputFault
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option, stem
from broden.tables import read_table


class PlainSource(FolderSource):
    """Options: name, path, `ignore` (numbers that are unlabelled, default 0 and 255), `scaled` (masks may have
    another resolution, default false).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._ignore = option(options, "ignore", list, [0, 255])
        self._scaled = option(options, "scaled", bool, False)
        self._images = self.files("images")
        self._names = {c: self._table(n) for c, n in self._read_names().items()}
        self._scalars = self._read_scalars()
        self._masks: dict[str, list[tuple[str, str]]] = {}
        known = {stem(name): name for name in self._images}
        masks = self.root.path / "masks"
        for category in sorted(entry.name for entry in masks.iterdir()) if masks.is_dir() else ():
            if category not in self._names:
                raise DataError(self.where("labels"), None, f"no names for the masks of category {category!r}")
            for mask in self.files(f"masks/{category}", (".png", ".bmp")):
                base = stem(mask)
                head, _, tail = base.rpartition("_")
                owner = known.get(base) or (known.get(head) if tail.isdecimal() else None)
                if owner is None:
                    raise DataError(self.where(f"masks/{category}/{mask}"), None, "no image of this name")
                self._masks.setdefault(owner, []).append((category, f"masks/{category}/{mask}"))

    def _table(self, names: dict[int, Names]) -> dict[int, Names]:
        # A number that is named is a label even if it would be ignored by default.
        return {**numbered({}, self._ignore), **names}

    def _read_names(self) -> dict[str, dict[int, Names]]:
        found: dict[str, dict[int, Names]] = {}
        if self.root.exists("labels.csv"):
            for record in read_table(self.root, "labels.csv", ("category", "number", "name")):
                table = found.setdefault(record.text("category"), {})
                number = record.integer("number", 0, 65535)
                if number in table:
                    raise record.error(f"number {number} stands there twice")
                table[number] = tuple(filter(None, (part.strip() for part in record.text("name").split(";"))))
            return found
        try:
            raw = json.loads(self.root.read("labels.json"))
            for category, table in raw.items():
                found[category] = {int(n): (v,) if isinstance(v, str) else tuple(map(str, v)) for n, v in table.items()}
        except InputFault as fault:
            reason = f"{fault.reason}; expected labels.csv or labels.json"
            raise DataError(self.where("labels.json"), None, reason) from None
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise DataError(
                self.where("labels.json"), None, f"expected names by category and number ({error})"
            ) from None
        return found

    def _read_scalars(self) -> dict[str, list[tuple[str, Names]]]:
        found: dict[str, list[tuple[str, Names]]] = {}
        if self.root.exists("images.csv"):
            there = set(self._images)
            for record in read_table(self.root, "images.csv", ("image", "category", "name")):
                if record.text("image") not in there:
                    raise record.error(f"no image {record.text('image')!r} under images/")
                found.setdefault(record.text("image"), []).append((record.text("category"), (record.text("name"),)))
        return found

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._images[index]
        sample = self.picture(f"images/{name}")
        for category, file in self._masks.get(name, ()):
            sample.layers.append(Layer(category, self.mask(file), self._names[category], file, self._scaled))
        sample.scalars = list(self._scalars.get(name, ()))
        return sample
