"""A workspace with pages, served to a client in this process."""

from pathlib import Path
from typing import Any

import pytest

import dissect.api
from dissect.serve.limits import Limits
from dissect.workspace import Workspace
from tests.dissect.serve.workspace import made


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `workspace.made`."""
    pytest.importorskip("fastapi", reason="the extra [serve] is missing")
    return made(tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(served: Path) -> Any:
    return make_client(served)


def make_client(folder: Path, hosts: tuple[str, ...] = (), limits: Limits | None = None) -> Any:
    """A client of a workspace; what the server raises is an answer, as on a real connection."""
    from fastapi.testclient import TestClient

    from dissect.serve.app import application

    app = application(Workspace.at(folder), hosts, limits or Limits())
    return TestClient(app, base_url="http://127.0.0.1:8712", raise_server_exceptions=False)  # type: ignore[arg-type]


@pytest.fixture
def work(served: Path) -> Any:
    return dissect.api.open(served)
