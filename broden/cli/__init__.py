"""The commands of `python -m broden`, one module each.

Exit codes: 0 ok, 1 failed, 2 wrong arguments or unusable data, 3 finished with faults, 5 out of space or memory.
Results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = ("info", "verify", "stats", "images", "synth", "build", "pack", "unpack")


def parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    top = argparse.ArgumentParser(prog="python -m broden", description="Concept data: images with label planes.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"broden.cli.{name}").register(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = parser().parse_args(arguments)
    from broden.errors import BrodenError, DataError, SpaceFault

    try:
        code = int(args.handler(args))
        sys.stdout.flush()
    except (DataError, ValueError) as error:
        return _fail(error, 2)
    except (SpaceFault, MemoryError) as error:
        return _fail(error, 5)
    except BrokenPipeError:
        # The reader (head, less) has seen enough: leave without a second complaint at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (BrodenError, OSError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return code


def _fail(error: BaseException, code: int) -> int:
    print(f"error: {error or type(error).__name__}", file=sys.stderr)
    return code
