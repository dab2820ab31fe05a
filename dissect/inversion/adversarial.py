"""Adversarial perturbations: the smallest change that makes a network see a class of our choice.

Szegedy et al. 2014: min c |r|^2 + loss(x + r, target), x + r in the box of legal pixels, by box-constrained L-BFGS with
a search for the largest c that still succeeds. Here every image has its own c and its own L-BFGS, all in one batch;
then the minimum is polished (ours) by linear steps along the class boundary. FGSM and PGD stand beside it as baselines.
Distances are on the paper's scale: pixels 0..1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion import draws
from dissect.inversion.constraints import Box, Near
from dissect.inversion.engine import run
from dissect.inversion.images import Pixels
from dissect.inversion.lbfgs import minimise
from dissect.inversion.network import OUTPUT, Network
from dissect.inversion.objectives import At, LogProbability, one_hot
from dissect.inversion.optimisers import Sign
from dissect.inversion.task import Phase, Task
from dissect.inversion.transforms import resize

DECADES = 8
BISECTIONS = 12
BATCH = 64  # pictures a forward pass takes


@dataclass(frozen=True)
class Search:
    """c starts at `first`, goes by decades to a bracket, and is bisected until its ends differ by less than `width`."""

    first: float = 1e-2
    width: float = 0.02
    iterations: int = 100
    polish: int = 20


@dataclass
class Attack:
    """One row an image. images and originals are legal pixels 0..1 [N, C, h, w]; norms are Euclidean, NaN on failure.

    paper_norm: what the search over c alone found; norm: after polishing (never above it). solves: L-BFGS runs;
    evaluations: forward and backward passes of that image, exactly.
    """

    images: Tensor
    originals: Tensor
    labels: Tensor
    targets: Tensor
    success: np.ndarray
    paper_norm: np.ndarray
    norm: np.ndarray
    c: np.ndarray
    solves: np.ndarray
    evaluations: np.ndarray

    @property
    def distortion(self) -> np.ndarray:
        """sqrt(sum r^2 / n) of the paper's table, n the number of values of an image."""
        return self.norm / np.sqrt(self.images[0].numel())


class _Problem:
    """Images as rows of legal values 0..1, and the smallest successful perturbation seen so far at any evaluation."""

    def __init__(self, network: Network, originals: Tensor, targets: Tensor) -> None:
        self.network, self.targets = network, targets
        pixels = network.pixels
        span = pixels.high - pixels.low
        self.shape = originals.shape[1:]
        self.x0 = ((pixels.to_pixels(originals) - pixels.low) / span).clamp(0, 1).flatten(1)
        self.best = self.x0.clone()
        self.norm = torch.full((len(originals),), torch.inf, dtype=originals.dtype, device=originals.device)
        self.evaluations = torch.zeros(len(originals), dtype=torch.int64, device=originals.device)

    def z(self, x: Tensor) -> Tensor:
        pixels = self.network.pixels
        return pixels.from_pixels(x.unflatten(1, self.shape) * (pixels.high - pixels.low) + pixels.low)

    def logits(self, x: Tensor) -> Tensor:
        return self.network.logits(self.z(x))

    def note(self, x: Tensor, rows: Tensor, logits: Tensor) -> Tensor:
        """Remember the successful points that are nearer than any before; returns the successes [b]."""
        won = logits.argmax(1) == self.targets[rows]
        norm = (x - self.x0[rows]).norm(dim=1)
        better = won & (norm < self.norm[rows])
        self.best[rows[better]], self.norm[rows[better]] = x[better], norm[better]
        return won

    def with_gradient(
        self, x: Tensor, rows: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss [b], its gradient [b, n], success [b]) of loss(logits, rows)."""
        values, gradients, logits = [], [], []
        for part, some in zip(x.detach().split(BATCH), rows.split(BATCH)):
            part = part.requires_grad_(True)
            seen = self.logits(part)
            value = loss(seen, some)
            gradients.append(torch.autograd.grad(value.sum(), part)[0])
            values.append(value.detach())
            logits.append(seen.detach())
        self.evaluations[rows] += 1
        return torch.cat(values), torch.cat(gradients), self.note(x.detach(), rows, torch.cat(logits))

    @torch.no_grad()
    def succeeds(self, x: Tensor, rows: Tensor) -> Tensor:
        self.evaluations[rows] += 1
        return self.note(x, rows, torch.cat([self.logits(part) for part in x.split(BATCH)]))


def _cross_entropy(targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, rows: F.cross_entropy(logits, targets[rows], reduction="none")


def _margin(targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Best other class minus target: negative inside the target's region."""

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        own = targets[rows][:, None]
        others = logits.scatter(1, own, -torch.inf).amax(1)
        return others - logits.gather(1, own)[:, 0]

    return loss


