"""A network ready to be dissected."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dissect.errors import SpecError
from dissect.models.folding import fold_batch_norms
from dissect.models.preprocessing import Preprocessing, Triple
from dissect.models.sources import Architecture, find, last_layer
from dissect.models.weights import fit, read_weights, strip


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
    before them. cache_dir: where converted weights are kept. Nothing is downloaded, and torch's random state is left
    alone. Raises SpecError, UnsafeError, SpaceError.
    """
    with ThreadPoolExecutor(1) as pool:  # the child that reads weights works while the library of networks is imported
        reading = pool.submit(read_weights, weights, cache_dir) if weights is not None else None
        architecture = find(source, trust, seed)
        loaded = reading.result() if reading else None
    notes: list[str] = []
    preprocessing = architecture.preprocessing
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if loaded is None:
            module = architecture.build(None, {})
            if architecture.shipped_sha256 is None:
                notes.append(f"no --weights given: the network is random (seed {seed})")
        else:
            notes += loaded.notes
            module = _with_weights(architecture, loaded.tensors, notes)
            known = architecture.published(loaded.sha256)
            if known is not None:
                preprocessing = known
                notes.append(f"mean and standard deviation are {known.origin}, recognised by the hash of the file")
    module.eval().requires_grad_(False)
    if keep is not None:
        module = fold_batch_norms(module, keep, notes)
    return Model(
        module,
        architecture.source,
        loaded.sha256 if loaded else architecture.shipped_sha256,
        preprocessing.override(mean, std),
        tuple(notes),
    )


def _with_weights(architecture: Architecture, given: Mapping[str, Tensor], notes: list[str]) -> nn.Module:
    """The network with its weights, built for their number of classes."""
    module = architecture.build(None, given)
    own = module.state_dict()
    tensors = strip(given, own, notes)
    if tensors.keys() != given.keys():  # branches are chosen by the names as they are in the network
        module = architecture.build(None, tensors)
        own = module.state_dict()
    for name, wanted in _class_counts(own, tensors, architecture.classes):
        try:
            other = architecture.build(wanted, tensors)
        except TypeError:
            raise SpecError(
                f"the weights have {wanted} classes ({name}), {architecture.source} has {len(own[name])} and takes no "
                "num_classes"
            ) from None
        try:
            fit(other, tensors, architecture.source, notes)
        except SpecError:
            continue
        notes.append(f"{wanted} classes, read from the last layer of the weights")
        return other
    fit(module, tensors, architecture.source, notes)
    return module


def _class_counts(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], classes: int | None
) -> Iterator[tuple[str, int]]:
    """Numbers of classes that the weights may have, each with the tensor it is read from: the last layer, or for
    networks with several heads the first tensor of another length; `classes`: the network's own number, of which heads
    for boxes hold a multiple."""
    other = [
        name
        for name, value in own.items()
        if name in tensors and tensors[name].dim() == value.dim() > 1 and len(tensors[name]) != len(value)
    ]
    last = last_layer(own)
    for name in dict.fromkeys([*([last] if last in other else []), *other[:1]]):
        yield name, len(tensors[name])
        if classes and len(tensors[name]) * classes % len(own[name]) == 0:
            yield name, len(tensors[name]) * classes // len(own[name])
