"""Queries that may take only so long."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Executable, event, text
from sqlalchemy.exc import DBAPIError

from dissect.store.store import Store

STEPS = 200  # virtual machine instructions between two looks at the clock


def limit(store: Store, seconds: float, each: bool = False) -> Store:
    """The store, whose readings from now on end in TooSlow once `seconds` are over: of all of them together, or of
    each one."""
    end = time.monotonic() + seconds

    @event.listens_for(store.engine, "connect")
    def hold(connection: Any, _: Any) -> None:  # without a pool every reading connects anew
        last = time.monotonic() + seconds if each else end
        if store.engine.dialect.name == "sqlite":
            connection.set_progress_handler(lambda: int(time.monotonic() > last), STEPS)
        else:
            left = max(1, int(1000 * (last - time.monotonic())))
            connection.execute(f"SET statement_timeout = {left}")
            connection.commit()

    return store


@contextmanager
def deadline(store: Store, seconds: float) -> Iterator[Callable[[Executable], Sequence[Any] | None]]:
    """A function that runs queries and gives their rows, or None once the time of all of them together is up."""
    end = time.monotonic() + seconds
    with store.reading() as connection:
        driver: Any = connection.connection.driver_connection
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            driver.set_progress_handler(lambda: int(time.monotonic() > end), STEPS)

        def run(query: Executable) -> Sequence[Any] | None:
            left = end - time.monotonic()
            if left <= 0:
                return None
            if not sqlite:
                connection.execute(text(f"SET LOCAL statement_timeout = {max(1, int(left * 1000))}"))
            try:
                return connection.execute(query).all()
            except DBAPIError as error:
                if any(word in str(error.orig) for word in ("interrupted", "statement timeout")):
                    return None
                raise

        try:
            yield run
        finally:
            if sqlite:
                driver.set_progress_handler(None, 0)
