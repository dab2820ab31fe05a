"""DeepDream: whatever a layer sees in a picture, more of it, from coarse to fine; and the film that falls into it.

Settings of google/deepdream: normalised steps of 1.5 bytes, 10 of them on each of 4 octaves of ratio 1.4, jitter of 32
pixels, half the squared norm of the code as the objective.
"""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from dissect.errors import DissectError, SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import Box
from dissect.inversion.engine import Watcher, run
from dissect.inversion.images import Pixels
from dissect.inversion.network import Network
from dissect.inversion.objectives import At, Guided, HalfNorm, Score
from dissect.inversion.optimisers import Normalised
from dissect.inversion.sheet import read_image, write_bytes, write_png
from dissect.inversion.state import fingerprint
from dissect.inversion.task import Phase, Task
from dissect.inversion.transforms import Roll, octave_sizes, resize, warp


@dataclass(frozen=True)
class Recipe:
    """The published settings; step in bytes. `smallest`: side under which an octave makes no sense for the network."""

    layer: str
    octaves: int = 4
    ratio: float = 1.4
    iterations: int = 10
    step: float = 1.5
    jitter: int = 32
    smallest: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.step <= 0 or self.jitter < 0:
            raise SpecError(
                "expected iterations >= 1, step > 0 and jitter >= 0, "
                f"found {self.iterations}, {self.step} and {self.jitter}"
            )


@dataclass
class Dream:
    """image z [B, C, h, w]; octaves: (height, width, objective at its first and at its last step) of each."""

    image: Tensor
    octaves: list[tuple[int, int, float, float]]


def guide_places(network: Network, layer: str, guide: Tensor) -> Tensor:
    """The codes of all places of a guide z [1, C, h, w], [U, places]."""
    code = network.codes(guide, layer)
    if code.dim() != 4:
        raise SpecError(f"layer {layer!r} has no map, so nothing in it can guide a dream: choose a convolutional layer")
    return code[0].flatten(1)


def dream(
    network: Network, original: Tensor, recipe: Recipe, guide: Tensor | None = None, watch: Watcher | None = None
) -> Dream:
    """Dream on z [B, C, h, w] of any size that the layer takes. guide [U, places] of `guide_places`.

    The octave's detail, what the dream added to the picture, is enlarged and put on the next base. Raises SpecError
    where the smallest octave is too small.
    """
    network.shape(recipe.layer)
    height, width = original.shape[2:]
    sizes = octave_sizes(height, width, recipe.octaves, recipe.ratio, recipe.smallest)
    score: Score = HalfNorm() if guide is None else Guided(guide)
    detail = torch.zeros_like(original[:, :, :1, :1])
    image, told = original, []
    for number, (tall, wide) in enumerate(sizes):
        base = resize(original, tall, wide)
        start = base + resize(detail, tall, wide) if number else base
        # The seed is the octave's own, so that its jitter is not the last one's again.
        seeds = draws.seeds(recipe.seed * 1000 + number, len(original))
        reach = min(recipe.jitter, min(tall, wide) // 2)
        phase = Phase(recipe.iterations, recipe.step, transforms=(Roll(reach),), constraints=(Box(network.pixels),))
        try:
            task = Task(At(network, recipe.layer, score), Pixels(start), (phase,), Normalised(), seeds)
            outcome = run(task, watch=watch)
        except RuntimeError as error:
            if isinstance(error, DissectError):
                raise
            reason = str(error).strip().splitlines()[0]
            raise SpecError(f"{network.name} does not take an octave of {tall} x {wide} ({reason})") from None
        image = outcome.images
        told.append((tall, wide, -float(outcome.energy[0].mean()), -float(outcome.energy[-1].mean())))
        detail = image - base
    return Dream(image, told)


def zoomed(z: Tensor, share: float) -> Tensor:
    """The picture enlarged about its centre so that `share` of each side is lost, bilinearly, at the same size."""
    keep = 1 - share
    matrix = np.repeat(np.array([[[keep, 0.0, 0.0], [0.0, keep, 0.0]]]), len(z), 0)
    return warp(z, matrix, z.shape[2], z.shape[3])


def frame_path(folder: Path, number: int) -> Path:
    return folder / f"frame-{number:05d}.png"


def film(
    network: Network,
    original: Tensor,
    recipe: Recipe,
    folder: Path,
    frames: int = 100,
    zoom: float = 0.05,
    guide: Tensor | None = None,
    identity: object = None,
    tell: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Dream, step closer, dream again. Frames are PNG files, and each one starts from the one before as it was stored,
    so a film that was stopped goes on to the same bytes. Raises SpecError where the folder holds another film."""
    if frames < 1 or not 0 <= zoom < 1:
        raise SpecError(f"a film needs at least one frame and a zoom from 0 to below 1, found {frames} and {zoom}")
    pixels = network.pixels
    guided = None if guide is None else sha256(guide.cpu().numpy().tobytes()).hexdigest()
    known = fingerprint([identity, repr(recipe), zoom, sha256(pixels.to_uint8(original).tobytes()).hexdigest(), guided])
    label = folder / "film.txt"
    if label.exists() and label.read_text().strip() != known:
        raise SpecError(f"{folder} holds the frames of another film: choose another --out, or remove them")
    write_bytes(label, (known + "\n").encode())
    paths = [frame_path(folder, number) for number in range(frames)]
    z = original
    for number, path in enumerate(paths):
        if path.exists():
            z = pixels.from_uint8(read_image(path, None, pixels.planes)[None], original.dtype).to(original.device)
            continue
        start = zoomed(z, zoom) if number else z
        own = Recipe(**{**recipe.__dict__, "seed": recipe.seed + number})
        done = dream(network, start, own, guide)
        write_png(path, pixels.to_uint8(done.image)[0])
        z = pixels.quantise(done.image)
        if tell is not None:
            tell(number + 1, frames)
    return paths


def assemble(paths: Sequence[Path], out: Path, rate: int = 15) -> Path:
    """Frames into one .gif, .webp or, where ffmpeg is installed, .mp4. Raises SpecError for another ending."""
    ending = out.suffix.lower()
    if ending == ".mp4":
        tool = shutil.which("ffmpeg")
        if tool is None:
            raise SpecError("an mp4 needs ffmpeg, which is not installed: use .webp or .gif")
        pattern = str(paths[0].with_name("frame-%05d.png"))
        command = [tool, "-y", "-loglevel", "error", "-framerate", str(rate), "-i", pattern]
        command += ["-frames:v", str(len(paths))]
        # Players want an even size and 4:2:0.
        command += ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DissectError(f"ffmpeg could not write {out.name}: {done.stderr.strip()[:200]}")
        return out
    if ending not in {".gif", ".webp"}:
        raise SpecError(f"a film is .gif, .webp or .mp4, found {out.suffix!r}")
    pictures = [Picture.open(path).convert("RGB") for path in paths]
    extra = {"quality": 80} if ending == ".webp" else {"optimize": False}
    temporary = out.with_name("." + out.name)
    pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=round(1000 / rate), loop=0, **extra)
    temporary.replace(out)
    return out
