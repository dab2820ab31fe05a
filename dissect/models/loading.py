"""A network ready to be dissected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from dissect.errors import SpecError
from dissect.models.folding import fold_batch_norms
from dissect.models.preprocessing import Preprocessing, Triple
from dissect.models.sources import Architecture, find, last_layer
from dissect.models.weights import fit, read_weights


@dataclass(frozen=True)
class Model:
    """A module in eval mode whose parameters need no gradient, how its input is made, and what was done to get it."""

    module: nn.Module
    source: str
    weights_sha256: str | None
    preprocessing: Preprocessing
    notes: tuple[str, ...]


def load(
    source: str,
    weights: str | Path | None = None,
    trust: str | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    keep: Sequence[str] | None = None,
    cache_dir: Path | None = None,
    seed: int = 0,
) -> Model:
    """Build the network that MODEL names and load its weights; without weights it is random, from `seed`.

    keep: layers that will be read; where given, batch norms that no one reads are folded into the convolutions
    before them. cache_dir: where converted weights are kept.
    Raises SpecError, UnsafeError.
    """
    architecture = find(source, trust, seed)
    notes: list[str] = []
    loaded = read_weights(weights, cache_dir) if weights is not None else None
    torch.manual_seed(seed)
    module = architecture.build(None)
    if loaded is not None:
        notes += loaded.notes
        own = module.state_dict()
        last = last_layer(own)
        if last is not None and last in loaded.tensors and loaded.tensors[last].dim() == own[last].dim():
            module = _with_classes(architecture, module, len(own[last]), len(loaded.tensors[last]), notes)
        fit(module, loaded, architecture.source)
    elif not source.startswith("demo"):
        notes.append(f"no --weights given: the network is random (seed {seed})")
    module.eval().requires_grad_(False)
    if keep is not None:
        module = fold_batch_norms(module, keep, notes)
    return Model(
        module,
        architecture.source,
        loaded.sha256 if loaded else None,
        architecture.preprocessing.override(mean, std),
        tuple(notes),
    )


def _with_classes(architecture: Architecture, module: nn.Module, own: int, wanted: int, notes: list[str]) -> nn.Module:
    """The network, built again where the weights have another number of classes."""
    if wanted == own:
        return module
    try:
        module = architecture.build(wanted)
    except TypeError:
        raise SpecError(f"the weights have {wanted} classes, {architecture.source} has {own}") from None
    notes.append(f"{wanted} classes, read from the last layer of the weights")
    return module
