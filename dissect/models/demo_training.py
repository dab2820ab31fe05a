"""Train the demo network from random initialisation on what synthetic pictures show as a whole.

    python -m dissect.models.demo_training --out dissect/assets/demo.safetensors --images 4000 --epochs 14 --seed 0

The pictures have another seed than those of the demo. No label plane is read: the only supervision are the facts of
each image (main object, texture, scene, main colour). The same arguments on the same machine give the same bytes.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

import broden
from broden.synthetic import read_facts
from dissect.models import demo
from dissect.progress import Progress

THREADS = 1
"""One, so that no sum depends on the number of cores."""
UNKNOWN = -100
"""No answer: the image takes no part in that head's loss."""


@dataclass(frozen=True)
class Settings:
    """What decides the bytes of the result, together with the machine."""

    images: int = 4000
    epochs: int = 14
    seed: int = 0
    batch_size: int = 64
    rate: float = 4e-3
    decay: float = 5e-4
    size: int = demo.SIZE

    @property
    def data_seed(self) -> int:
        """Seed of the training pictures; the demo's are made with seed 0."""
        return self.seed + 1


@dataclass(frozen=True)
class Pictures:
    """images uint8 [N, 3, S, S], answers int64 [N, heads] (class of each head, UNKNOWN where there is none)."""

    images: Tensor
    answers: Tensor


def pictures(count: int, size: int, seed: int) -> Pictures:
    """Generate pictures and read back their images and facts."""
    with tempfile.TemporaryDirectory(prefix="dissect-demo-") as folder:
        data = broden.synth(Path(folder) / "set", images=count, size=size, seed=seed)
        facts = read_facts(data.root)
        images = torch.empty(count, 3, size, size, dtype=torch.uint8)
        answers = torch.full((count, len(demo.HEADS)), UNKNOWN)
        for i, row in enumerate(data.rows):
            images[i] = torch.from_numpy(data.read_image(i).copy()).permute(2, 0, 1)
            for h, (head, names) in enumerate(demo.HEADS.items()):
                answer = getattr(facts[row.image], head) or "nothing"
                if answer in names:
                    answers[i, h] = names.index(answer)
    return Pictures(images, answers)


def inputs(images: Tensor) -> Tensor:
    """uint8 [B, 3, S, S] -> what the network takes."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (demo.MEAN, demo.STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


def loss_of(logits: Tensor, answers: Tensor) -> Tensor:
    """Sum over heads of the mean cross entropy over the images that have an answer."""
    losses = [
        functional.cross_entropy(logits[:, span], answers[:, h], ignore_index=UNKNOWN)
        for h, span in enumerate(demo.spans().values())
        if bool((answers[:, h] != UNKNOWN).any())
    ]
    return torch.stack(losses).sum()


@dataclass(frozen=True)
class Trained:
    """The network in eval mode and the mean loss of each epoch."""

    network: nn.Module
    losses: tuple[float, ...]


def train(settings: Settings, announce: Callable[[str], None] = lambda line: None) -> Trained:
    """Train from random initialisation; torch's random state and settings are put back."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            return _train(settings, announce)
    finally:
        torch.use_deterministic_algorithms(before)


def _train(settings: Settings, announce: Callable[[str], None]) -> Trained:
    data = pictures(settings.images, settings.size, settings.data_seed)
    torch.manual_seed(settings.seed)
    network = demo.build().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=settings.decay)
    steps = -(-settings.images // settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.rate, total_steps=steps * settings.epochs)
    progress = Progress("train", settings.images * settings.epochs)
    losses = []
    for epoch in range(settings.epochs):
        total = 0.0
        for chosen in torch.randperm(settings.images).split(settings.batch_size):
            x = data.images[chosen]
            mirrored = torch.rand(len(chosen)) < 0.5
            x[mirrored] = x[mirrored].flip(3)
            loss = loss_of(network(inputs(x)), data.answers[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
            progress.advance(len(chosen))
        losses.append(total / settings.images)
        progress.close()
        announce(f"epoch {epoch + 1}/{settings.epochs}: loss {losses[-1]:.3f}")
    return Trained(network.eval().to(memory_format=torch.contiguous_format), tuple(losses))


def accuracy(network: nn.Module, data: Pictures) -> dict[str, float]:
    """Share of right answers of each head over the images that have one."""
    with torch.inference_mode():
        logits = torch.cat([network(inputs(part)) for part in data.images.split(64)])
    found = {}
    for h, (head, span) in enumerate(demo.spans().items()):
        known = data.answers[:, h] != UNKNOWN
        right = logits[:, span].argmax(1) == data.answers[:, h]
        found[head] = round(float(right[known].float().mean()), 3) if bool(known.any()) else 0.0
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write the weights and beside them the card."""
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m dissect.models.demo_training", description="Train the network of `dissect demo`."
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--images", type=int, default=defaults.images, metavar="N", help="default %(default)s")
    parser.add_argument("--epochs", type=int, default=defaults.epochs, metavar="E", help="default %(default)s")
    parser.add_argument("--seed", type=int, default=defaults.seed, metavar="S", help="default %(default)s")
    options = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    settings = Settings(options.images, options.epochs, options.seed)
    made = train(settings, lambda line: print(line, file=sys.stderr))
    found = accuracy(made.network, pictures(max(50, settings.images // 10), settings.size, settings.data_seed + 1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(made.network.state_dict(), options.out)
    options.out.with_suffix(".json").write_text(json.dumps(card(settings, made, found, options.out), indent=1) + "\n")
    print(f"{options.out}: right answers on pictures not seen: {found}", file=sys.stderr)
    return 0


def card(settings: Settings, made: Trained, found: dict[str, float], path: Path) -> dict[str, object]:
    """What one should know about the weights."""
    command = (
        f"python -m dissect.models.demo_training --out FILE --images {settings.images} --epochs {settings.epochs} "
        f"--seed {settings.seed}"
    )
    return {
        "name": "demo",
        "architecture": "dissect.models.demo.DemoNet",
        "parameters": sum(value.numel() for value in made.network.parameters()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "training": command,
        "initialisation": f"random, seed {settings.seed}",
        "data": f"{settings.images} synthetic pictures of {settings.size} x {settings.size}, seed {settings.data_seed}",
        "supervision": "classes of whole images only (main object, texture, scene, main colour); no masks",
        "accuracy": found,
        "losses": [round(loss, 4) for loss in made.losses],
        "torch": torch.__version__,
        "mean": demo.MEAN,
        "std": demo.STD,
        "layer": demo.LAYER,
        "classes": {head: list(names) for head, names in demo.HEADS.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
