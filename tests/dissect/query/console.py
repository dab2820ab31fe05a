"""Runs a command module as the command line would."""

import argparse
import contextlib
import io
import json
from typing import Any

from dissect.cli import cmd_export, cmd_query, cmd_runs


class _Stream(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="", write_through=True)

    def bytes(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]


def run(*words: str) -> tuple[bytes, str]:
    """stdout and stderr of `dissect …`."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    for module in (cmd_query, cmd_runs, cmd_export):
        module.register(commands)
    args = parser.parse_args(list(words))
    out, err = _Stream(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert args.handler(args) == 0
    return out.bytes(), err.getvalue()


def rows(*words: str) -> list[dict[str, Any]]:
    """The objects that `dissect … --format json` prints."""
    return json.loads(run(*words, "--format", "json")[0])
