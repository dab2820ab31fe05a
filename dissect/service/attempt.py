"""One attempt at a shard, in a process of its own: what it does to itself, it does to nobody else.

    python -m dissect.service.attempt < {"workspace": …, "db": …, "run": …, "kind": "measure", "shard": [0, 8], …}

kind "measure" leaves a partial, "finish" the rows and pages of the run, "probe" nothing: it forwards the given
images, to find the one that ends the process. The last line of stdout is JSON. Dies with the worker that began it.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from broden import BrodenError
from dissect.errors import DissectError
from dissect.workspace import Workspace

_DEATH_SIGNAL = 1  # of prctl(2)


def main() -> int:
    """Do as stdin says; returns the exit code of what went wrong."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    task = json.load(sys.stdin)
    if os.getppid() != task["worker"]:  # it died before the line above
        return 1
    try:
        print(json.dumps(_do(task, Workspace(Path(task["workspace"]), task["db"]))))
    except DissectError as error:
        print(f"dissect: {error}", file=sys.stderr)
        return error.exit_code
    except BrodenError as error:
        print(f"dissect: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print("dissect: out of memory", file=sys.stderr)
        return 5
    return 0


def _do(task: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    from dissect import shards

    bad = {int(position): reason for position, reason in task.get("bad", {}).items()}
    if task["kind"] == "finish":
        outcome = shards.merge(workspace, task["run"], _say, bad)
        return {"excluded": outcome.excluded}
    if task["kind"] == "measure":
        number, count = task["shard"]
        return {"partial": shards.measure_shard(workspace, task["run"], (number, count), bad, _say).name}
    _probe(shards.prepared_again(workspace, task["run"], _say), task["positions"])
    return {}


def _probe(prepared: Any, positions: list[int]) -> None:
    """Forward the given images, each in its place of its batch, with zeros in the others."""
    import broden
    from dissect.forward import Forward

    method, data, size = prepared.method, prepared.data, prepared.method.batch_size
    wanted = set(positions)
    with Forward(
        prepared.model.module, method.layers, method.mean, method.std, prepared.request.device, method.dtype
    ) as forward:
        batches = sorted({position // size for position in wanted})
        for batch in broden.stream(data, size, batches, size=method.input_size):
            assert batch.images is not None
            for slot in range(len(batch)):
                if batch.first + slot not in wanted:
                    batch.images[slot] = 0
            forward(batch.images)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
