"""Incremental occlusion against a batched brute force, both in this run: `python -m tests.bench.occlusion`.

Both compute the same scores for the same windows (224 px, 16 px patch, stride 8: 729 windows). The brute force is given
the faster of two memory layouts and of three batch sizes, tried first on a few windows; its time is that of a sample of
windows, scaled, unless --full. Then both take turns for --repeats rounds, so that whoever else uses the machine is in
the way of both. Compared are CPU seconds of one thread: the speed-up is the median over the rounds, `rounds` holds all.
Weights are random (He), as speed does not depend on them.
"""

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision
from torch import Tensor, nn

from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.occlusion.engine import masked_images, masked_patches, occluded_outputs, prepare_engine
from dissect.attribution.occlusion.occluders import find_occluder
from dissect.attribution.occlusion.windows import make_windows
from dissect.attribution.targets import class_target

BARS = {"vgg16": 6.0, "alexnet": 2.5, "resnet18": 1.6}
LAYOUTS = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
BATCHES = (8, 16, 32)


def he(module: nn.Module) -> None:
    """Random weights that keep the scale of the activations, and batch norms that do something."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.8, 1.2)


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """(CPU seconds, result). On a machine that others use, wall seconds cannot be compared."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


@dataclass(frozen=True)
class Brute:
    """Masked images through the whole network, in the layout and batch that suit it best."""

    module: nn.Module
    layout: str
    batch: int

    def __call__(self, images: Tensor) -> Tensor:
        fed = images.contiguous(memory_format=LAYOUTS[self.layout])
        with torch.no_grad():
            return torch.cat([self.module(part) for part in fed.split(self.batch)])

    @classmethod
    def fastest(cls, module: nn.Module, images: Tensor) -> "Brute":
        """The best of all layouts and batches on these images; the first forward of each layout does not count."""
        found: list[tuple[float, Brute]] = []
        for layout, memory in LAYOUTS.items():
            laid = copy.deepcopy(module).to(memory_format=memory)
            cls(laid, layout, BATCHES[0])(images[: BATCHES[0]])
            for batch in BATCHES:
                one = cls(laid, layout, batch)
                found.append((timed(lambda one=one: one(images))[0], one))
        return min(found, key=lambda pair: pair[0])[1]


def measure(name: str, size: int, patch: int, stride: int, batch: int, sample: int, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).eval()
    he(module)
    network = Network(module, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), name)
    x = torch.randn(1, 3, size, size)
    windows, target, grey = make_windows(size, size, patch, stride), class_target(1), find_occluder("grey")
    engine = prepare_engine(network, x, OUTPUT, "incremental")

    def incremental() -> Tensor:
        out = torch.empty(len(windows), 1000)
        for chosen, part in occluded_outputs(network, x, target, windows, grey, engine, batch):
            out[chosen] = part
        return out

    chosen = torch.linspace(0, len(windows) - 1, min(sample, len(windows))).long()
    part = windows[chosen]
    images = masked_images(x, masked_patches(network, x, part, grey, 0), part)
    brute = Brute.fastest(module, images[: max(BATCHES)])
    share = len(windows) / len(part)
    rounds = []
    for _ in range(repeats):
        ours_s, ours = timed(incremental)
        theirs_s, theirs = timed(lambda: brute(images))
        rounds.append((ours_s, theirs_s * share))
    ratios = [theirs_s / ours_s for ours_s, theirs_s in rounds]
    return {
        "model": name,
        "windows": len(windows),
        "incremental_cpu_s": round(min(ours_s for ours_s, _ in rounds), 3),
        "brute_force_cpu_s": round(min(theirs_s for _, theirs_s in rounds), 3),
        "brute_force_layout": brute.layout,
        "brute_force_batch": brute.batch,
        "brute_force_windows": len(part),
        "speedup": round(statistics.median(ratios), 2),
        "rounds": [round(ratio, 2) for ratio in ratios],
        "bar": BARS.get(name),
        "relative_difference": float((ours[chosen] - theirs).abs().max() / theirs.abs().max()),
        "threads": torch.get_num_threads(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(BARS), help="torchvision names")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="windows in one incremental pass")
    parser.add_argument("--sample", type=int, default=64, help="windows that the brute force really does")
    parser.add_argument("--full", action="store_true", help="the brute force does them all")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    missed = []
    for name in options.models:
        sample = sys.maxsize if options.full else options.sample
        row = measure(name, options.size, options.patch, options.stride, options.batch, sample, options.repeats)
        print(json.dumps(row), flush=True)
        if name in BARS and float(str(row["speedup"])) < BARS[name]:
            missed.append(name)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
