"""Stores on both kinds of database."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dissect.store import postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Address of a PostgreSQL server with a slot for the database name; skips where there is none."""
    with tempfile.TemporaryDirectory(prefix="dissect-pg-") as folder, postgres.server(Path(folder)) as server:
        yield server.address


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """URL of a new, empty PostgreSQL database."""
    import psycopg

    name = f"test{next(_numbers)}"
    host = postgres_server.split("host=")[1]
    with psycopg.connect(host=host, user="dissect", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_server.format(name)
