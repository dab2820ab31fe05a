"""Sources of labelled images: one small adapter for each layout on disk, all behind `Source`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from broden.errors import DataError
from broden.sources.base import Layer, Names, Sample, Source

KINDS = {
    "broden": ("broden_set", "BrodenSource"),
    "ade20k": ("ade20k", "Ade20kSource"),
    "sceneparsing": ("ade20k", "SceneParsingSource"),
    "voc": ("pascal", "VocSource"),
    "pascal-context": ("pascal", "ContextSource"),
    "pascal-part": ("pascal", "PartSource"),
    "opensurfaces": ("opensurfaces", "OpenSurfacesSource"),
    "dtd": ("dtd", "DtdSource"),
    "coco-instances": ("coco", "InstancesSource"),
    "coco-stuff": ("coco", "StuffSource"),
    "coco-panoptic": ("coco", "PanopticSource"),
    "cityscapes": ("streets", "CityscapesSource"),
    "camvid": ("streets", "CamVidSource"),
    "folder": ("folder", "PlainSource"),
    "parquet": ("parquet", "ParquetSource"),
    "tar": ("tar", "TarSource"),
}
"""Kinds that a spec can name. Any other set of pairs comes in through `broden.sources.sequence`."""


def open_source(table: Mapping[str, Any]) -> Source:
    """A source from a table of a spec: `kind`, `name`, `path` and what the kind takes. Raises DataError."""
    options = dict(table)
    kind = options.pop("kind", None)
    if kind not in KINDS:
        raise DataError("spec", None, f"source kind is {kind!r}; expected one of {', '.join(KINDS)}")
    module, name = KINDS[kind]
    try:
        source: Source = getattr(import_module(f"broden.sources.{module}"), name)(options)
    except DataError as error:
        if error.file == "spec":
            raise DataError("spec", None, f"source of kind {kind}: {error.reason}") from None
        raise
    if options:
        raise DataError("spec", None, f"source of kind {kind} has no option {min(options)!r}")
    return source


__all__ = ["KINDS", "Layer", "Names", "Sample", "Source", "open_source"]
