"""Universal illusions (Elsayed et al. 2018): one perturbation for many networks, seen through an eye.

The geometric mean of the ensemble's probabilities of a group of classes is raised by sign steps within a few bytes of
the photo; networks that took no part, and three controls, tell whether the change means anything. Stimuli for people
are written with a blinded two-choice page; no human result is claimed.
"""

import csv
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dissect.errors import SpecError
from dissect.inversion.constraints import Box, Near
from dissect.inversion.draws import Draws, seeds
from dissect.inversion.engine import Watcher, run
from dissect.inversion.images import Pixels
from dissect.inversion.network import Network
from dissect.inversion.optimisers import Sign
from dissect.inversion.retina import Retina
from dissect.inversion.sheet import png, write_bytes
from dissect.inversion.task import Phase, Task
from dissect.inversion.transforms import resize

CONDITIONS = ("image", "adv", "flip", "false")


@dataclass(frozen=True)
class Choice:
    """A two-way question: each group is a name and the class numbers that count for it."""

    first: str
    first_classes: tuple[int, ...]
    second: str
    second_classes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.first_classes or not self.second_classes or set(self.first_classes) & set(self.second_classes):
            raise SpecError(f"the groups {self.first!r} and {self.second!r} must hold classes, and none in common")

    def classes(self, group: int) -> tuple[int, ...]:
        return self.second_classes if group else self.first_classes

    def name(self, group: int) -> str:
        return self.second if group else self.first


@dataclass(frozen=True)
class Plan:
    """reach in bytes (the paper: 32 of 255). gaze_jitter: spread of the gaze around the centre, in image sides."""

    reach: float = 32.0
    steps: int = 40
    retina: Retina | None = None
    gaze_jitter: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Joint:
    """-mean over the networks of log P(group): the geometric mean of probabilities. members [B, classes] 0/1.

    All networks share the byte-unit image; each gets it through the retina and at its own size.
    """

    networks: tuple[Network, ...]
    members: Tensor
    retina: Retina | None = None
    gaze_jitter: float = 0.0

    def __call__(self, z: Tensor, draws: Draws) -> Tensor:
        height, width = z.shape[2:]
        if self.retina is not None:
            rows = (0.5 + draws.uniform(-self.gaze_jitter, self.gaze_jitter)) * height
            columns = (0.5 + draws.uniform(-self.gaze_jitter, self.gaze_jitter)) * width
            z = self.retina(z, torch.from_numpy(np.stack([rows, columns], 1)))
        energy = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        for network in self.networks:
            energy = energy - log_group(network, z, self.members, self.networks[0]) / len(self.networks)
        return energy


def log_group(network: Network, z: Tensor, members: Tensor, owner: Network) -> Tensor:
    """log P(group) that a network gives z, which is in byte units of `owner`; [B]."""
    own = network.pixels.from_pixels(_rescaled(owner, network, z))
    logits = network.logits(resize(own, *network.size))
    hidden = members.to(logits.device) == 0
    return torch.logsumexp(F.log_softmax(logits, 1).masked_fill(hidden, -torch.inf), 1)


def _rescaled(owner: Network, network: Network, z: Tensor) -> Tensor:
    """The same picture as pixels in the other network's range."""
    a, b = owner.pixels, network.pixels
    return (a.to_pixels(z) - a.low) * ((b.high - b.low) / (a.high - a.low)) + b.low


def _members(choice: Choice, groups: Sequence[int], classes: int) -> Tensor:
    members = torch.zeros(len(groups), classes)
    for row, group in enumerate(groups):
        for number in choice.classes(group):
            if not 0 <= number < classes:
                raise SpecError(f"class {number} of group {choice.name(group)!r} is out of range: 0 to {classes - 1}")
            members[row, number] = 1
    return members


def illude(
    networks: Sequence[Network],
    originals: Tensor,
    targets: Sequence[int],
    choice: Choice,
    plan: Plan,
    state_file: Path | None = None,
    identity: object = None,
    watch: Watcher | None = None,
) -> Tensor:
    """Photos z [N, C, h, w] (byte units of the first network) changed towards group targets[i], 0 or 1."""
    if not networks:
        raise SpecError("an illusion needs at least one network to be made on")
    members = _members(choice, targets, networks[0].classes)
    objective = Joint(tuple(networks), members, plan.retina, plan.gaze_jitter)
    constraints = (Near(originals, plan.reach), Box(networks[0].pixels))
    phase = Phase(plan.steps, 2.5 * plan.reach / plan.steps, constraints=constraints)
    task = Task(objective, Pixels(originals), (phase,), Sign(), seeds(plan.seed, len(originals)))
    return run(task, state_file, [identity, repr(plan), repr(choice), list(targets)], watch=watch).images


def flipped(originals: Tensor, changed: Tensor, owner: Network) -> Tensor:
    """The control of equal norm: the same perturbation upside down, in the box."""
    low, high = owner.pixels.limits(originals)
    return (originals + (changed - originals).flip(2)).clamp(low, high)


@torch.no_grad()
def chosen(network: Network, z: Tensor, choice: Choice, owner: Network, batch: int = 16) -> np.ndarray:
    """Which group each picture is put in, 0 or 1, by the larger probability."""
    answers = []
    for part in z.split(batch):
        both = [log_group(network, part, _members(choice, [g] * len(part), network.classes), owner) for g in (0, 1)]
        answers.append((both[1] > both[0]).long())
    return torch.cat(answers).cpu().numpy()


