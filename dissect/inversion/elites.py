"""MAP-Elites over the classes of a network (Mouret & Clune 2015; Nguyen et al. 2015): one cell a class.

Each child competes in every cell with the confidence that the network has in that class. A generation's chance hangs on
(seed, generation) alone, so an archive that was killed resumes to the same bits.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from dissect import checkpoint
from dissect.errors import SpecError
from dissect.inversion import patterns
from dissect.inversion.network import Network
from dissect.inversion.patterns import Pattern
from dissect.inversion.state import fingerprint

Genome = TypeVar("Genome")

CROSSOVER = 0.5
SBX_ETA = 10.0
RATE = 0.1
HALVE_EVERY = 1000


class Encoding(Protocol[Genome]):
    """How a picture is written down, bred and drawn."""

    name: str

    def random(self, rng: np.random.Generator) -> Genome: ...
    def child(self, rng: np.random.Generator, first: Genome, second: Genome, generation: int) -> Genome: ...
    def draw(self, genomes: Sequence[Genome]) -> Tensor: ...
    def pack(self, genomes: Sequence[Genome]) -> dict[str, np.ndarray]: ...
    def unpack(self, arrays: dict[str, np.ndarray]) -> list[Genome]: ...


@dataclass(frozen=True)
class Direct:
    """Every byte of the picture by itself: SBX crossover (eta 10), polynomial mutation (eta 15) of a tenth of the
    bytes, a rate that is halved every 1000 generations."""

    planes: int
    height: int
    width: int
    name = "direct"

    def random(self, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, 256, (self.planes, self.height, self.width), dtype=np.uint8)

    def child(self, rng: np.random.Generator, first: np.ndarray, second: np.ndarray, generation: int) -> np.ndarray:
        values = first.astype(np.float64)
        if rng.random() < CROSSOVER:
            u = rng.random(values.shape)
            spread = np.where(u < 0.5, 2 * u, 1 / np.maximum(2 * (1 - u), 1e-12)) ** (1 / (SBX_ETA + 1))
            values = 0.5 * ((1 + spread) * values + (1 - spread) * second.astype(np.float64))
        rate = RATE * 0.5 ** (generation // HALVE_EVERY)
        moved = rng.random(values.shape) < rate
        values = values + moved * patterns.polynomial(rng, values.shape) * 255
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    def draw(self, genomes: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(genomes)).float() / 255

    def pack(self, genomes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        return {"bytes": np.stack(genomes)}

    def unpack(self, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        return list(arrays["bytes"])


@dataclass(frozen=True)
class Compositional:
    """A pattern-producing network. Children have one parent: graphs of different shape are not crossed."""

    planes: int
    height: int
    width: int
    raw: bool = False
    name = "cppn"

    def random(self, rng: np.random.Generator) -> Pattern:
        return patterns.random_pattern(rng, self.planes)

    def child(self, rng: np.random.Generator, first: Pattern, second: Pattern, generation: int) -> Pattern:
        return patterns.mutate(first, rng)

    def draw(self, genomes: Sequence[Pattern]) -> Tensor:
        drawn = patterns.render(list(genomes), self.height, self.width, self.raw)
        # What is judged is what a file can hold.
        return (drawn * 255).round() / 255

    def pack(self, genomes: Sequence[Pattern]) -> dict[str, np.ndarray]:
        return patterns.pack(list(genomes))

    def unpack(self, arrays: dict[str, np.ndarray]) -> list[Pattern]:
        return patterns.unpack(arrays)


@dataclass
class Archive(Generic[Genome]):
    """fitness float64 [cells], a genome and the generation of its arrival for each; evaluations counted one by one.

    history: (evaluations, median fitness, mean fitness) after each generation.
    """

    fitness: np.ndarray
    genomes: list[Genome]
    born: np.ndarray
    evaluations: int = 0
    generation: int = 0
    history: list[tuple[int, float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """first: random pictures to begin with; offspring a generation; `breed` False draws them at random again, which is
    random search at an equal number of evaluations."""

    first: int = 200
    offspring: int = 200
    generations: int = 100
    breed: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.first < 1 or self.offspring < 1 or self.generations < 0:
            raise SpecError(
                "expected first >= 1, offspring >= 1 and generations >= 0, "
                f"found {self.first}, {self.offspring} and {self.generations}"
            )


@torch.no_grad()
def confidences(network: Network, pictures: Tensor, cells: int, batch: int = 100) -> np.ndarray:
    """Softmax of pictures [P, C, h, w] in 0 … 1, float64 [P, cells]."""
    pixels = network.pixels
    found = []
    for part in pictures.split(batch):
        z = pixels.from_pixels(part.to(network.device) * (pixels.high - pixels.low) + pixels.low)
        found.append(network.logits(z).double().softmax(1)[:, :cells].cpu().numpy())
    return np.concatenate(found)


def compete(archive: Archive[Genome], scores: np.ndarray, children: Sequence[Genome]) -> np.ndarray:
    """Each child into every cell where it is strictly better; the cells that changed. Ties go to the earlier child."""
    archive.evaluations += len(children)
    best = scores.argmax(0)
    won = np.flatnonzero(scores[best, np.arange(scores.shape[1])] > archive.fitness)
    for cell in won.tolist():
        archive.fitness[cell] = scores[best[cell], cell]
        archive.genomes[cell] = children[best[cell]]
        archive.born[cell] = archive.generation
    return won


def stored(encoding: Encoding[Genome], genome: Genome) -> bytes:
    """One genome as the bytes of an npz file, for a database; the same genome gives the same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **encoding.pack([genome]))
    return buffer.getvalue()


