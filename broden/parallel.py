"""Work spread over child processes, results in order.

The children are plain interpreters that import one function by name. Unlike multiprocessing's spawn they never
run the caller's main module again, so a script without a guard may call us; unlike fork they are safe when the
caller has threads. A child ends when its input closes, so none outlives its parent.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from typing import IO, Any

from broden.errors import BrodenError

_START = "import sys; sys.path[:] = {path!r}; from broden.parallel import child; child()"


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _send(pipe: IO[bytes], value: Any) -> None:
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    pipe.write(len(data).to_bytes(8, "little") + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError
    # Both ends are our own processes, joined by an anonymous pipe.
    return pickle.loads(pipe.read(int.from_bytes(head, "little")))  # noqa: S301


def child() -> None:
    """Main function of a child process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    inbox, outbox = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not reach the pipe
    module, name, shared = _receive(inbox)
    function = getattr(import_module(module), name)
    while True:
        try:
            task = _receive(inbox)
        except EOFError:
            return
        try:
            answer = (True, function(shared, task))
        except Exception as error:  # carried to the parent and raised there
            answer = (False, error)
        _send(outbox, answer)


class _Child:
    def __init__(self, module: str, name: str, shared: Any) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        path = [entry or os.getcwd() for entry in sys.path]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START.format(path=path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self.call(module, name, shared)

    def call(self, *message: Any) -> None:
        assert self.process.stdin is not None
        _send(self.process.stdin, message)

    def ask(self, task: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            _send(self.process.stdin, task)
            good, value = _receive(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise BrodenError(f"a worker process ended with status {self.process.wait()} in the middle") from None
        if not good:
            raise value
        return value

    def close(self, at_once: bool) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if at_once:
            self.process.kill()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
        self.process.wait()


def ordered(module: str, name: str, shared: Any, tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    """`function(shared, task)` for every task, results in the order of the tasks.

    The function is `name` in the importable `module`. With one worker it runs in this process. At most two tasks
    a worker are in flight, so memory does not grow with their number. Raises what the function raises, and
    BrodenError if a worker process dies.
    """
    if workers <= 1:
        function = getattr(import_module(module), name)
        for task in tasks:
            yield function(shared, task)
        return
    children = [_Child(module, name, shared) for _ in range(workers)]
    free: queue.SimpleQueue[_Child] = queue.SimpleQueue()
    for one in children:
        free.put(one)

    def ask(task: Any) -> Any:
        one = free.get()
        try:
            return one.ask(task)
        finally:
            free.put(one)

    finished = False
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(ask, task))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        finished = True
    finally:
        for job in waiting:
            job.cancel()
        for one in children:
            if not finished:
                one.process.kill()
        pool.shutdown(wait=True)
        for one in children:
            one.close(at_once=not finished)
