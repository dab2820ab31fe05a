"""Concept data: images with label planes in Broden's format, read, checked, generated, unified and packed.

A leaf package: it knows NumPy and Pillow, and nothing of the rest of the product.

    data = broden.open("broden1_224")
    for batch in broden.stream(data, 32):
        ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from broden.building import BuildSpec as BuildSpec
    from broden.building import NameRules as NameRules
    from broden.building import build as build
    from broden.dataset import Dataset as Dataset
    from broden.dataset import open as open
    from broden.errors import BrodenError as BrodenError
    from broden.errors import DataError as DataError
    from broden.errors import InputFault as InputFault
    from broden.errors import SpaceFault as SpaceFault
    from broden.packing import pack as pack
    from broden.packing import unpack as unpack
    from broden.schema import Batch as Batch
    from broden.schema import Category as Category
    from broden.schema import Fault as Fault
    from broden.schema import ImageLabels as ImageLabels
    from broden.schema import Label as Label
    from broden.schema import LabelTable as LabelTable
    from broden.schema import Plane as Plane
    from broden.schema import Row as Row
    from broden.schema import Scalar as Scalar
    from broden.streaming import stream as stream
    from broden.synthetic import synth as synth
    from broden.verifying import verify as verify

_HOMES = {
    "BuildSpec": "building",
    "NameRules": "building",
    "build": "building",
    "pack": "packing",
    "unpack": "packing",
    "verify": "verifying",
    "Dataset": "dataset",
    "open": "dataset",
    "BrodenError": "errors",
    "DataError": "errors",
    "InputFault": "errors",
    "SpaceFault": "errors",
    "Batch": "schema",
    "Category": "schema",
    "Fault": "schema",
    "ImageLabels": "schema",
    "Label": "schema",
    "LabelTable": "schema",
    "Plane": "schema",
    "Row": "schema",
    "Scalar": "schema",
    "stream": "streaming",
    "synth": "synthetic",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'broden' has no attribute {name!r}")
    return getattr(import_module(f"broden.{_HOMES[name]}"), name)