def restored(encoding: Encoding[Genome], data: bytes) -> Genome:
    """The genome that `stored` wrote."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return encoding.unpack(dict(arrays))[0]


def _save(path: Path, archive: Archive[Genome], encoding: Encoding[Genome], identity: str) -> None:
    meta: dict[str, object] = {
        "identity": identity,
        "evaluations": archive.evaluations,
        "generation": archive.generation,
    }
    arrays = {"fitness": archive.fitness, "born": archive.born, "history": np.array(archive.history, np.float64)}
    arrays |= {f"genome_{name}": array for name, array in encoding.pack(archive.genomes).items()}
    checkpoint.save(path, checkpoint.State(meta, arrays))


def _load(path: Path, encoding: Encoding[Genome], identity: str) -> Archive[Genome] | None:
    saved = checkpoint.load(path)
    if saved is None:
        return None
    if saved.meta["identity"] != identity:
        raise SpecError(f"{path.name} holds the archive of another search: choose another --out, or remove the file")
    packed = {name[7:]: array for name, array in saved.arrays.items() if name.startswith("genome_")}
    history = [(int(e), float(m), float(a)) for e, m, a in saved.arrays["history"].reshape(-1, 3)]
    return Archive(
        saved.arrays["fitness"],
        encoding.unpack(packed),
        saved.arrays["born"],
        int(saved.meta["evaluations"]),
        int(saved.meta["generation"]),
        history,
    )


def evolve(
    network: Network,
    encoding: Encoding[Genome],
    plan: Plan,
    cells: int | None = None,
    state_file: Path | None = None,
    identity: object = None,
    save_every: int = 20,
    watch: Callable[[Archive[Genome]], None] | None = None,
    entered: Callable[[Sequence[Genome], np.ndarray], None] | None = None,
) -> Archive[Genome]:
    """Run, or resume from `state_file`, to plan.generations: generation 0 is random, each later one is bred.

    cells: the first so many classes (all). entered is told the genomes that won a cell, and their fitness.
    Makes plan.first + plan.generations x plan.offspring evaluations.
    """
    cells = network.classes if cells is None else cells
    kept = {**plan.__dict__}
    # More generations continue the same search.
    kept.pop("generations")
    known = fingerprint([identity, encoding.name, repr(encoding), kept, cells])
    archive = None if state_file is None else _load(state_file, encoding, known)
    if archive is None:
        archive = Archive[Genome](np.full(cells, -1.0), [None] * cells, np.zeros(cells, np.int64))  # type: ignore[list-item]
        _generation(network, encoding, plan, archive, cells, entered)
        if state_file is not None:
            _save(state_file, archive, encoding, known)
    while archive.generation < plan.generations:
        archive.generation += 1
        _generation(network, encoding, plan, archive, cells, entered)
        if state_file is not None and (archive.generation % save_every == 0 or archive.generation == plan.generations):
            _save(state_file, archive, encoding, known)
        if watch is not None:
            watch(archive)
    return archive


def _generation(
    network: Network,
    encoding: Encoding[Genome],
    plan: Plan,
    archive: Archive[Genome],
    cells: int,
    entered: Callable[[Sequence[Genome], np.ndarray], None] | None,
) -> None:
    rng = np.random.default_rng([plan.seed, archive.generation])
    if archive.generation == 0 or not plan.breed:
        count = plan.first if archive.generation == 0 else plan.offspring
        children = [encoding.random(rng) for _ in range(count)]
    else:
        parents = rng.integers(0, cells, (plan.offspring, 2))
        children = [
            encoding.child(rng, archive.genomes[a], archive.genomes[b], archive.generation) for a, b in parents.tolist()
        ]
    scores = confidences(network, encoding.draw(children), cells)
    won = compete(archive, scores, children)
    archive.history.append((archive.evaluations, float(np.median(archive.fitness)), float(archive.fitness.mean())))
    if entered is not None and len(won):
        entered([archive.genomes[cell] for cell in won.tolist()], archive.fitness[won])
