"""Pascal VOC segmentation, Pascal Context and Pascal Part."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from broden.errors import DataError, InputFault
from broden.sources import matlab
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option, stem

CLASSES = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes in their order; 0 is background, 255 void."""


class VocSource(FolderSource):
    """VOCdevkit/VOC20xx: JPEGImages/ID.jpg, SegmentationClass/ID.png, ImageSets/Segmentation/SET.txt.

    Options: name, path (the VOC20xx folder), `set` (default trainval).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        chosen = option(options, "set", str, "trainval")
        self._ids = [line.strip() for line in self.text(f"ImageSets/Segmentation/{chosen}.txt") if line.strip()]
        self._names = numbered(dict(enumerate(CLASSES, 1)), (0, 255))

    def __len__(self) -> int:
        return len(self._ids)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._ids[index]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._ids[index]
        sample = self.picture(f"JPEGImages/{name}.jpg")
        file = f"SegmentationClass/{name}.png"
        sample.layers.append(Layer("object", self.mask(file), self._names, file))
        return sample


class _MatSource(FolderSource):
    """Pictures in one folder, one .mat of labels for each in another."""

    def __init__(self, options: dict[str, Any], labels: str) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._images = option(options, "images", str, "JPEGImages")
        self._labels = option(options, "labels", str, labels)
        self._ids = [stem(name) for name in self.files(self._labels, (".mat",))]

    def __len__(self) -> int:
        return len(self._ids)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._ids[index]

    def _read(self, index: int) -> tuple[Sample, str, dict[str, Any]]:
        name = self._ids[index]
        sample = self.picture(f"{self._images}/{name}.jpg")
        file = f"{self._labels}/{name}.mat"
        try:
            return sample, file, matlab.load(self.root.read(file))
        except matlab.MatlabError as error:
            raise InputFault(file, str(error)) from None


class ContextSource(_MatSource):
    """Pascal Context: `trainval/ID.mat` with LabelMap, labels.txt ("12: airplane"), pictures of VOC2010.

    "unknown" is unlabelled. Options: name, path, `images` (default JPEGImages), `labels` (default trainval),
    `names` (default labels.txt).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options, "trainval")
        file = option(options, "names", str, "labels.txt")
        names: dict[int, str | Names] = {}
        for row, line in enumerate(self.text(file), 1):
            match = re.fullmatch(r"\s*(\d+)\s*:\s*(.+?)\s*", line)
            if match is None and line.strip():
                raise DataError(self.where(file), row, f"found {line[:60]!r}; expected 'number: name'")
            if match is not None:
                names[int(match.group(1))] = () if match.group(2) == "unknown" else match.group(2)
        self._names = numbered(names)

    def read(self, index: int) -> Sample:
        """See Source."""
        sample, file, content = self._read(index)
        numbers = content.get("LabelMap")
        if not isinstance(numbers, np.ndarray) or numbers.dtype == object or numbers.ndim != 2:
            raise InputFault(file, "no LabelMap of two dimensions")
        sample.layers.append(Layer("object", numbers.astype(np.int64), self._names, file))
        return sample


PART_NAMES = {
    "luarm": "left upper arm", "llarm": "left lower arm", "ruarm": "right upper arm", "rlarm": "right lower arm",
    "luleg": "left upper leg", "llleg": "left lower leg", "ruleg": "right upper leg", "rlleg": "right lower leg",
    "lfleg": "left front leg", "rfleg": "right front leg", "lbleg": "left back leg", "rbleg": "right back leg",
    "lfuleg": "left front upper leg", "lflleg": "left front lower leg", "rfuleg": "right front upper leg",
    "rflleg": "right front lower leg", "lbuleg": "left back upper leg", "lblleg": "left back lower leg",
    "rbuleg": "right back upper leg", "rblleg": "right back lower leg", "lfpa": "left front paw",
    "rfpa": "right front paw", "lbpa": "left back paw", "rbpa": "right back paw", "lfho": "left front hoof",
    "rfho": "right front hoof", "lbho": "left back hoof", "rbho": "right back hoof", "fwheel": "front wheel",
    "bwheel": "back wheel", "fliplate": "front license plate", "bliplate": "back license plate",
    "frontside": "front side", "leftside": "left side", "rightside": "right side", "backside": "back side",
    "roofside": "roof side", "leftmirror": "left mirror", "rightmirror": "right mirror", "lear": "left ear",
    "rear": "right ear", "leye": "left eye", "reye": "right eye", "lebrow": "left eyebrow",
    "rebrow": "right eyebrow", "lhand": "left hand", "rhand": "right hand", "lfoot": "left foot",
    "rfoot": "right foot", "lwing": "left wing", "rwing": "right wing", "lhorn": "left horn",
    "rhorn": "right horn", "chainwheel": "chain wheel", "headlight": "headlight", "hfrontside": "head front side",
    "hleftside": "head left side", "hrightside": "head right side", "hbackside": "head back side",
    "hroofside": "head roof side", "cfrontside": "coach front side", "cleftside": "coach left side",
    "crightside": "coach right side", "cbackside": "coach back side", "croofside": "coach roof side",
}  # fmt: skip
"""Readable forms of the part codes; numbers at the end (engine_2) only tell instances apart."""


def part_name(code: str) -> str:
    """Readable name of a part code of Pascal Part."""
    code = re.sub(r"_?\d+$", "", code)
    return PART_NAMES.get(code, code.replace("_", " "))


class PartSource(_MatSource):
    """Pascal Part: `Annotations_Part/ID.mat`, struct anno with objects, each with class, mask and parts.

    Every part mask becomes a layer of its own; `build` merges layers that do not disagree. Options: name, path,
    `images` (default JPEGImages), `labels` (default Annotations_Part), `objects` (default true).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options, "Annotations_Part")
        self._objects = option(options, "objects", bool, True)

    def read(self, index: int) -> Sample:
        """See Source."""
        sample, file, content = self._read(index)
        try:
            objects = content["anno"].reshape(-1)[0]["objects"].reshape(-1).tolist()
            for thing in objects:
                if self._objects:
                    name = str(thing["class"]).replace("aeroplane", "airplane")
                    self._layer(sample, "object", name, thing["mask"], file)
                parts = thing["parts"]
                for part in parts.reshape(-1).tolist() if parts.size else ():
                    self._layer(sample, "part", part_name(str(part["part_name"])), part["mask"], file)
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            raise InputFault(file, f"not a part annotation ({type(error).__name__} {error})") from None
        return sample

    @staticmethod
    def _layer(sample: Sample, category: str, name: str, mask: Any, file: str) -> None:
        if not isinstance(mask, np.ndarray) or mask.ndim != 2 or mask.dtype == object:
            raise InputFault(file, f"mask of {name} is not a picture")
        sample.layers.append(Layer(category, (mask != 0).astype(np.uint8), {0: (), 1: (name,)}, file))
