"""A worker: claims shards, has each done by a child process, and tells the ledger what came of it."""

import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any, ParamSpec, TypeVar

from dissect.errors import RetryLater
from dissect.process import code_version
from dissect.progress import size
from dissect.service.children import Child, End
from dissect.service.metrics import write_metrics
from dissect.store import Store
from dissect.store.ledger import ATTEMPTS, OPEN, Lease, Ledger
from dissect.workspace import Workspace

P = ParamSpec("P")
T = TypeVar("T")
LEASE_SECONDS = 60.0
PATIENCE = 600.0
MAX_BAD_SHARE = 0.01
"""More images than this share of a job are not set aside: then something else is wrong."""
_SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
_FINAL = (2, 4)  # exit codes that another attempt would not change


@dataclass
class Worker:
    """Works until nothing is left to do, or for ever. pause: seconds before a second attempt, doubled for each further
    one."""

    workspace: Workspace
    log: logging.Logger
    lease_seconds: float = LEASE_SECONDS
    pause: float = 5.0
    forever: bool = False
    _child: Child = field(default_factory=Child, repr=False)
    _stop: int = 0
    _failed: bool = field(default=False, repr=False)
    _excluded: bool = field(default=False, repr=False)

    @property
    def name(self) -> str:
        return self.log.name

    def run(self) -> int:
        """The exit code: 0, 1 where a job failed under its hands, 3 where one ended without some images, or that of the
        signal that stopped it."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            with self._child, self._patiently(Store.open, self.workspace) as store:
                self._loop(Ledger(store, time.time))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._stop or (1 if self._failed else 3 if self._excluded else 0)

    def _loop(self, ledger: Ledger) -> None:
        while not self._stop:
            lease = self._patiently(ledger.claim, self.name, self.lease_seconds, code_version())
            if lease is not None:
                self._work(ledger, lease)
                if lease.kind == "finish":
                    self._child.close()
                self._patiently(write_metrics, ledger.store)
                continue
            self._child.close()
            if self.forever or any(
                j.state in OPEN and j.code_version == code_version() for j in self._patiently(ledger.jobs)
            ):
                time.sleep(min(1.0, self.lease_seconds / 4))  # somebody else's shard may come free
            else:
                return

    def _patiently(self, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Ask the ledger; while the database is locked or away, again, for up to PATIENCE seconds."""
        begun, pause = time.monotonic(), 0.5
        while True:
            try:
                return ask(*args, **kwargs)
            except RetryLater as error:
                if self._stop or time.monotonic() - begun > PATIENCE:
                    raise
                self.log.warning(str(error))
                time.sleep(pause)
                pause = min(2 * pause, 10.0)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            os._exit(self._stop)
        self._stop = _SIGNALS[signal.Signals(number)]

    def _work(self, ledger: Ledger, lease: Lease) -> None:
        what = f"shard {lease.number}/{lease.count}" if lease.kind == "measure" else "finishing"
        self._tell(ledger, lease, f"{what}: attempt {lease.attempts}")
        started = time.monotonic()
        end = self._do(ledger, lease, lease.kind)
        if end is None:
            if self._stop and self._patiently(ledger.give_back, lease):
                self._tell(ledger, lease, f"{what}: given back")
            return
        if end.code == 0:
            kept = self._patiently(ledger.commit, lease, end.result.get("partial"))
            self._excluded |= kept and bool(end.result.get("excluded"))
            seconds = time.monotonic() - started
            outcome = f"{'done' if kept else 'too late, not kept'} in {seconds:.1f} s{_spent(end.result.get('took'))}"
            self._tell(ledger, lease, f"{what}: {outcome}", seconds, logging.INFO if kept else logging.WARNING)
            return
        died = end.code < 0
        reason = end.complaint or f"the process was ended by {'signal' if died else 'code'} {abs(end.code)}"
        if died and lease.kind == "measure" and lease.attempts >= ATTEMPTS and self._poison(ledger, lease, reason):
            return
        if end.code in _FINAL:
            lease = replace(lease, attempts=max(lease.attempts, ATTEMPTS))
        if end.code == RetryLater.exit_code:  # somebody else is at it, or the database is away: no failure of the shard
            self._patiently(ledger.give_back, lease)
            self._tell(ledger, lease, f"{what}: later, {reason}", time.monotonic() - started, logging.WARNING)
            time.sleep(self.pause)
            return
        pause = self.pause * 2 ** (lease.attempts - 1) * (1 + random.random())
        if self._patiently(ledger.fail, lease, reason, pause):
            self._failed |= lease.attempts >= ATTEMPTS
            level = logging.ERROR if lease.attempts >= ATTEMPTS else logging.WARNING
            self._tell(ledger, lease, f"{what}: failed, {reason}", time.monotonic() - started, level)

    def _do(self, ledger: Ledger, lease: Lease, kind: str, **more: Any) -> End | None:
        """Have a child do its part of a shard; None where it was stopped, because this worker is or because the shard
        is no longer held."""
        task = {
            "workspace": str(self.workspace.root.absolute()), "db": self.workspace.url, "run": lease.run_id,
            "kind": kind, "shard": [lease.number, lease.count], "bad": dict(lease.bad),
        }  # fmt: skip
        renewed = time.monotonic()

        def stop() -> bool:
            nonlocal renewed
            lost = False
            if time.monotonic() - renewed > self.lease_seconds / 3:
                renewed = time.monotonic()
                try:
                    lost = not ledger.renew(lease, self.lease_seconds)
                except RetryLater as error:  # the lease holds for a while; whether it held is asked at the end
                    self.log.warning(str(error))
            return bool(self._stop) or lost

        return self._child.do(task | more, stop)

    def _poison(self, ledger: Ledger, lease: Lease, reason: str) -> bool:
        """Find the image that ends the process, and set it aside. False where no single one does, or too many would be
        gone."""
        job = next(job for job in self._patiently(ledger.jobs) if job.id == lease.job_id)
        if len(lease.bad) + 1 > max(1, MAX_BAD_SHARE * job.images):
            return False
        listed = self._do(ledger, lease, "positions")
        positions: list[int] = listed.result.get("positions", []) if listed else []
        ends: Callable[[list[int]], bool] = lambda part: self._ends(ledger, lease, part)  # noqa: E731
        if not positions or not ends(positions):
            return False
        while len(positions) > 1 and not self._stop:
            half = len(positions) // 2
            positions = positions[:half] if ends(positions[:half]) else positions[half:]
        if self._stop or not ends(positions):
            return False
        if self._patiently(ledger.exclude, lease, positions[0], f"it ends the process that reads it: {reason}"):
            text = f"image {positions[0]} is set aside: {reason}"
            self._tell(ledger, lease, text, level=logging.WARNING)
        return True

    def _ends(self, ledger: Ledger, lease: Lease, positions: list[int]) -> bool:
        end = self._do(ledger, lease, "probe", positions=positions)
        return end is not None and end.code < 0

    def _tell(
        self, ledger: Ledger, lease: Lease, text: str, seconds: float | None = None, level: int = logging.INFO
    ) -> None:
        """Into the ledger, for everybody, and into the log of this worker."""
        self._patiently(ledger.note, lease.job_id, self.name, text)
        facts = {"job": lease.job_id, "run": lease.run_id, "shard": lease.number, "attempt": lease.attempts}
        self.log.log(level, text, extra=facts if seconds is None else facts | {"ms": round(1000 * seconds)})


def _spent(took: Mapping[str, float] | None) -> str:
    """What a shard took, for people; nothing where it is not known."""
    if not took:
        return ""
    phases = (("forward", "forward_s"), ("waiting for pictures", "decode_s"), ("thresholds", "threshold_s"))
    seconds = ", ".join(f"{what} {took[name]:.1f} s" for what, name in phases)
    return f" ({seconds}; {size(int(took['peak_rss_bytes']))} of memory, partial {size(int(took['bytes']))})"


def worker_name() -> str:
    """Unique among live workers: host and process."""
    return f"{socket.gethostname()}-{os.getpid()}"
