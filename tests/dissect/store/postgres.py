"""A throw-away PostgreSQL server on a Unix socket, where the machine has one."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def _program(name: str) -> str | None:
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(beside[-1]) if beside else None)


class Server:
    """A server whose data lie in `folder`. address: the URL with a slot for the database's name. listen: an address
    of the network that it serves too, to everybody."""

    def __init__(self, folder: Path, listen: str = "") -> None:
        initdb, postgres = _program("initdb"), _program("postgres")
        if initdb is None or postgres is None:
            pytest.skip("PostgreSQL is not installed")
        pytest.importorskip("psycopg", reason="psycopg is not installed")
        self.folder, self.address = folder, f"postgresql+psycopg://dissect@/{{}}?host={folder}"
        options = ["-k", str(folder), "-c", f"listen_addresses={listen}", "-c", "fsync=off"]
        self._command = [postgres, "-D", str(folder / "data"), *options]
        self._options: dict[str, Any] = {
            "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **_account(folder)
        }  # fmt: skip
        create = [initdb, "-D", str(folder / "data"), "-U", "dissect", "-A", "trust", "-N"]
        subprocess.run(create, check=True, **self._options)
        if listen:
            with open(folder / "data" / "pg_hba.conf", "a") as file:
                file.write("host all all 0.0.0.0/0 trust\n")
        self.start()

    def start(self) -> None:
        """Begin to serve, and wait until it does."""
        import psycopg

        self._process = subprocess.Popen(self._command, **self._options)
        for _ in range(200):
            try:
                psycopg.connect(host=str(self.folder), user="dissect", dbname="postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it: SIGQUIT cuts every connection at once, as a crash does."""
        self._process.send_signal(number)
        self._process.wait(20)


def _account(folder: Path) -> dict[str, Any]:
    """Under whom it runs: never root. Skips the test where there is nobody else."""
    if os.geteuid() != 0:
        return {}
    import pwd

    if "postgres" not in [entry.pw_name for entry in pwd.getpwall()]:
        pytest.skip("PostgreSQL does not run as root, and there is no account postgres")
    shutil.chown(folder, "postgres", "postgres")
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o711)
    return {"user": "postgres", "group": "postgres", "extra_groups": ()}


@contextmanager
def server(folder: Path, listen: str = "") -> Iterator[Server]:
    """A server for a with block; skips the test where there is none, or no account to run it under."""
    found = Server(folder, listen)
    try:
        yield found
    finally:
        found.stop(signal.SIGINT)
