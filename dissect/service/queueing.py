"""From a spec to jobs: every run is checked whole before the first is queued."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from broden import BrodenError
from dissect import pipeline
from dissect.errors import SpecError
from dissect.preparing import Prepared, prepare
from dissect.process import code_version
from dissect.scan import BLOCKS
from dissect.service.spec import Spec
from dissect.shard_files import ShardFiles
from dissect.store.ledger import Ledger
from dissect.workspace import Workspace

SHARD_IMAGES = 65536
"""A set of usual size is one shard, which costs no more than a run in one process. It goes on from the state that it
saved last, so small ones are only for those who share a job."""


@dataclass(frozen=True)
class Planned:
    """A run that would be queued, in `shards` shards."""

    prepared: Prepared
    shards: int

    @property
    def images(self) -> int:
        return len(self.prepared.data)

    def estimate(self, workspace: Workspace) -> pipeline.Estimate:
        """What it will take on this machine in one process."""
        prepared = self.prepared
        return pipeline.foretell(prepared.model.module, prepared.data, prepared.method, prepared.resources(workspace))

    def sentence(self) -> str:
        """One line for people."""
        request = self.prepared.request
        return (
            f"{request.name or self.prepared.run_id}: {request.model} {', '.join(request.layers)} on "
            f"{self.prepared.data.name}, {self.images:,} images in {self.shards} shard{'s' if self.shards > 1 else ''}"
        )


def plan(workspace: Workspace, spec: Spec, announce: Callable[[str], None]) -> list[Planned]:
    """Every run of a spec, prepared. Raises SpecError, UnsafeError, naming the run, for the first that cannot be."""
    found = []
    for number, request in enumerate(spec.requests, 1):
        try:
            prepared = prepare(workspace, request, announce)
        except (SpecError, BrodenError) as error:
            raise SpecError(f"run {number} of {len(spec.requests)}: {error}") from None
        count = spec.shards or max(1, min(BLOCKS, math.ceil(len(prepared.data) / SHARD_IMAGES)))
        found.append(Planned(prepared, count))
    return found


def submit(workspace: Workspace, ledger: Ledger, planned: list[Planned], priority: int) -> list[tuple[int, bool]]:
    """Queue planned runs: (job, whether it is new) of each."""
    found = []
    for item in planned:
        request = ShardFiles(workspace, item.prepared.run_id).keep_request(item.prepared.request)
        name = item.prepared.request.name or item.prepared.run_id
        found.append(
            ledger.submit(item.prepared.run_id, name, request, item.shards, item.images, priority, code_version())
        )
    return found
