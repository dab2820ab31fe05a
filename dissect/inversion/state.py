"""Where a run of the engine stands, in memory and in its file."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dissect import checkpoint
from dissect.errors import SpecError
from dissect.inversion.graduate import several
from dissect.inversion.images import Variables
from dissect.inversion.task import Task


def fingerprint(spec: object) -> str:
    """sha256 of a JSON value: what a state file belongs to."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class State:
    """variables, previous: [B * starts left, ...]; memory: of the optimiser, slot by slot; factor to idle: [B]."""

    variables: Variables
    memory: Variables
    previous: Variables
    factor: Tensor
    strikes: Tensor
    flat: Tensor
    idle: Tensor  # rounds of the mend, up to the last, that gained nothing
    # [steps, B], written in place: small tensors kept between the large ones of every step tear the heap to pieces.
    energy: Tensor
    total: Tensor
    step: int = 0  # and, after the last, the stages
    since_reset: int = 0
    finished: bool = False
    rounds: int = 0  # of the mend

    @classmethod
    def begin(cls, task: Task, variables: Variables | None = None) -> "State":
        """Before the first step: at `variables`, or where the image of the task says."""
        variables = task.image.start(several(task)) if variables is None else variables
        count, device, records = len(task.seeds), variables[0].device, task.steps + len(task.stages)
        return cls(
            variables,
            tuple(torch.zeros_like(x) for _ in range(task.optimiser.slots if task.phases else 0) for x in variables),
            variables,
            torch.ones(count, device=device),
            torch.zeros(count, dtype=torch.int64, device=device),
            torch.zeros(count, dtype=torch.int64, device=device),
            torch.zeros(count, dtype=torch.int64, device=device),
            torch.zeros(records, count, dtype=variables[0].dtype, device=device),
            torch.zeros(records, count, dtype=variables[0].dtype, device=device),
        )

    def save(self, path: Path, identity: str) -> None:
        arrays = {f"variable{i}": x for i, x in enumerate(self.variables)}
        arrays |= {f"memory{i}": x for i, x in enumerate(self.memory)}
        arrays |= {f"previous{i}": x for i, x in enumerate(self.previous)}
        arrays |= {"factor": self.factor, "strikes": self.strikes, "flat": self.flat, "idle": self.idle}
        arrays |= {"energy": self.energy[: self.step], "total": self.total[: self.step]}
        meta: dict[str, object] = {
            "identity": identity, "step": self.step, "since_reset": self.since_reset, "finished": self.finished,
            "rounds": self.rounds,
        }  # fmt: skip
        checkpoint.save(path, checkpoint.State(meta, {name: x.cpu().numpy() for name, x in arrays.items()}))

    def saved(self, path: Path, identity: str) -> "State":
        """The state in a file, or this one where there is none. Raises SpecError for that of another run."""
        saved = checkpoint.load(path)
        if saved is None:
            return self
        if saved.meta["identity"] != identity:
            raise SpecError(
                f"{path.name} belongs to a run with other settings: choose another --out, or remove the file"
            )
        device = self.factor.device

        def read(name: str, count: int) -> Variables:
            return tuple(torch.from_numpy(saved.arrays[f"{name}{i}"]).to(device) for i in range(count))

        def one(name: str) -> Tensor:
            return torch.from_numpy(saved.arrays[name]).to(device)

        step = int(saved.meta["step"])
        self.energy[:step], self.total[:step] = one("energy"), one("total")
        return State(
            read("variable", len(self.variables)),
            read("memory", len(self.memory)),
            read("previous", len(self.previous)),
            one("factor"),
            one("strikes"),
            one("flat"),
            one("idle"),
            self.energy,
            self.total,
            step,
            int(saved.meta["since_reset"]),
            bool(saved.meta["finished"]),
            int(saved.meta["rounds"]),
        )
