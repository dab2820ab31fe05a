"""Finished passes of a run that takes several: kept as files, so that a killed run does not begin them again."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

import broden
from dissect import checkpoint
from dissect.errors import SpaceError
from dissect.exemplars import Exemplars
from dissect.labels import LabelTotals
from dissect.results import LayerResult
from dissect.setting import Setting
from dissect.shelf import Shelf
from dissect.statistics.null import Null

_ARRAYS = ("threshold", "low", "high", "mean", "std", "nonfinite", "area", "mask", "peaks")
_BLOCKS = ("block_intersection", "block_area")


def save_pass(
    setting: Setting, shelf: Shelf, number: int, pieces: list[LayerResult], totals: LabelTotals
) -> list[LayerResult]:
    """Keep what a pass found, and give it back with its counts out of memory. Where the disk is full, this costs a
    killed run its progress and this run memory, not its result."""
    arrays = {"totals/area": totals.block_area, "totals/images": totals.images}
    arrays["totals/held"] = np.concatenate(totals.holding)
    arrays["totals/start"] = np.cumsum([len(held) for held in totals.holding])
    shelved = []
    for i, piece in enumerate(pieces):
        arrays |= {f"{i}/{name}": getattr(piece, name) for name in _ARRAYS + _BLOCKS}
        if piece.null is not None:
            arrays |= {f"{i}/null/observed": piece.null.observed, f"{i}/null/drawn": piece.null.drawn}
        arrays |= {f"{i}/exemplars/{f.name}": getattr(piece.exemplars, f.name) for f in fields(Exemplars)}
    meta = {
        "null_images": [piece.null.images if piece.null else 0 for piece in pieces],
        "pieces": [[piece.layer, list(piece.map_size), piece.n, piece.k] for piece in pieces],
        "faults": [list(setting.faults[position]) for position in sorted(setting.faults)],
    } | setting.plan.cut
    try:
        for piece, part in zip(pieces, setting.plan.passes[number]):
            layer = setting.method.layers.index(part.layer)
            shelf.put(layer, part.first, piece.intersection)
            shelved.append(replace(piece, intersection=shelf.get(layer, part.first, part.last)))
        checkpoint.save(_file(setting, number), checkpoint.State(meta, arrays))
    except SpaceError as error:
        setting.announce(f"{error}; going on without")
    return shelved + pieces[len(shelved) :]


def load_pass(setting: Setting, shelf: Shelf, number: int) -> tuple[list[LayerResult], LabelTotals] | None:
    """What a pass found, and the faults that it met; None where it is still to be done."""
    state = checkpoint.load(_file(setting, number))
    if state is None or not setting.plan.cut.items() <= state.meta.items():
        return None
    for fault in state.meta["faults"]:
        setting.set_aside(broden.Fault(*fault))
    pieces = []
    for i, (layer, size, n, k) in enumerate(state.meta["pieces"]):
        own: dict[str, Any] = {name: state.arrays[f"{i}/{name}"] for name in _ARRAYS + _BLOCKS}
        top = Exemplars(**{f.name: state.arrays[f"{i}/exemplars/{f.name}"] for f in fields(Exemplars)})
        images = state.meta["null_images"][i]
        null = Null(images, *(state.arrays[f"{i}/null/{name}"] for name in ("observed", "drawn"))) if images else None
        part = setting.plan.passes[number][i]
        own["intersection"] = shelf.get(setting.method.layers.index(layer), part.first, part.last)
        pieces.append(LayerResult(layer, (size[0], size[1]), n, k, exemplars=top, histogram=None, null=null, **own))
    totals = LabelTotals(len(setting.primary), len(state.arrays["totals/area"]))
    totals.block_area, totals.images = state.arrays["totals/area"], state.arrays["totals/images"]
    totals.holding = np.split(state.arrays["totals/held"], state.arrays["totals/start"][:-1])
    return pieces, totals


def _file(setting: Setting, number: int) -> Path:
    return setting.resources.folder / f"pass-{number}.npz"
