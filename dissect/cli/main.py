"""`dissect`: parse, run one command, and turn what went wrong into one message and one exit code.

0 ok · 1 failed · 2 usage or spec · 3 finished with excluded inputs · 4 refused as unsafe ·
5 out of space or memory · 75 retry later.
"""

import argparse
import errno
import os
import sys
from importlib import import_module
from pathlib import Path

from dissect.errors import DissectError
from dissect.process import tune

DESCRIPTION = """\
Network dissection: which concept does each unit of a network detect, and can one believe it?

  dissect demo                                     the whole product in about a minute
  dissect run resnet18 --layer layer4 --data DIR   dissect a network on a Broden-format set
  dissect query units --concept dog                ask the table
"""

ORDER = (
    "demo", "run", "runs", "query", "report", "compare", "curve", "export", "import", "submit", "worker", "jobs",
    "logs", "cancel", "retry", "merge", "gc", "serve", "attribute", "judge", "invert", "maximize", "dream", "fool",
    "adversarial", "retrieve", "transfer", "compare-representations", "memorize", "exemplars", "ablate", "compose",
    "doctor",
)  # fmt: skip


def commands() -> list[str]:
    """Names of the commands that are there, in the order of the help page."""
    folder = Path(__file__).parent
    found = {path.stem.removeprefix("cmd_").replace("_", "-") for path in folder.glob("cmd_*.py")}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog="dissect", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"dissect {version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in commands():
        import_module(f"dissect.cli.cmd_{name.replace('-', '_')}").register(subparsers)
    return parser


def version() -> str:
    """The installed version of dissect."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("dissect")
    except PackageNotFoundError:
        return "(not installed)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    tune()
    try:
        options = build_parser().parse_args(arguments)
        return int(options.handler(options))
    except SystemExit as stop:  # argparse: 0 after --help, 2 after a usage error
        return int(stop.code or 0)
    except DissectError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from where it was", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        return _fail("out of memory: lower --batch-size or --memory", 5)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"no space left on the disk{_named(error)}; free some, then repeat the command", 5)
        return _fail(f"{error.strerror or error}{_named(error)}", 1)
    except Exception as error:
        code = _broden_code(error)
        if code is None:
            raise
        return _fail(str(error), code)


def _named(error: OSError) -> str:
    return f" ({error.filename})" if error.filename else ""


def _broden_code(error: Exception) -> int | None:
    from broden import BrodenError

    return 2 if isinstance(error, BrodenError) else None


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"dissect: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