def predictions(network: Network, originals: Tensor, batch: int = 32) -> Tensor:
    """Most probable class of each z [N, C, h, w]."""
    return network.codes(originals, OUTPUT, batch).argmax(1)


def runners_up(network: Network, originals: Tensor) -> Tensor:
    """Second most probable class: the nearest wrong answer, the target where none is given."""
    return network.codes(originals, OUTPUT).topk(2, 1).indices[:, 1]


def minimal(network: Network, originals: Tensor, targets: Tensor, search: Search | None = None) -> Attack:
    """Smallest perturbations of z [N, C, h, w] that make the network answer `targets` [N].

    Raises SpecError where a target is out of range or already the answer.
    """
    search = search or Search()
    originals = originals.to(network.device, network.dtype)
    targets = targets.to(network.device)
    for target in targets.tolist():
        network.check_class(target)
    labels = predictions(network, originals)
    if bool((labels == targets).any()):
        where = int((labels == targets).nonzero()[0])
        raise SpecError(f"image {where} is already seen as class {int(targets[where])}: choose another target")
    problem = _Problem(network, originals, targets)
    count = len(originals)
    solves = np.zeros(count, np.int64)
    loss = _cross_entropy(targets)

    def solve(rows: Tensor, c: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        def energy(x: Tensor, inner: Tensor) -> tuple[Tensor, Tensor]:
            across = rows[inner]
            values, gradient, _ = problem.with_gradient(x, across, loss)
            r = x - problem.x0[across]
            return values + c[inner] * r.square().sum(1), gradient + 2 * c[inner, None] * r

        found = minimise(energy, start, torch.zeros_like(start[:1]), torch.ones_like(start[:1]), search.iterations)
        solves[rows.cpu().numpy()] += 1
        return found.x, problem.succeeds(found.x, rows)

    c = torch.full((count,), search.first, dtype=originals.dtype, device=originals.device)
    low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)  # largest c that won, smallest that lost
    last = problem.x0.clone()
    rows = torch.arange(count, device=originals.device)
    for _ in range(2 * DECADES):
        found, won = solve(rows, c[rows], problem.x0[rows])
        last[rows[won]] = found[won]
        low[rows[won]] = torch.maximum(low[rows[won]], c[rows[won]])
        high[rows[~won]] = torch.minimum(high[rows[~won]], c[rows[~won]])
        factor = torch.where(low > 0, 10.0, 0.1)
        rows = ((low == 0) | torch.isinf(high)).nonzero()[:, 0]
        rows = rows[(c[rows] > search.first * 10.0**-DECADES) & (c[rows] < search.first * 10.0**DECADES)]
        if not len(rows):
            break
        c[rows] = c[rows] * factor[rows]
    for _ in range(BISECTIONS):
        rows = ((low > 0) & torch.isfinite(high) & (high / low > 1 + search.width)).nonzero()[:, 0]
        if not len(rows):
            break
        middle = (low[rows] * high[rows]).sqrt()
        found, won = solve(rows, middle, last[rows])
        last[rows[won]] = found[won]
        low[rows[won]] = middle[won]
        high[rows[~won]] = middle[~won]
    paper = torch.where(low > 0, (last - problem.x0).norm(dim=1), torch.inf)
    if search.polish:
        _polish(problem, search.polish)
    return _attack(problem, labels, paper, low, solves)


def _attack(problem: _Problem, labels: Tensor, paper: Tensor, c: Tensor, solves: np.ndarray) -> Attack:
    def numbers(values: Tensor) -> np.ndarray:
        array = values.double().cpu().numpy()
        return np.where(np.isfinite(array), array, np.nan)

    return Attack(
        problem.best.unflatten(1, problem.shape),
        problem.x0.unflatten(1, problem.shape),
        labels,
        problem.targets,
        torch.isfinite(problem.norm).cpu().numpy(),
        numbers(paper),
        numbers(problem.norm),
        numbers(c),
        solves,
        problem.evaluations.cpu().numpy(),
    )


