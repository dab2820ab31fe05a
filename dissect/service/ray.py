"""The engine on a Ray cluster that is there already. Ray only carries shards out and partials back.

It never retries: a shard whose process or machine is gone is asked for again here, at most ATTEMPTS times, and one that
takes far longer than the others is given up there and asked for elsewhere (a cut link shows in no other way for
minutes). Nodes that are added to the cluster are used; jobs of a driver that dies are ended by Ray. A cluster whose
head is gone ends the command; what came back before is kept.
"""

import hashlib
import logging
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from dissect.errors import DissectError, RetryLater, SpecError
from dissect.service.spread import Measured, Order
from dissect.shard_files import Took
from dissect.shards import measure_elsewhere

ATTEMPTS = 3
CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 15.0
"""Without a head for so long, the cluster is gone: Ray itself would end this process after a minute, without a word."""
PATIENCE = 60.0
"""Seconds, and at least five times what the slowest shard took, after which a shard is asked for elsewhere."""


class Ray:
    """Joins the cluster at `address` (host:port or ray://…; the one on this machine without) for a with block.

    Raises SpecError without the extra, RetryLater where no cluster answers.
    """

    def __init__(self, address: str | None = None, patience: float = PATIENCE) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError:
            raise SpecError("--engine ray needs Ray: pip install 'dissect[ray]'") from None
        self._ray, self.address, self.patience = ray, address or "auto", patience

    def __enter__(self) -> "Ray":
        _reach(self.address)
        try:
            self._ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _absent(self.address, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ray.shutdown()

    @property
    def slots(self) -> int:
        """CPUs of the cluster: a shard takes one, and a GPU beside it where the request asks for one."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _answers(self) -> bool:
        try:
            _reach(self._ray.get_runtime_context().gcs_address)
        except RetryLater:
            return False
        return True

    def map(self, order: Order, numbers: Sequence[int]) -> Iterator[Measured]:
        """See `spread.Engine`. Raises RetryLater where the cluster goes away."""
        try:
            yield from self._map(order, numbers)
        except (OSError, self._ray.exceptions.RayError) as error:  # of the connection: a shard's own are told below
            raise _gone(self.address, str(error)) from error

    def _map(self, order: Order, numbers: Sequence[int]) -> Iterator[Measured]:
        ray, errors = self._ray, self._ray.exceptions
        gpus = 1 if str(order.values["device"]).startswith("cuda") else 0
        task = ray.remote(_measured).options(num_cpus=1, num_gpus=gpus, max_retries=0)
        waiting, running = deque(numbers), dict[Any, tuple[int, float]]()
        tries: Counter[int] = Counter()
        slowest, heard = 0.0, time.monotonic()
        while waiting or running:
            while waiting and len(running) < self.slots:
                number = waiting.popleft()
                tries[number] += 1
                ref = task.remote(dict(order.values), order.run_id, (number, order.count))
                running[ref] = number, time.monotonic()
            ready, _ = ray.wait(list(running), num_returns=1, timeout=1)
            if ready or self._answers():
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE_SECONDS:
                raise _gone(self.address, f"its head has not answered for {SILENCE_SECONDS:.0f} s")
            lost: dict[int, str] = {}
            for ref in ready:
                number, start = running.pop(ref)
                try:
                    data, sha256, took = ray.get(ref)
                except errors.RayTaskError as error:
                    raise _told(error.cause) from None
                except errors.RayError as error:  # the process, the machine or the object is gone
                    lost[number] = str(error).splitlines()[0]
                    continue
                slowest = max(slowest, time.monotonic() - start)
                yield Measured(number, data, sha256, took)
            late = time.monotonic() - max(self.patience, 5 * slowest)
            for ref in [ref for ref, (_, start) in running.items() if slowest and start < late]:
                number, _ = running.pop(ref)
                ray.cancel(ref, force=True)
                lost[number] = "no word from where it is measured"
            for number, reason in lost.items():
                if tries[number] >= ATTEMPTS:
                    raise DissectError(f"shard {number}/{order.count} was lost {ATTEMPTS} times: {reason}")
                waiting.append(number)


def _gone(address: str, reason: str) -> RetryLater:
    first = reason.strip().partition("\n")[0]
    return RetryLater(
        f"the Ray cluster {_where(address)} is gone ({first}): what it had measured is kept, the same command goes on "
        "from there"
    )


def _reach(address: str) -> None:
    """Raises RetryLater where nothing listens: Ray itself would go on trying for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise _absent(address, error) from None


def _absent(address: str, error: Exception) -> RetryLater:
    return RetryLater(
        f"no Ray cluster answers {_where(address)} ({str(error).splitlines()[0]}): start one with `ray start --head` "
        "and name it with --ray-address"
    )


def _where(address: str) -> str:
    return "on this machine" if address == "auto" else f"at {address}"


def _measured(values: Mapping[str, Any], run_id: str, shard: tuple[int, int]) -> tuple[bytes, str, Took]:
    """Runs on a node."""
    data, took = measure_elsewhere(values, run_id, shard)
    return data, hashlib.sha256(data).hexdigest(), took


def _told(cause: BaseException) -> DissectError:
    """What went wrong on a node, as it would have been told here."""
    return cause if isinstance(cause, DissectError) else DissectError(f"{type(cause).__name__} on a node: {cause}")
