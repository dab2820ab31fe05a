"""One run spread over an engine: its shards are measured wherever the engine likes, everything else happens here.

What came back is kept at once, so whatever becomes of the engine or of this process, the same command goes on from
there. Machines need the release and the files that the request names, under the same paths; they see no workspace.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dissect.errors import DissectError
from dissect.outcome import Outcome
from dissect.preparing import prepare
from dissect.progress import Progress
from dissect.request import RunRequest
from dissect.running import lock
from dissect.scan import BLOCKS
from dissect.service.queueing import SHARD_IMAGES
from dissect.shard_files import ShardFiles, copied
from dissect.shards import merge
from dissect.store import Store
from dissect.workspace import Workspace


@dataclass(frozen=True)
class Order:
    """What an engine is asked for: shards of a run. values: the request in plain values."""

    values: Mapping[str, Any]
    run_id: str
    count: int


@dataclass(frozen=True)
class Measured:
    """A partial with its sha256, taken where it was made, and what it took."""

    number: int
    data: bytes
    sha256: str
    took: Mapping[str, float]


class Engine(Protocol):
    """Maps shards to partials; slots: how many it can measure at once."""

    @property
    def slots(self) -> int: ...

    def map(self, order: Order, numbers: Sequence[int]) -> Iterator[Measured]:
        """Each shard once, in any order. Raises DissectError where one cannot be measured."""


def run_spread(workspace: Workspace, request: RunRequest, engine: Engine, announce: Callable[[str], None]) -> Outcome:
    """Dissect what a request describes on an engine: as `run_dissection`, with the same bits."""
    prepared = prepare(workspace, request, announce)
    run_id, images = prepared.run_id, len(prepared.data)
    files = ShardFiles(workspace, run_id)
    values = files.keep_request(prepared.request)
    with lock(workspace, run_id, "engine"):
        if not _finished(workspace, run_id):
            count = files.begun() or min(BLOCKS, max(engine.slots, math.ceil(images / SHARD_IMAGES)))
            missing = sorted(set(range(count)) - files.partials(count).keys())
            announce(f"{count} shards, {count - len(missing)} of them there already")
            progress = Progress("shards", count, count - len(missing), "shards")
            for one in engine.map(Order(values, run_id, count), missing):
                if hashlib.sha256(one.data).hexdigest() != one.sha256:
                    raise DissectError(f"shard {one.number}/{count} came back damaged: run the same command again")
                files.keep((one.number, count), copied(one.data, dict(one.took)))
                progress.advance(1)
            progress.close()
        return merge(workspace, run_id, announce)


def _finished(workspace: Workspace, run_id: str) -> bool:
    with Store.open(workspace) as store:
        return any(run.id == run_id for run in store.runs(["finished"]))
