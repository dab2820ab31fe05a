"""Worker processes: order, errors, death, no orphans."""

from __future__ import annotations

import os
import signal
import time

import pytest

from broden.errors import BrodenError, DataError
from broden.parallel import ordered


def square(shared: int, task: int) -> int:
    time.sleep(0.002 * (task % 3))
    print("noise on stdout")  # must not reach the pipe
    return shared + task * task


def fail(shared: None, task: int) -> int:
    if task == 5:
        raise DataError("index.csv", 7, "planted")
    return task


def die(shared: None, task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    assert list(ordered(__name__, "square", 10, range(20), workers)) == [10 + n * n for n in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_the_function_arrive_whole(workers: int) -> None:
    with pytest.raises(DataError, match="planted") as caught:
        list(ordered(__name__, "fail", None, range(20), workers))
    assert caught.value.row == 7


def test_a_dead_worker_is_an_error() -> None:
    with pytest.raises(BrodenError, match="worker process ended"):
        list(ordered(__name__, "die", None, range(20), 2))


def test_leaving_early_ends_the_children() -> None:
    results = ordered(__name__, "square", 0, range(1000), 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
