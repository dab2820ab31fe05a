"""A run spread over an engine ends with the bits of one process, whatever dies: on a Ray cluster of several nodes."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from dissect import shards
from dissect.cli.main import main
from dissect.errors import DissectError, RetryLater, SpecError
from dissect.request import RunRequest
from dissect.service import spread
from dissect.shard_files import plain
from dissect.workspace import Workspace
from tests.dissect.service import nodes
from tests.dissect.tiny import TinySet

NET = """
import os
import time

import torch
from torch import nn


def build(num_classes=4):
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(7, num_classes, 1))


def slow():
    class Slow(nn.Module):
        def forward(self, x):
            time.sleep(0.25)
            return x

    return nn.Sequential(Slow(), *build())


def halted():
    # waits as long as the file `halt` is beside this one
    class Halted(nn.Module):
        def forward(self, x):
            while x.std() > 0 and os.path.exists(os.path.join(os.path.dirname(__file__), "halt")):
                time.sleep(0.1)
            return x

    return nn.Sequential(Halted(), *build())


def fatal():
    class Fatal(nn.Module):
        def forward(self, x):
            if len(x) == 5 and x.std() > 0:  # not the black image that shapes are asked with
                os._exit(9)
            return x

    return nn.Sequential(Fatal(), *build())
"""
LAYERS = {"build": "0", "slow": "1", "halted": "1", "fatal": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    TinySet(folder / "data", images=60)
    (folder / "net.py").write_text(NET)
    return folder


def arguments(place: Path, workspace: Path, model: str, *more: str) -> list[str]:
    digest = hashlib.sha256((place / "net.py").read_bytes()).hexdigest()
    return [
        "run", f"{place / 'net.py'}:{model}", "--trust-code", digest, "--data", str(place / "data"), "--layer",
        LAYERS[model], "--quantile", "0.05", "--batch-size", "5", "--name", "same", "--workspace", str(workspace),
        *more,
    ]  # fmt: skip


def request(place: Path, model: str) -> RunRequest:
    digest = hashlib.sha256((place / "net.py").read_bytes()).hexdigest()
    return RunRequest(
        f"{place / 'net.py'}:{model}", (LAYERS[model],), str(place / "data"), trust=digest, quantile=0.05, batch_size=5,
        name="same",
    )  # fmt: skip


def rows(workspace: Path) -> dict[str, list[tuple[object, ...]]]:
    found = {}
    with sqlite3.connect(workspace / "dissect.sqlite") as db:
        for table in ("units", "scores", "exemplars", "unit_areas", "concepts", "categories", "excluded"):
            found[table] = sorted(db.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    return found


def pages(workspace: Path) -> dict[str, bytes]:
    """What the pages draw; the plain page of a run tells where it was made."""
    layers = workspace / "reports" / "same" / "layers"
    return {p.relative_to(layers).as_posix(): p.read_bytes() for p in sorted(layers.rglob("*")) if p.is_file()}


class Here:
    """An engine in this process, out of order."""

    slots = 3

    def __init__(self, spoil: Callable[[spread.Measured], spread.Measured] = lambda one: one) -> None:
        self.asked: list[int] = []
        self.spoil = spoil

    def map(self, order: spread.Order, numbers: Sequence[int]) -> Iterator[spread.Measured]:
        for number in reversed(numbers):
            self.asked.append(number)
            data, took = shards.measure_elsewhere(order.values, order.run_id, (number, order.count))
            yield self.spoil(spread.Measured(number, data, hashlib.sha256(data).hexdigest(), took))


def test_any_engine_ends_like_one_process(place: Path, tmp_path: Path) -> None:
    assert main(arguments(place, tmp_path / "one", "build")) == 0
    engine = Here()
    outcome = spread.run_spread(Workspace.at(tmp_path / "many"), request(place, "build"), engine, lambda line: None)
    assert sorted(engine.asked) == [0, 1, 2]
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert pages(tmp_path / "many") == pages(tmp_path / "one")
    assert outcome.run.timings["forward_s"] > 0
    again = Here()
    repeated = spread.run_spread(Workspace.at(tmp_path / "many"), request(place, "build"), again, lambda line: None)
    assert (again.asked, repeated.fresh) == ([], False)


def test_what_came_back_is_kept_and_damage_is_noticed(place: Path, tmp_path: Path) -> None:
    def spoil(one: spread.Measured) -> spread.Measured:
        data = one.data if one.number else one.data[:-1] + bytes([one.data[-1] ^ 1])
        return spread.Measured(one.number, data, one.sha256, one.took)

    workspace = Workspace.at(tmp_path)
    with pytest.raises(DissectError, match="shard 0/3 came back damaged"):
        spread.run_spread(workspace, request(place, "build"), Here(spoil), lambda line: None)
    engine = Here()
    engine.slots = 5  # the cluster has grown, the run stays cut as it was
    spread.run_spread(workspace, request(place, "build"), engine, lambda line: None)
    assert engine.asked == [0]


def test_a_node_with_other_files_is_refused(place: Path) -> None:
    values = plain(request(place, "build"))
    with pytest.raises(SpecError, match="has another release or other files than run 1234"):
        shards.measure_elsewhere(values, "1234", (0, 2))


def test_engine_options_that_contradict_each_other(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(place, tmp_path, "build", "--ray-address", "127.0.0.1:1")) == 2
    assert "--ray-address belongs to --engine ray" in capsys.readouterr().err
    assert main(arguments(place, tmp_path, "build", "--engine", "ray", "--shard", "0/2")) == 2
    assert "choose one" in capsys.readouterr().err


# On Ray.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes.cluster() as found:
        yield found


def test_no_cluster_is_told_with_the_way_out(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    assert (
        main(arguments(place, tmp_path, "build", "--engine", "ray", "--ray-address", "127.0.0.1:1"))
        == RetryLater.exit_code
    )
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err


def on_ray(place: Path, workspace: Path, cluster: Any, model: str) -> list[str]:
    return arguments(place, workspace, model, "--engine", "ray", "--ray-address", cluster.address)


def test_ray_ends_like_one_process(place: Path, tmp_path: Path, cluster: Any) -> None:
    assert main(arguments(place, tmp_path / "one", "build")) == 0
    assert main(on_ray(place, tmp_path / "ray", cluster, "build")) == 0
    assert rows(tmp_path / "ray") == rows(tmp_path / "one")
    assert pages(tmp_path / "ray") == pages(tmp_path / "one")


def test_a_node_that_dies_costs_its_shards_another_attempt(place: Path, tmp_path: Path, cluster: Any) -> None:
    assert main(arguments(place, tmp_path / "one", "slow")) == 0
    doomed = nodes.add_node(cluster)
    ended: list[int] = []
    driver = threading.Thread(target=lambda: ended.append(subprocess.run(
        [sys.executable, "-m", "dissect.cli.main", *on_ray(place, tmp_path / "ray", cluster, "slow")], check=False,
    ).returncode))  # fmt: skip
    driver.start()
    wait_for(lambda: any((tmp_path / "ray").glob("cache/*/shards/*.partial")))
    cluster.remove_node(doomed, allow_graceful=False)
    driver.join(120)
    assert ended == [0]
    assert rows(tmp_path / "ray") == rows(tmp_path / "one")


def test_a_driver_that_dies_is_followed_by_another(place: Path, tmp_path: Path, cluster: Any) -> None:
    assert main(arguments(place, tmp_path / "one", "slow")) == 0
    command = [sys.executable, "-m", "dissect.cli.main", *on_ray(place, tmp_path / "ray", cluster, "slow")]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for(lambda: any((tmp_path / "ray").glob("cache/*/shards/*.partial")))
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("cache/*/shards/*.partial")}
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(kept)} of them there already" in done.stderr
    assert rows(tmp_path / "ray") == rows(tmp_path / "one")


@pytest.mark.slow
def test_a_cluster_that_loses_its_head_is_left_in_time(place: Path, tmp_path: Path, cluster: Any) -> None:
    """Ray would end the driver with SIGABRT after a minute."""
    assert main(arguments(place, tmp_path / "one", "halted")) == 0
    (place / "halt").touch()
    with nodes.cluster() as doomed:
        command = [sys.executable, "-m", "dissect.cli.main", *on_ray(place, tmp_path / "ray", doomed, "halted")]
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: any((tmp_path / "ray").glob("cache/*/shards")))
        time.sleep(2)
        doomed.head_node.kill_gcs_server()
        said = driver.communicate(timeout=50)[1]
    (place / "halt").unlink()
    assert driver.returncode == RetryLater.exit_code, said
    assert "is gone (its head has not answered for 15 s): what it had measured is kept" in said
    assert main(on_ray(place, tmp_path / "ray", cluster, "halted")) == 0
    assert rows(tmp_path / "ray") == rows(tmp_path / "one")


def test_a_shard_that_ends_every_process_is_named(
    place: Path, tmp_path: Path, cluster: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(on_ray(place, tmp_path, cluster, "fatal")) == 1
    assert "was lost 3 times" in capsys.readouterr().err


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)