def judge(
    networks: Sequence[Network],
    conditions: Mapping[str, tuple[Tensor, Sequence[int]]],
    choice: Choice,
    owner: Network,
) -> dict[str, dict[str, float]]:
    """{network: {condition: share answered with the target group}}; conditions: pictures and their targets."""
    return {
        network.name: {
            name: float((chosen(network, pictures, choice, owner) == np.asarray(targets)).mean())
            for name, (pictures, targets) in conditions.items()
        }
        for network in networks
    }


@dataclass(frozen=True)
class Stimulus:
    """One picture of the experiment: uint8 [h, w, C], its condition, what it shows and what it is pushed to."""

    picture: np.ndarray
    condition: str
    source: str
    truth: str
    target: str


def export(
    folder: Path, stimuli: Sequence[Stimulus], choice: Choice, seed: int, exposure_ms: int = 63
) -> dict[str, str]:
    """Write `page/` (pictures under meaningless names, the two-choice page) and `key.csv` beside it, never inside.

    The order and the names hang on the seed alone; returns {relative path: sha256}.
    """
    written: dict[str, str] = {}
    order = np.argsort([hashlib.sha256(f"{seed}/{i}".encode()).hexdigest() for i in range(len(stimuli))])
    table = io.StringIO()
    key = csv.writer(table, lineterminator="\n")
    key.writerow(["file", "condition", "source", "truth", "target"])
    names = []
    for number in order.tolist():
        stimulus = stimuli[number]
        name = hashlib.sha256(f"name/{seed}/{number}".encode()).hexdigest()[:12] + ".png"
        names.append(name)
        written[f"page/{name}"] = write_bytes(folder / "page" / name, png(stimulus.picture))
        key.writerow([name, stimulus.condition, stimulus.source, stimulus.truth, stimulus.target])
    page = PAGE.substitute(
        files=json.dumps(names),
        first=html.escape(choice.first),
        second=html.escape(choice.second),
        exposure=exposure_ms,
    )
    written["page/index.html"] = write_bytes(folder / "page" / "index.html", page.encode())
    written["key.csv"] = write_bytes(folder / "key.csv", table.getvalue().encode())
    return written


PAGE = Template(
    """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Two choices</title>
<style>
body{margin:0;background:#808080;color:#111;font:18px sans-serif;text-align:center}
#stage{height:70vh;display:flex;align-items:center;justify-content:center}
#stage img{width:min(60vh,90vw);image-rendering:auto}#stage span{font-size:40px}
button{font:inherit;padding:.6em 1.2em;margin:0 1em}
</style>
<p id="text">A cross, then a picture. What was it? <b>F</b> = $first, <b>J</b> = $second. Guess if unsure.</p>
<div id="stage" aria-live="off"></div>
<p><button id="left">F: $first</button><button id="right">J: $second</button></p>
<p id="count"></p>
<script>
const files = $files, exposure = $exposure, answers = [];
const stage = document.getElementById('stage'), count = document.getElementById('count');
let at = -1, shown = 0, open = false;
const later = ms => new Promise(done => setTimeout(done, ms));
const pictures = files.map(name => { const image = new Image(); image.src = name; image.alt = ''; return image; });
function mask() {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 64;
  const paint = canvas.getContext('2d'), noise = paint.createImageData(64, 64);
  for (let i = 0; i < noise.data.length; i++) noise.data[i] = i % 4 == 3 ? 255 : Math.random() * 256;
  paint.putImageData(noise, 0, 0);
  const image = new Image(); image.src = canvas.toDataURL(); image.alt = ''; return image;
}
async function next() {
  at++;
  if (at >= files.length) return finish();
  count.textContent = (at + 1) + ' of ' + files.length;
  stage.replaceChildren(Object.assign(document.createElement('span'), {textContent: '+'}));
  await pictures[at].decode(); await later(500);
  stage.replaceChildren(pictures[at]); shown = performance.now();
  await later(exposure);
  stage.replaceChildren(mask()); open = true;
  await later(200); if (open) stage.replaceChildren();
}
function answer(choice) {
  if (!open) return;
  open = false;
  answers.push([files[at], choice, Math.round(performance.now() - shown)]);
  next();
}
function finish() {
  const link = document.createElement('a');
  const rows = [['file', 'answer', 'milliseconds'], ...answers].map(row => row.join(',')).join('\\n') + '\\n';
  link.href = URL.createObjectURL(new Blob([rows], {type: 'text/csv'}));
  link.download = 'answers.csv'; link.textContent = 'Save answers.csv';
  stage.replaceChildren(link); count.textContent = 'Done. Thank you.';
}
addEventListener('keydown', event => {
  if (event.key == 'f' || event.key == 'F') answer('first');
  if (event.key == 'j' || event.key == 'J') answer('second');
});
document.getElementById('left').onclick = () => at < 0 ? next() : answer('first');
document.getElementById('right').onclick = () => at < 0 ? next() : answer('second');
count.textContent = 'Press either button to begin; then use the keys.';
</script></html>
"""
)
