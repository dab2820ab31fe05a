"""Errors of the driver: which of them mean "later", and which never get better."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError

from dissect.errors import DissectError, RetryLater, SpecError
from dissect.store import Store, faults
from dissect.workspace import Workspace


def told(error: BaseException) -> type[DissectError]:
    with pytest.raises(DissectError) as caught, faults.translated("here"):
        raise error
    assert "here" in str(caught.value)
    return type(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "consuming input failed: could not receive data from server: No route to host",
        "sending query failed: Broken pipe",
        "the connection is closed",
        "could not translate host name",
    ],
)
def test_a_server_out_of_reach_is_asked_again_whatever_the_system_calls_it(words: str) -> None:
    assert told(OperationalError("SELECT 1", {}, psycopg.OperationalError(words))) is RetryLater
    assert told(InterfaceError("SELECT 1", {}, psycopg.InterfaceError(words))) is RetryLater


@pytest.mark.parametrize("name", ["AdminShutdown", "CrashShutdown", "CannotConnectNow", "ConnectionFailure"])
def test_a_server_that_goes_or_comes_is_asked_again(name: str) -> None:
    kind = getattr(psycopg.errors, name)
    assert told(OperationalError("SELECT 1", {}, kind("terminating"))) is RetryLater


def test_what_never_gets_better_is_not_asked_again(tmp_path: Path, postgres_url: str) -> None:
    absent = postgres_url.replace("?", "_absent?")
    with pytest.raises(SpecError, match="does not exist"):
        Store.open(Workspace.at(tmp_path, absent))
    assert told(ProgrammingError("SELECT x", {}, psycopg.errors.UndefinedColumn("no column x"))) is DissectError
    assert told(OperationalError("SELECT 1", {}, sqlite3.OperationalError("no such table: x"))) is DissectError
