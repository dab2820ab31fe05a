"""One attempt at a shard, in a process of its own (`children`).

A task is a plain object: {"workspace": …, "db": …, "run": …, "kind": "measure", "shard": [0, 8], "bad": {…}}. Kind
"measure" leaves a partial, "finish" the rows and pages of the run; "positions" tells which images the shard holds, and
"probe" forwards the images it is given, to find the one that ends the process.
"""

import ctypes
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

from broden import BrodenError
from dissect.errors import DissectError
from dissect.workspace import Workspace

_DEATH_SIGNAL = 1  # of prctl(2)


def main(task: dict[str, Any], results: Connection, lines: Connection) -> None:
    """Do a task: its result goes to `results` as JSON, what is said to `lines`. Exits with the code of what went
    wrong."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    worker = parent_process()
    if worker is None or not worker.is_alive():  # it died before the line above
        sys.exit(1)
    os.setsid()  # a Ctrl-C is for the worker, which then says what becomes of the shard
    os.dup2(lines.fileno(), 1)
    os.dup2(lines.fileno(), 2)
    try:
        results.send_bytes(json.dumps(_do(task, Workspace(Path(task["workspace"]), task["db"]))).encode())
    except DissectError as error:
        _end(str(error), error.exit_code)
    except BrodenError as error:
        _end(str(error), 2)
    except MemoryError:
        _end("out of memory", 5)


def received(results: Connection) -> dict[str, Any]:
    """The result of a child that ended well."""
    found: dict[str, Any] = json.loads(results.recv_bytes())
    return found


def _end(message: str, code: int) -> None:
    print(f"dissect: {message}", file=sys.stderr)
    sys.exit(code)


def _do(task: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    from dissect import shards

    bad = {int(position): reason for position, reason in task.get("bad", {}).items()}
    if task["kind"] == "finish":
        outcome = shards.merge(workspace, task["run"], _say, bad)
        return {"excluded": outcome.excluded}
    number, count = task["shard"]
    if task["kind"] == "measure":
        partial = shards.measure_shard(workspace, task["run"], (number, count), bad, _say)
        return {"partial": partial.name, "took": shards.took(workspace, task["run"], (number, count))}
    prepared = shards.prepared_again(workspace, task["run"], _say)
    if task["kind"] == "positions":
        return {"positions": [p for p in _positions(prepared, (number, count)) if p not in bad]}
    _probe(prepared, task["positions"])
    return {}


def _positions(prepared: Any, shard: tuple[int, int]) -> list[int]:
    from dissect.partial import blocks_of
    from dissect.scan import BLOCKS

    mine, size = set(blocks_of(shard)), prepared.method.batch_size
    return [position for position in range(len(prepared.data)) if position // size % BLOCKS in mine]


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
    print(line, file=sys.stderr, flush=True)
