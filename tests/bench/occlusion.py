"""Incremental occlusion against a batched brute force, both in this run: `python -m tests.bench.occlusion`.

Both compute the same scores for the same windows (224 px, 16 px patch, stride 8: 729 windows). The brute force is given
the faster of the two memory layouts and its best of several batch sizes on a sample of windows; its time is that of a
sample of windows, scaled, unless --full. Compared are CPU seconds on one thread, best of --repeats; wall seconds stand
beside them. Weights are random (He), as speed does not depend on them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from dissect.attribution.network import OUTPUT, Network
from dissect.attribution.occlusion.occlude import masked_images, masked_patches, occluded_outputs, prepare_engine
from dissect.attribution.occlusion.occluders import find_occluder
from dissect.attribution.occlusion.windows import make_windows
from dissect.attribution.targets import class_target

BARS = {"vgg16": 6.0, "alexnet": 2.5, "resnet18": 1.6}


def he(module: nn.Module) -> None:
    """Random weights that keep the scale of the activations, and batch norms that do something."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.8, 1.2)


def timed(work: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """(wall seconds, CPU seconds, result). On a machine that others use, only the second can be compared."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - begin, time.process_time() - cpu, result


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

    wall, cpu, ours = min((timed(incremental) for _ in range(repeats)), key=lambda row: row[1])

    chosen = torch.linspace(0, len(windows) - 1, min(sample, len(windows))).long()
    part = windows[chosen]
    images = masked_images(x, masked_patches(network, x, part, grey, 0), part)
    brute_wall, brute, layout, brute_batch, theirs = float("inf"), float("inf"), "", 0, ours
    for memory, label in ((torch.contiguous_format, "NCHW"), (torch.channels_last, "channels last")):
        module.to(memory_format=memory)
        fed = images.contiguous(memory_format=memory)
        for step in (8, 16, 32):

            def forward(step: int = step, fed: Tensor = fed) -> Tensor:
                with torch.no_grad():
                    return torch.cat([module(fed[i : i + step]) for i in range(0, len(fed), step)])

            seconds, used, out = min((timed(forward) for _ in range(repeats)), key=lambda row: row[1])
            if used < brute:
                brute_wall, brute, layout, brute_batch, theirs = seconds, used, label, step, out
    gap = float((ours[chosen] - theirs).abs().max() / theirs.abs().max())
    share = len(windows) / len(part)
    return {
        "model": name,
        "windows": len(windows),
        "incremental_cpu_s": round(cpu, 3),
        "brute_force_cpu_s": round(brute * share, 3),
        "brute_force_layout": layout,
        "brute_force_batch": brute_batch,
        "speedup_cpu": round(brute * share / cpu, 2),
        "speedup_wall": round(brute_wall * share / wall, 2),
        "bar": BARS.get(name),
        "relative_difference": gap,
        "threads": torch.get_num_threads(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(BARS), help="torchvision names")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64, help="windows in one incremental pass")
    parser.add_argument("--sample", type=int, default=96, help="windows that the brute force really does")
    parser.add_argument("--full", action="store_true", help="the brute force does them all")
    parser.add_argument("--repeats", type=int, default=2, help="the best of this many")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    missed = []
    for name in options.models:
        sample = sys.maxsize if options.full else options.sample
        row = measure(name, options.size, options.patch, options.stride, options.batch, sample, options.repeats)
        print(json.dumps(row), flush=True)
        if name in BARS and float(str(row["speedup_cpu"])) < BARS[name]:
            missed.append(name)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
