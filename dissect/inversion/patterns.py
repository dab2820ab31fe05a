"""Compositional pattern-producing networks that evolve (Stanley 2007; Nguyen et al. 2015), rendered many at a time.

A genome is a small graph: 4 inputs (x, y, distance to the centre, bias), hidden neurons in an order that every
connection follows, outputs last (lightness; or hue, lightness, saturation).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dissect import ops, reference

INPUTS = 4
REACH = 10.0  # weights lie in -REACH … REACH
KINDS = ("sine", "sigmoid", "gaussian", "linear")
MOST = 48  # neurons of a genome

# Chances of the five structural changes of a child, as shipped by the authors.
ADD_LINK, DROP_LINK, CHANGE_LINK, ADD_NEURON, DROP_NEURON = 0.5, 0.3, 0.5, 0.5, 0.2
ETA = 15.0


@dataclass(frozen=True)
class Pattern:
    """kinds int8 [n] of all neurons (inputs: -1); weights float32 [n, n], row = receiver, NaN = no connection."""

    kinds: np.ndarray
    weights: np.ndarray

    @property
    def outputs(self) -> int:
        return int((self.kinds == -2).sum())


def polynomial(rng: np.random.Generator, shape: tuple[int, ...], eta: float = ETA) -> np.ndarray:
    """Steps in -1 … 1 of polynomial mutation (Deb & Agrawal 1999): density (eta + 1) / 2 (1 - |d|)^eta."""
    u = rng.random(shape)
    power = 1 / (eta + 1)
    return np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)


def random_pattern(rng: np.random.Generator, outputs: int) -> Pattern:
    """Inputs joined to outputs at random, and up to three neurons more."""
    n = INPUTS + outputs
    kinds = np.full(n, -1, np.int8)
    kinds[INPUTS:] = -2
    weights = np.full((n, n), np.nan, np.float32)
    joined = rng.random((outputs, INPUTS)) < 0.7
    weights[INPUTS:, :INPUTS] = np.where(joined, rng.uniform(-REACH, REACH, (outputs, INPUTS)) / 3, np.nan)
    pattern = Pattern(kinds, weights)
    for _ in range(int(rng.integers(0, 4))):
        pattern = _add_neuron(pattern, rng)
    return pattern


def _links(pattern: Pattern) -> np.ndarray:
    """[L, 2] (receiver, sender) of the connections there are."""
    return np.argwhere(~np.isnan(pattern.weights))


def _add_neuron(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """A neuron on a connection: the old weight behind it, a 1 before it."""
    links = _links(pattern)
    n = len(pattern.kinds)
    if not len(links) or n >= MOST:
        return pattern
    receiver, sender = links[rng.integers(len(links))]
    hidden_end = n - pattern.outputs
    low, high = max(INPUTS, sender + 1), min(int(receiver), hidden_end)
    at = int(rng.integers(low, high + 1)) if high >= low else low
    kinds = np.insert(pattern.kinds, at, rng.integers(len(KINDS)))
    weights = np.insert(np.insert(pattern.weights, at, np.nan, 0), at, np.nan, 1)
    receiver, sender = receiver + (receiver >= at), sender + (sender >= at)
    weights[at, sender] = 1.0
    weights[receiver, at] = weights[receiver, sender]
    weights[receiver, sender] = np.nan
    return Pattern(kinds, weights)


def _drop_neuron(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    hidden = len(pattern.kinds) - INPUTS - pattern.outputs
    if hidden < 1:
        return pattern
    at = INPUTS + int(rng.integers(hidden))
    return Pattern(np.delete(pattern.kinds, at), np.delete(np.delete(pattern.weights, at, 0), at, 1))


def _add_link(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    n = len(pattern.kinds)
    receivers, senders = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    free = np.isnan(pattern.weights) & (senders < receivers) & (receivers >= INPUTS) & (senders < n - pattern.outputs)
    places = np.argwhere(free)
    if not len(places):
        return pattern
    weights = pattern.weights.copy()
    weights[tuple(places[rng.integers(len(places))])] = rng.uniform(-REACH, REACH)
    return Pattern(pattern.kinds, weights)


def _drop_link(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    links = _links(pattern)
    if not len(links):
        return pattern
    weights = pattern.weights.copy()
    weights[tuple(links[rng.integers(len(links))])] = np.nan
    return Pattern(pattern.kinds, weights)


def mutate(pattern: Pattern, rng: np.random.Generator) -> Pattern:
    """A child: structure and weights change by chance; a tenth of the hidden neurons change their function."""
    if rng.random() < ADD_LINK:
        pattern = _add_link(pattern, rng)
    if rng.random() < DROP_LINK:
        pattern = _drop_link(pattern, rng)
    if rng.random() < ADD_NEURON:
        pattern = _add_neuron(pattern, rng)
    if rng.random() < DROP_NEURON:
        pattern = _drop_neuron(pattern, rng)
    moved = (rng.random(pattern.weights.shape) < CHANGE_LINK) * polynomial(rng, pattern.weights.shape) * (2 * REACH)
    weights = np.clip(pattern.weights + moved, -REACH, REACH).astype(np.float32)
    switch = (pattern.kinds >= 0) & (rng.random(len(pattern.kinds)) < 0.1)
    kinds = np.where(switch, rng.integers(len(KINDS), size=len(pattern.kinds)), pattern.kinds).astype(np.int8)
    return Pattern(kinds, weights)


def _places(height: int, width: int, raw: bool) -> np.ndarray:
    """[4, h * w] x, y, distance, bias: -1 … 1; `raw` feeds x and y as pixel numbers, as the authors' code does."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    even_y, even_x = (y - middle_y) / max(middle_y, 0.5), (x - middle_x) / max(middle_x, 0.5)
    distance = np.hypot(even_y, even_x) / math.sqrt(2)
    one = np.ones_like(x)
    return np.stack([x if raw else even_x, y if raw else even_y, distance, one]).reshape(4, -1)


