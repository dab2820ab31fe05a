"""COCO: instances and stuff from annotation JSON (polygons, RLE), panoptic from PNG and JSON.

RLE counts run down the columns, unlabelled first. Compressed counts are COCO's own text form: characters from 48 on
carry five bits each, least first, 32 marks more to come, 16 in the last one the sign; from the fourth count on the
difference to the count two before is stored.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from broden.errors import DataError, InputFault
from broden.sources.base import FolderSource, Layer, Names, Sample, option


def rle_counts(text: str) -> list[int]:
    """Counts of COCO's compressed form. Raises ValueError."""
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError("not a compressed RLE")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed RLE is cut short")
    return counts


def rle_mask(counts: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """Mask [height, width] of run lengths. Raises ValueError."""
    lengths = np.array(counts, np.int64)
    if (lengths < 0).any() or int(lengths.sum()) != height * width:
        raise ValueError(f"runs cover {int(lengths.sum())} pixels; expected {height * width}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def polygon_mask(polygons: list[list[float]], height: int, width: int) -> NDArray[np.bool_]:
    """Union of polygons x0, y0, x1, y1, ... Raises ValueError."""
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for points in polygons:
        if len(points) < 6 or len(points) % 2:
            raise ValueError("polygon with fewer than three points")
        flat = [float(value) for value in points]
        if not np.isfinite(flat).all():
            raise ValueError("polygon with a point that is not finite")
        draw.polygon(flat, fill=1)
    return np.asarray(image, np.bool_)


def segment_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Mask of an annotation's `segmentation`, in any of its three forms. Raises ValueError."""
    if isinstance(segmentation, list):
        return polygon_mask(segmentation, height, width)
    if isinstance(segmentation, dict) and list(segmentation.get("size", ())) == [height, width]:
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            return rle_mask(rle_counts(counts), height, width)
        if isinstance(counts, list):
            return rle_mask(counts, height, width)
    raise ValueError("segmentation is neither polygons nor RLE of the picture's size")


class _CocoSource(FolderSource):
    """Options of all: name, path, `annotations` (JSON file), `images` (folder)."""

    def __init__(self, options: dict[str, Any], annotations: str, images: str) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._file = option(options, "annotations", str, annotations)
        self._folder = option(options, "images", str, images)
        try:
            self._content: Any = json.loads(self.root.read(self._file, 2**32))
            self._images = sorted(
                (
                    (int(i["id"]), str(i["file_name"]), int(i["height"]), int(i["width"]))
                    for i in self._content["images"]
                ),
            )
            self._classes: dict[int, Names] = {int(c["id"]): (str(c["name"]),) for c in self._content["categories"]}
            self._by_image: dict[int, list[Any]] = {}
            for annotation in self._content["annotations"]:
                self._by_image.setdefault(int(annotation["image_id"]), []).append(annotation)
        except InputFault as fault:
            raise DataError(self.where(self._file), None, fault.reason) from None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(self.where(self._file), None, f"not COCO annotations ({error!r})") from None
        strangers = set(self._by_image) - {image[0] for image in self._images}
        if strangers:
            raise DataError(self.where(self._file), None, f"annotations of image {min(strangers)}, which is not listed")
        del self._content

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index][1]

    def _open(self, index: int) -> Sample:
        _, name, height, width = self._images[index]
        sample = self.picture(f"{self._folder}/{name}")
        if sample.image.shape[:2] != (height, width):
            found = sample.image.shape[:2]
            raise InputFault(name, f"{found[0]} x {found[1]} pixels; {self._file} says {height} x {width}")
        return sample


class _MaskSource(_CocoSource):
    def read(self, index: int) -> Sample:
        """See Source: one layer for each class, the union of its objects."""
        sample = self._open(index)
        number, name, height, width = self._images[index]
        masks: dict[int, NDArray[np.bool_]] = {}
        for annotation in self._by_image.get(number, ()):
            try:
                kind = int(annotation["category_id"])
                mask = segment_mask(annotation["segmentation"], height, width)
            except (ValueError, KeyError, TypeError) as error:
                where = f"annotation {annotation.get('id')} of {self._file}"
                raise InputFault(name, f"{where}: {error}") from None
            if kind not in self._classes:
                raise InputFault(name, f"category {kind} is not in {self._file}")
            masks[kind] = masks[kind] | mask if kind in masks else mask
        for kind, mask in sorted(masks.items()):
            names = {0: (), 1: self._classes[kind]}
            sample.layers.append(Layer("object", mask.astype(np.uint8), names, self._file))
        return sample


class InstancesSource(_MaskSource):
    """instances_*.json; overlapping objects of one class unite, of different classes stay in planes of their own."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options, "annotations/instances_val2017.json", "val2017")


class StuffSource(_MaskSource):
    """stuff_*.json; its class "other" (everything that is a thing) is left out."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options, "annotations/stuff_val2017.json", "val2017")
        self._classes = {number: () if names == ("other",) else names for number, names in self._classes.items()}


class PanopticSource(_CocoSource):
    """panoptic_*.json with a folder of PNG files, segment id = R + 256 G + 65536 B, 0 unlabelled.

    Options as above and `masks` (default annotations/panoptic_val2017).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._masks = option(options, "masks", str, "annotations/panoptic_val2017")
        super().__init__(options, "annotations/panoptic_val2017.json", "val2017")

    def read(self, index: int) -> Sample:
        """See Source."""
        sample = self._open(index)
        number, name, _, _ = self._images[index]
        found = self._by_image.get(number, [])
        if len(found) != 1:
            raise InputFault(name, f"{len(found)} panoptic annotations; expected one")
        try:
            file = f"{self._masks}/{found[0]['file_name']}"
            kinds = {int(segment["id"]): int(segment["category_id"]) for segment in found[0]["segments_info"]}
            names = {segment: self._classes[kind] for segment, kind in kinds.items()}
        except (KeyError, ValueError, TypeError) as error:
            raise InputFault(name, f"panoptic annotation with a wrong or unknown {error}") from None
        rgb = self.mask(file, channels=True).astype(np.int64)
        numbers = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        sample.layers.append(Layer("object", numbers, {**names, 0: ()}, file))
        return sample
