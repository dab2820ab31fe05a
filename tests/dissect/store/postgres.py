"""A throw-away PostgreSQL server on a Unix socket, where the machine has one."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(beside[-1]) if beside else None)


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Yields the address part of a URL; skips the test where there is no server or no account to run it under."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    account: dict[str, str] = {}
    if os.geteuid() == 0:
        import pwd

        if "postgres" not in [entry.pw_name for entry in pwd.getpwall()]:
            pytest.skip("PostgreSQL does not run as root, and there is no account postgres")
        account = {"user": "postgres", "group": "postgres", "extra_groups": ()}  # type: ignore[dict-item]
        shutil.chown(folder, "postgres", "postgres")
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o711)
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([initdb, "-D", data, "-U", "dissect", "-A", "trust", "-N"], check=True, **quiet, **account)  # type: ignore[call-overload]
    options = ["-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen([postgres, "-D", data, *options], **quiet, **account)  # type: ignore[call-overload]
    try:
        import psycopg

        for _ in range(200):
            try:
                psycopg.connect(host=str(folder), user="dissect", dbname="postgres").close()
                break
            except psycopg.OperationalError:
                time.sleep(0.05)
        yield f"postgresql+psycopg://dissect@/{{}}?host={folder}"
    finally:
        process.terminate()
        process.wait(20)
