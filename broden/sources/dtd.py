"""Describable Textures: images/<texture>/NAME.jpg; labels/labels_joint_anno.txt lists every texture of an image."""

from __future__ import annotations

from typing import Any

from broden.errors import DataError
from broden.sources.base import FolderSource, Sample, option


class DtdSource(FolderSource):
    """Options: name, path, `joint` (default true; false keeps the key texture only, the folder's name)."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        joint = option(options, "joint", bool, True)
        file = "labels/labels_joint_anno.txt"
        self._images: list[tuple[str, list[str]]] = []
        for row, line in enumerate(self.text(file), 1):
            words = line.split()
            if not words:
                continue
            if len(words) < 2:
                raise DataError(self.where(file), row, f"no texture in {line[:60]!r}")
            self._images.append((words[0], words[1:] if joint else [words[0].split("/")[0]]))

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index][0].rpartition("/")[2]

    def read(self, index: int) -> Sample:
        """See Source."""
        name, textures = self._images[index]
        sample = self.picture(f"images/{name}")
        sample.scalars = [("texture", (texture,)) for texture in textures]
        return sample