@torch.no_grad()
def render(patterns: list[Pattern], height: int, width: int, raw: bool = False, device: str = "cpu") -> Tensor:
    """All patterns as pixels 0 … 1, [P, 1 or 3, h, w] by their outputs."""
    links = [_links(pattern) for pattern in patterns]
    sizes = np.array([len(pattern.kinds) for pattern in patterns])
    first = np.concatenate([[0], sizes.cumsum()])
    receivers = np.concatenate([one[:, 0] + at for one, at in zip(links, first)])
    kinds, neuron_start, link_start, sender, weight, places = map(
        torch.from_numpy,
        (
            np.concatenate([pattern.kinds for pattern in patterns]),
            first,
            np.concatenate([[0], np.bincount(receivers, minlength=first[-1]).cumsum()]),
            np.concatenate([one[:, 1] for one in links]).astype(np.int32),
            np.concatenate([pattern.weights[tuple(one.T)] for pattern, one in zip(patterns, links)]),
            _places(height, width, raw),
        ),
    )
    out = torch.empty(len(patterns), patterns[0].outputs, height * width, device=device)
    draw = ops.render_patterns if ops.answers(out) else reference.render_patterns
    draw(
        kinds.to(device), neuron_start.to(device), link_start.to(device), sender.to(device), weight.to(device),
        places.to(device), out,
    )  # fmt: skip
    return out.unflatten(2, (height, width))


def pack(patterns: list[Pattern]) -> dict[str, np.ndarray]:
    """Patterns as flat arrays for a state file."""
    return {
        "sizes": np.array([len(p.kinds) for p in patterns], np.int64),
        "kinds": np.concatenate([p.kinds for p in patterns]),
        "weights": np.concatenate([p.weights.ravel() for p in patterns]),
    }


def unpack(arrays: dict[str, np.ndarray]) -> list[Pattern]:
    patterns, at, w_at = [], 0, 0
    for n in arrays["sizes"].tolist():
        weights = arrays["weights"][w_at : w_at + n * n].reshape(n, n)
        patterns.append(Pattern(arrays["kinds"][at : at + n], weights))
        at, w_at = at + n, w_at + n * n
    return patterns
