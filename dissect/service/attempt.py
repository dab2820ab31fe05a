"""Attempts at the shards of one run, in a process of their own (`children`).

A task is a plain object: {"workspace": …, "db": …, "run": …, "kind": "measure", "shard": [0, 8], "bad": {…}}. Kind
"measure" leaves a partial, "finish" the rows and pages of the run; "positions" tells which images the shard holds, and
"probe" forwards the images it is given, to find the one that ends the process.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broden import BrodenError
from dissect.errors import DissectError
from dissect.workspace import Workspace

if TYPE_CHECKING:
    from dissect.shards import Shards

_DEATH_SIGNAL = 1  # of prctl(2)


def main(tasks: Connection, results: Connection, lines: Connection) -> None:
    """Do tasks of one run, one after another, until none comes: their results go to `results` as JSON, what is said to
    `lines`. What goes wrong ends the process with its code."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    worker = parent_process()
    if worker is None or not worker.is_alive():  # it died before the line above
        sys.exit(1)
    os.setsid()  # a Ctrl-C is for the worker, which then says what becomes of the shard
    os.dup2(lines.fileno(), 1)
    os.dup2(lines.fileno(), 2)
    from dissect.shards import Shards  # not above: a worker needs no torch

    with ExitStack() as opened:
        shards: Shards | None = None
        try:
            for task in iter(lambda: received(tasks), None):
                if shards is None:
                    workspace = Workspace(Path(task["workspace"]), task["db"])
                    shards = opened.enter_context(Shards.again(workspace, task["run"], _say))
                results.send_bytes(json.dumps(_do(task, shards)).encode())
        except DissectError as error:
            _end(str(error), error.exit_code)
        except BrodenError as error:
            _end(str(error), 2)
        except MemoryError:
            _end("out of memory", 5)


def received(source: Connection) -> dict[str, Any] | None:
    """The next task, or what came of one; None where there will be no more."""
    try:
        found: dict[str, Any] = json.loads(source.recv_bytes())
    except EOFError:
        return None
    return found


def _end(message: str, code: int) -> None:
    print(f"dissect: {message}", file=sys.stderr)
    sys.exit(code)


def _do(task: dict[str, Any], shards: "Shards") -> dict[str, Any]:
    bad = {int(position): reason for position, reason in task.get("bad", {}).items()}
    if task["kind"] == "finish":
        return {"excluded": shards.merge(bad).excluded}
    number, count = task["shard"]
    if task["kind"] == "measure":
        partial = shards.measure((number, count), bad)
        return {"partial": partial.name, "took": shards.files.took((number, count))}
    if task["kind"] == "positions":
        return {"positions": [p for p in _positions(shards.prepared, (number, count)) if p not in bad]}
    _probe(shards.prepared, task["positions"])
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
