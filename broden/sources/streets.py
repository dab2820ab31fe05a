"""Street scenes: Cityscapes (index masks) and CamVid (colour or index masks)."""

from __future__ import annotations

from typing import Any

import numpy as np

from broden.errors import DataError, InputFault
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option

CITYSCAPES = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road",
    "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole",
    "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""labelIds 0..33. 0..3 say nothing about the scene and are unlabelled; -1 (license plate) is 255 in a PNG."""


class CityscapesSource(FolderSource):
    """leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png with gtFine/SPLIT/CITY/NAME_gtFine_labelIds.png.

    Options: name, path, `splits` (default train, val), `scene` (a scene name for every image, default none).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._scene = option(options, "scene", str, "")
        end = "_leftImg8bit.png"
        self._images = [
            f"{split}/{name[: -len(end)]}"
            for split in option(options, "splits", list, ["train", "val"])
            for name in self.files(f"leftImg8bit/{split}", (end.lower(),))
        ]
        self._names = numbered(dict(enumerate(CITYSCAPES)), (0, 1, 2, 3, 255))

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index].rpartition("/")[2]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._images[index]
        sample = self.picture(f"leftImg8bit/{name}_leftImg8bit.png")
        file = f"gtFine/{name}_gtFine_labelIds.png"
        sample.layers.append(Layer("object", self.mask(file), self._names, file))
        if self._scene:
            sample.scalars.append(("scene", (self._scene,)))
        return sample


class CamVidSource(FolderSource):
    """701_StillsRaw_full/NAME.png with LabeledApproved_full/NAME_L.png in the colours of label_colors.txt.

    label_colors.txt has "R G B name" a line; Void is unlabelled. Options: name, path, `images`, `masks` (folders),
    `suffix` (default _L), `colors` (default label_colors.txt), `scene`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._folder = option(options, "images", str, "701_StillsRaw_full")
        self._masks = option(options, "masks", str, "LabeledApproved_full")
        self._suffix = option(options, "suffix", str, "_L")
        self._scene = option(options, "scene", str, "")
        file = option(options, "colors", str, "label_colors.txt")
        self._names: dict[int, Names] = {}
        for row, line in enumerate(self.text(file), 1):
            cells = line.split(None, 3)
            if not cells:
                continue
            if len(cells) < 4 or not all(cell.isdecimal() and int(cell) < 256 for cell in cells[:3]):
                raise DataError(self.where(file), row, f"found {line[:60]!r}; expected R G B name")
            red, green, blue = map(int, cells[:3])
            name = cells[3].strip()
            self._names[red * 65536 + green * 256 + blue] = () if name.lower() == "void" else (name,)
        self._images = self.files(self._folder)

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._images[index]
        sample = self.picture(f"{self._folder}/{name}")
        file = f"{self._masks}/{name.rpartition('.')[0]}{self._suffix}.png"
        rgb = self.mask(file, channels=True).astype(np.int64)
        numbers = rgb[..., 0] * 65536 + rgb[..., 1] * 256 + rgb[..., 2]
        for value in np.unique(numbers).tolist():
            if value not in self._names:
                colour = (value >> 16, value >> 8 & 255, value & 255)
                raise InputFault(file, f"colour {colour} is not in the table of colours")
        sample.layers.append(Layer("object", numbers, self._names, file))
        if self._scene:
            sample.scalars.append(("scene", (self._scene,)))
        return sample
