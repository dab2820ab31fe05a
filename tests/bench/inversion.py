"""Figures of `dissect.inversion` on real networks, each by one command:

    python -m tests.bench.inversion depth --data SHARED --net squeezenet     errors by depth, C = 100 and C = 1
    python -m tests.bench.inversion minimal --data SHARED                    box L-BFGS against PGD on 100 CIFAR photos
    python -m tests.bench.inversion batching                                 16 restarts at once against 16 single runs
    python -m tests.bench.inversion shares                                   what a fused kernel could save
    python -m tests.bench.inversion fooling --data SHARED                    MAP-Elites against random search

SHARED is the folder of weights and photos beside the checkout. Each prints one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dissect.process import tune

tune()  # before torch is imported: what the commands do

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dissect import models, ops
from dissect.inversion import adversarial, draws, elites, fooling, invert, patterns, preimages
from dissect.inversion.depth import blocks, rank_correlation
from dissect.inversion.engine import run
from dissect.inversion.network import Network
from dissect.inversion.pixels import InputRange
from dissect.inversion.retina import Retina
from dissect.inversion.sheet import contact_sheet, curves, image_files, read_image, write_bytes, write_png

IMAGENET = InputRange((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = InputRange((0.5,) * 3, (0.5,) * 3)


class Block(nn.Module):
    """Two convolutions; where the shape changes the shortcut is every second pixel, padded with zero units."""

    def __init__(self, before: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, units, 3, stride, 1, bias=False), nn.BatchNorm2d(units)
        self.conv2, self.bn2 = nn.Conv2d(units, units, 3, 1, 1, bias=False), nn.BatchNorm2d(units)
        self.extra = units - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))
        return F.relu(x + y)


class CifarResNet(nn.Module):
    """Depth 6 n + 2 for CIFAR-10, shortcuts without weights."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(n)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(n - 1)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def resnet(data: Path, name: str = "resnet20") -> Network:
    module = CifarResNet((int(name[6:]) - 2) // 6)
    module.load_state_dict(torch.load(data / "weights" / f"{name}_cifar10.pth", weights_only=True))
    return Network(module.requires_grad_(False), IMAGENET, (32, 32), name)


def network(data: Path, name: str, side: int) -> Network:
    if name.startswith("resnet"):
        return resnet(data, name)
    source, file, pixels = {
        "squeezenet": ("squeezenet1_1", "squeezenet1_1_imagenet.pth", IMAGENET),
        "mobilenet": ("mobilenet_v2", "mobilenet_v2_imagenet.pth", HALF),
    }[name]
    module = models.load(source, str(data / "weights" / file)).module
    return Network(module, pixels, (side, side), name)


def photos(data: Path, net: Network, count: int) -> Tensor:
    if net.size == (32, 32):
        stored = np.load(data / "images" / "cifar10_test_2000.npz")["images"]
        return net.pixels.from_uint8(stored[:: len(stored) // count][:count])
    files = image_files([data / "images" / "imagenet_1000"])
    chosen = files[207 :: len(files) // count][:count]
    return net.pixels.from_uint8(np.stack([read_image(file, net.size) for file in chosen]))


def depth(options: argparse.Namespace) -> dict[str, Any]:
    """Image error against depth, feature error, its ratio to C = 1, restart spread; the sheet and the curves."""
    net = network(options.data, options.net, options.side)
    z = photos(options.data, net, options.images)
    layers = options.layer or [name for name in blocks(net) if name not in {"bn1", "output"}]
    told: dict[float, list[dict[str, Any]]] = {}
    rows = [[image] for image in net.pixels.to_uint8(z)]
    for weight in (100.0, 1.0):
        recipe = preimages.Recipe(
            options.setting, weight, restarts=options.restarts, typical=options.typical, settle=options.settle,
            shorter=options.shorter,
        )  # fmt: skip
        told[weight] = []
        for layer in layers:
            found = invert.invert(net, z, layer, recipe)
            told[weight].append(found.summary())
            print(layer, weight, json.dumps(found.summary()), flush=True)
            if weight == 100:
                for row, images in zip(rows, found.images):
                    row.append(net.pixels.to_uint8(images)[0])
    write_png(options.out / f"{options.net}-depth.png", contact_sheet(rows, ["original", *layers], side=112))
    image_errors = [s["image_error"] for s in told[100.0]]
    series = {
        "image error, C = 100": image_errors,
        "feature error, C = 100": [s["feature_error"] for s in told[100.0]],
        "feature error, C = 1": [s["feature_error"] for s in told[1.0]],
        "restart spread": [s["restart_spread"] or 0.0 for s in told[100.0]],
    }
    svg = curves(series, layers, f"Inversion of {options.net}", "ratio of norms")
    write_bytes(options.out / f"{options.net}-depth.svg", svg.encode())
    ratio = [b["feature_error"] / a["feature_error"] for a, b in zip(told[100.0], told[1.0])]
    return {
        "net": options.net,
        "layers": layers,
        "image_error": image_errors,
        "spearman": rank_correlation(image_errors),
        "worst_feature_error": max(s["feature_error"] for s in told[100.0]),
        "feature_error": series["feature error, C = 100"],
        "gain_over_c1": ratio,
        "best_feature_error": [s["feature_error_best"] for s in told[100.0]],
        "best_gain_over_c1": [b["feature_error_best"] / a["feature_error_best"] for a, b in zip(*told.values())],
        "spread": series["restart spread"],
        "spread_spearman": rank_correlation(series["restart spread"]) if options.restarts > 1 else None,
        "seconds": sum(s["seconds"] for s in told[100.0]),
    }


def minimal(options: argparse.Namespace) -> dict[str, Any]:
    """Polished box L-BFGS against PGD with as many evaluations, both to each photo's runner-up class."""
    net = resnet(options.data)
    z = photos(options.data, net, options.images)
    targets = adversarial.runners_up(net, z)
    began = time.monotonic()
    attack = adversarial.minimal(net, z, targets, adversarial.Search(iterations=options.iterations))
    seconds = time.monotonic() - began
    budget = int(attack.evaluations.mean())
    baseline = adversarial.pgd_minimal(net, z, targets, budget)
    ratio = attack.norm / baseline.norm
    stored = adversarial.quantised_norm(net, attack, [1.0, 1.2, 1.5, 2.0, 3.0, 5.0])
    return {
        "images": len(z),
        "success": float(attack.success.mean()),
        "pgd_success": float(baseline.success.mean()),
        "worse_than_pgd": int((ratio > 1).sum()),
        "ratio_worst": float(ratio.max()),
        "ratio_mean": float(ratio.mean()),
        "search_alone_ratio_mean": float((attack.paper_norm / baseline.norm).mean()),
        "mean_norm": float(attack.norm.mean()),
        "mean_distortion": float(attack.distortion.mean()),
        "evaluations_per_image": budget,
        "quantised_success": float(adversarial.quantised_success(net, attack.images, attack.targets).mean()),
        "quantised_mean_norm": float(np.nanmean(stored)),
        "seconds": seconds,
    }


def he_network(side: int) -> Network:
    module = models.load("squeezenet1_1").module
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=torch.Generator().manual_seed(0))
    return Network(module, IMAGENET, (side, side))


def clock(*works: Callable[[], object], repeats: int) -> list[float]:
    """Least seconds of each of some works, done in turn: the processor's with one thread, less disturbed where others
    work, else wall."""
    tick = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in works]
    for repeat in range(repeats + 1):
        for work, seconds in zip(works, times):
            began = tick()
            work()
            if repeat:  # the first warms up
                seconds.append(tick() - began)
    return [min(seconds) for seconds in times]


def _task(net: Network, layer: str, count: int) -> Any:
    z = draws.uniform(draws.seeds(1, 1), (3, *net.size)) * 60
    codes = net.codes(z, layer).repeat_interleave(count, 0)
    recipe = preimages.Recipe(shorter=350 / 11)
    return preimages.plan(net, layer, recipe, codes, draws.seeds(0, count), preimages.typical(z, recipe))


def batching(options: argparse.Namespace) -> dict[str, Any]:
    """Time of 16 restarts in one batch over 16 single runs, and what the engine adds to forward and backward."""
    told: dict[str, Any] = {}
    for side, layer in ((224, "features.6"), (96, "features.12"), (48, "features.12")):
        net = he_network(side)
        sixteen, one = _task(net, layer, 16), _task(net, layer, 1)
        (start,) = sixteen.image.start(sixteen.seeds)

        def bare(net: Network = net, task: Any = sixteen, start: Tensor = start) -> None:
            height, width = net.size
            for _ in range(task.steps):
                z = start[:, :, :height, :width].detach().requires_grad_(True)
                torch.autograd.grad(task.objective(z, None).sum(), z)

        def by_hand(task: Any = sixteen, start: Tensor = start) -> None:
            """The same recipe part by part, without the engine."""
            x, state, random = start, (torch.zeros_like(start), torch.zeros_like(start)), draws.Draws(task.seeds, 0)
            phase = task.phases[0]
            for _ in range(task.steps):
                x = x.detach().requires_grad_(True)
                energy = task.objective(phase.transforms[0](x, random), random)
                energy = energy + sum(weight * prior(x) for weight, prior in task.priors)
                (gradient,) = torch.autograd.grad(energy.sum(), x)
                (x,), state = task.optimiser.step((x.detach(),), (gradient,), state, torch.ones(16), 0)
                x = phase.constraints[0](x, gradient, 0, 0.0)

        together, alone, plain, hand = clock(
            partial(run, sixteen), partial(run, one), bare, by_hand, repeats=options.repeats
        )
        told[f"{side} px, {layer}"] = {
            "batch_over_singles": together / (16 * alone),
            "engine_over_forward_backward": together / plain - 1,
            "parts_by_hand_over_forward_backward": hand / plain - 1,
            "ms_per_step_of_16": 1000 * together / sixteen.steps,
        }
    return told


def shares(options: argparse.Namespace) -> dict[str, Any]:
    """What part of a step is spent outside the network: the most that a fused kernel could give back."""
    net = he_network(224)
    task = _task(net, "features.12", 4)
    (start,) = task.image.start(task.seeds)

    def forward_backward() -> None:
        z = start[:, :, :224, :224].detach().requires_grad_(True)
        torch.autograd.grad(task.objective(z, None).sum(), z)

    def priors_and_step() -> None:
        z = start.detach().requires_grad_(True)
        total = sum(weight * prior(z) for weight, prior in task.priors)
        gradient = torch.autograd.grad(total.sum(), z)
        state = (torch.zeros_like(z), torch.zeros_like(z))
        (moved,), _ = task.optimiser.step((start,), gradient, state, torch.ones(4), 0)
        task.phases[0].constraints[0](moved, gradient[0], 0, 0.0)

    memory = (torch.zeros_like(start), torch.zeros_like(start))
    gradient, rate = torch.randn_like(start), torch.ones(4)
    ((_, prior),) = task.priors
    alpha, lengths, beta, variation = prior.scales(start)
    moved, rows = torch.empty_like(start), start.new_empty(4, start.shape[2], 2, dtype=torch.float64)

    def in_one_read() -> None:
        ops.descend(
            start, gradient, alpha, lengths, beta, variation, rate, 0.9, 0.9, 160.0, *memory, moved, rows
        )  # fmt: skip

    retina, gaze = Retina(30.0, 0.02), torch.full((4, 2), 112.0)
    rng = np.random.default_rng(0)
    genomes = [patterns.random_pattern(rng, 3) for _ in range(50)]
    for _ in range(20):
        genomes = [patterns.mutate(genome, rng) for genome in genomes]
    small = resnet_like()
    pictures = torch.rand(50, 3, 224, 224)
    works: dict[str, Callable[[], object]] = {
        "forward_backward_ms": forward_backward,
        "priors_step_bound_ms": priors_and_step,
        "the_same_in_one_read_ms": in_one_read,
        "retina_ms": lambda: retina(start[:, :, :224, :224], gaze),
        "render_50_patterns_224_ms": lambda: patterns.render(genomes, 224, 224),
        "judge_50_pictures_224_ms": lambda: elites.confidences(net, pictures, 1000),
        "render_50_patterns_32_ms": lambda: patterns.render(genomes, 32, 32),
        "judge_50_pictures_32_ms": lambda: elites.confidences(small, pictures[:, :, :32, :32], 10),
    }
    return {name: 1000 * seconds for name, seconds in zip(works, clock(*works.values(), repeats=options.repeats))}


def resnet_like() -> Network:
    return Network(CifarResNet(3).requires_grad_(False), IMAGENET, (32, 32), "resnet20, random")


def evolution(options: argparse.Namespace) -> dict[str, Any]:
    """Median confidence of an archive, and of random search with as many evaluations, on a CIFAR network."""
    net = resnet(options.data)
    told: dict[str, Any] = {}
    for name in fooling.ENCODINGS:
        code = fooling.encoding(name, net)
        for breed in (True, False):
            plan = elites.Plan(200, 200, options.generations, breed)
            archive = elites.evolve(net, code, plan)
            told[f"{name}, {'bred' if breed else 'random'}"] = {
                "evaluations": archive.evaluations,
                "median_confidence": float(np.median(archive.fitness)),
                "worst_confidence": float(archive.fitness.min()),
            }
            if breed:
                drawn = (code.draw(archive.genomes) * 255).round().byte().permute(0, 2, 3, 1).numpy()
                write_png(options.out / f"fooling-{name}.png", contact_sheet([list(drawn)], side=96))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    figures = {"depth": depth, "minimal": minimal, "batching": batching, "shares": shares, "fooling": evolution}
    parser.add_argument("figure", choices=figures)
    parser.add_argument("--data", type=Path, help="folder of weights and photos")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder of pictures (default bench)")
    parser.add_argument("--net", default="squeezenet", help="squeezenet, mobilenet, resnet20 …")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--layer", action="append", help="of the depth sheet, in its order (default: all)")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--typical", default="measured")
    parser.add_argument("--setting", default="spectrum", help="ijcv16 or spectrum (default)")
    parser.add_argument("--settle", type=int, default=650)
    parser.add_argument("--shorter", type=float, default=1.0, help="divides the steps; below 1 there are more")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(figures[options.figure](options)))


if __name__ == "__main__":
    main()
