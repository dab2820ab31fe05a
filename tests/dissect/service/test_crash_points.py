"""What is left when a process ends between two writes: another worker goes on from it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dissect.cli.main import main
from dissect.errors import SpecError
from dissect.service.spec import read_spec
from dissect.store.ledger import Lease, Ledger
from tests.dissect.service.test_ledger import Clock, claim, submit
from tests.dissect.store import makers
from tests.dissect.test_cli_run import NET, run, scores
from tests.dissect.tiny import TinySet


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with makers.open_store(tmp_path) as store:
        yield Ledger(store, Clock())


def crash(*_: object) -> None:
    raise Crash


def last(ledger: Ledger) -> Lease:
    submit(ledger, count=1)
    assert ledger.commit(claim(ledger), "0.partial")
    return claim(ledger)


def test_a_job_ends_with_its_last_shard_or_not_at_all(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = last(ledger)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_end", crash)
        with pytest.raises(Crash):
            ledger.commit(lease, None)
    assert ledger.commit(lease, None)  # it is still held: nothing of the first try was kept
    assert ledger.jobs()[0].state == "finished"


def test_merging_again_after_the_shards_are_gone_builds_the_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TinySet(tmp_path / "data", images=30)
    (tmp_path / "net.py").write_text(NET)
    workspace = tmp_path / "ws"
    asked = ("--layer", "0", "--batch-size", "2", "--name", "same")
    assert run(tmp_path, workspace, *asked, "--shard", "0/1") == 0
    with monkeypatch.context() as patch:
        patch.setattr("dissect.shards.report", crash)
        with pytest.raises(Crash):
            main(["merge", "--workspace", str(workspace)])
    before = scores(workspace)
    for path in workspace.glob("cache/*/shards/*.partial"):
        path.unlink()
    assert main(["merge", "--workspace", str(workspace)]) == 0
    assert scores(workspace) == before
    assert (workspace / "reports" / "same" / "index.html").is_file()


def test_a_name_is_one_run_in_the_whole_file(tmp_path: Path) -> None:
    table = '[[run]]\nmodel = "demo"\nlayers = ["a"]\ndata = "d"\nname = "n"\nquantile = {}\n'
    path = tmp_path / "spec.toml"
    path.write_text(table.format(0.1) + table.format(0.2))
    with pytest.raises(SpecError, match="share the name 'n'"):
        read_spec(path)
