"""An untrained copy: the same architecture with random weights, everything else as it was."""

from dataclasses import replace

from dissect import models
from dissect.request import RunRequest


def untrained(request: RunRequest, seed: int) -> RunRequest:
    """The request for an untrained copy of its network, drawn from a seed: same layers, data, preprocessing and method.

    Mean and standard deviation stay those of the trained network. Raises SpecError, UnsafeError where that cannot be
    loaded.
    """
    known = models.load(request.model, request.weights, request.trust, request.mean, request.std)
    model = "demo:untrained" if request.model == "demo" else request.model
    mean, std = known.preprocessing.mean, known.preprocessing.std
    return replace(request, model=model, weights=None, seed=seed, mean=mean, std=std)