def nearest_on_plane(w: Tensor, b: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Shortest r [B, n] with w.r = b and lower <= r <= upper: r = clip(m w), m by bisection.

    Where the box does not reach the plane, the corner of the box nearest to it.
    """
    sign = torch.where(b >= 0, 1.0, -1.0).to(w)
    w, b = w * sign[:, None], b * sign
    size = w.abs().amax(1).clamp(min=torch.finfo(w.dtype).tiny)
    bottom = torch.zeros_like(b)
    top = b / w.square().sum(1).clamp(min=torch.finfo(w.dtype).tiny)
    widest = torch.maximum(upper, -lower).amax(1) / size
    for _ in range(60):
        short = (w * (top[:, None] * w).clamp(lower, upper)).sum(1) < b
        if not bool(short.any()) or bool((top[short] > 1e6 * widest[short]).all()):
            break
        top = torch.where(short, top * 2, top)
    for _ in range(60):
        middle = (bottom + top) / 2
        short = (w * (middle[:, None] * w).clamp(lower, upper)).sum(1) < b
        bottom, top = torch.where(short, middle, bottom), torch.where(short, top, middle)
    return (top[:, None] * w).clamp(lower, upper)


def _polish(problem: _Problem, rounds: int) -> None:
    """Four starts for each row: its best point, its original, and twice where gradient steps in the ball of its least
    norm lead, few and many. From each: step towards the nearest point of the linearised boundary, then along the ray
    from the original to the true boundary; ever smaller steps. At last straight back as far as the class holds. Only
    improvements are kept."""
    rows = torch.isfinite(problem.norm).nonzero()[:, 0]
    if not len(rows):
        return
    loss = _margin(problem.targets)
    x0 = problem.x0[rows]
    starts: tuple[Callable[[], Tensor], ...] = (
        problem.best[rows].clone,
        x0.clone,
        lambda: _in_ball(problem, rows, rounds),
        lambda: _in_ball(problem, rows, 3 * rounds),
    )
    for start in starts:
        x = start()
        for number in range(rounds):
            margin, gradient, _ = problem.with_gradient(x, rows, loss)
            depth = (gradient * (x - x0)).sum(1) - margin
            nearest = x0 + nearest_on_plane(gradient, depth, -x0, 1 - x0)
            x = _to_boundary(problem, rows, x + 0.8 * 0.9**number * (nearest - x))
    _retreat(problem, rows)


def _in_ball(problem: _Problem, rows: Tensor, steps: int) -> Tensor:
    """Normalised gradient steps on the cross-entropy inside the box and the ball about the originals that reaches to
    the best points so far."""
    loss = _cross_entropy(problem.targets)
    x0, radius = problem.x0[rows], problem.norm[rows]
    x = x0.clone()
    for _ in range(steps):
        _, gradient, _ = problem.with_gradient(x, rows, loss)
        x = _ball_step(x, x0, gradient, 2.5 / steps * radius, radius)
    return x


def _ball_step(x: Tensor, x0: Tensor, gradient: Tensor, length: Tensor, radius: Tensor) -> Tensor:
    """One step of `length` [b] against the gradient, back into the ball of `radius` [b] about x0 and into the box."""
    r = x - gradient * (length / gradient.norm(dim=1).clamp(min=1e-30))[:, None] - x0
    return (x0 + r * (radius / r.norm(dim=1).clamp(min=1e-30)).clamp(max=1)[:, None]).clamp(0, 1)


def _to_boundary(problem: _Problem, rows: Tensor, x: Tensor, rounds: int = 4) -> Tensor:
    """The point on the ray from the original through x, at 0.95 to 1.1 of its length, where the class begins to hold,
    as far as a few bisections find it: each is a candidate for the best."""
    x0 = problem.x0[rows]
    short, long = torch.full_like(x0[:, 0], 0.95), torch.full_like(x0[:, 0], 1.1)
    for _ in range(rounds):
        middle = (short + long) / 2
        won = problem.succeeds((x0 + middle[:, None] * (x - x0)).clamp(0, 1), rows)
        short, long = torch.where(won, short, middle), torch.where(won, middle, long)
    return (x0 + long[:, None] * (x - x0)).clamp(0, 1)


def _retreat(problem: _Problem, rows: Tensor, rounds: int = 12) -> None:
    """Bisect the segment from the original to the best point for the place where the class begins to hold."""
    x0, far = problem.x0[rows], problem.best[rows].clone()
    inside, outside = torch.ones(len(rows)).to(x0), torch.zeros(len(rows)).to(x0)
    for _ in range(rounds):
        middle = (inside + outside) / 2
        won = problem.succeeds(x0 + middle[:, None] * (far - x0), rows)
        inside, outside = torch.where(won, middle, inside), torch.where(won, outside, middle)


def pgd_minimal(network: Network, originals: Tensor, targets: Tensor, budget: int, rounds: int = 8) -> Attack:
    """Smallest norm by projected gradient descent: the radius is bisected `rounds` times, normalised steps inside the
    ball and the box, `budget` evaluations an image in all. The baseline for `minimal` at equal budget."""
    originals, targets = originals.to(network.device, network.dtype), targets.to(network.device)
    problem = _Problem(network, originals, targets)
    labels = predictions(network, originals)
    rows = torch.arange(len(originals), device=originals.device)
    loss = _cross_entropy(targets)
    retreat = 12
    steps = max(1, (budget - retreat) // rounds)
    bottom = torch.zeros_like(problem.norm)
    top = torch.full_like(problem.norm, float(problem.x0.shape[1]) ** 0.5)
    radius = top / 32
    for _ in range(rounds):
        x = problem.x0.clone()
        won_any = torch.zeros(len(rows), dtype=torch.bool, device=originals.device)
        for _ in range(steps):
            _, gradient, won = problem.with_gradient(x, rows, loss)
            won_any |= won
            x = _ball_step(x, problem.x0, gradient, 2.5 / steps * radius, radius)
        top = torch.where(won_any, torch.minimum(radius, problem.norm), top)
        bottom = torch.where(won_any, bottom, radius)
        radius = (bottom + top) / 2
    _retreat(problem, torch.isfinite(problem.norm).nonzero()[:, 0], retreat)
    return _attack(problem, labels, problem.norm, torch.zeros_like(problem.norm), np.zeros(len(rows), np.int64))


def sign_attack(
    network: Network, originals: Tensor, classes: Tensor, reach: float, steps: int, targeted: bool = True
) -> Tensor:
    """FGSM (one step) or PGD of `reach` bytes in the largest-value norm; z [N, C, h, w] in the box."""
    originals = originals.to(network.device, network.dtype)
    score = LogProbability(one_hot(classes.tolist(), network.classes), 1.0 if targeted else -1.0)
    rate = reach if steps == 1 else 2.5 * reach / steps
    # Bounds by the anchor first and the box last: both hold, as the anchor is legal.
    phase = Phase(steps, rate, constraints=(Near(originals, reach), Box(network.pixels)))
    task = Task(At(network, OUTPUT, score), Pixels(originals), (phase,), Sign(), draws.seeds(0, len(originals)))
    return run(task).images


def to_z(network: Network, images: Tensor) -> Tensor:
    """Attack.images, legal pixels 0..1, as byte units of a network."""
    pixels = network.pixels
    return pixels.from_pixels(images * (pixels.high - pixels.low) + pixels.low)


def quantised_success(network: Network, images: Tensor, targets: Tensor) -> np.ndarray:
    """Whether the attack survives storing the pictures [N, C, h, w] (0..1) with 8 bits."""
    stored = network.pixels.quantise(to_z(network, images))
    return (predictions(network, stored) == targets).cpu().numpy()


def quantised_norm(network: Network, attack: Attack, factors: Sequence[float]) -> np.ndarray:
    """Norm of the shortest of factor x perturbation whose 8-bit picture still succeeds; NaN where none does.

    The norm is that of the stored picture against the original.
    """
    x0 = attack.originals
    norm = np.full(len(x0), np.nan)
    for factor in sorted(factors):
        stored = ((x0 + factor * (attack.images - x0)).clamp(0, 1) * 255).round() / 255
        won = (predictions(network, to_z(network, stored)) == attack.targets).cpu().numpy()
        length = (stored - x0).flatten(1).norm(dim=1).double().cpu().numpy()
        norm = np.where(np.isnan(norm) & won & attack.success, length, norm)
    return norm


def transfer(networks: Sequence[Network], attacks: Sequence[Attack]) -> np.ndarray:
    """[made on, shown to]: share of the successful pictures that a network answers otherwise than their originals.

    The diagonal is 1 where the first network is itself among the second. Sizes and ranges are adapted.
    """
    matrix = np.full((len(attacks), len(networks)), np.nan)
    for i, attack in enumerate(attacks):
        won = torch.from_numpy(attack.success).to(attack.images.device)
        for j, network in enumerate(networks):
            before, after = (
                predictions(
                    network, resize(to_z(network, images[won].to(network.device, network.dtype)), *network.size)
                )
                for images in (attack.originals, attack.images)
            )
            matrix[i, j] = float((before != after).double().mean()) if len(after) else np.nan
    return matrix
