"""`dissect doctor`: what is installed, what will count, and why."""

import argparse
import json
import sys

from dissect.cli.common import add_workspace, open_store

PACKAGES = ("dissect", "torch", "torchvision", "numpy", "pillow", "sqlalchemy", "jinja2", "safetensors")

DESCRIPTION = """\
Versions, which kernels are loaded and why, what GPU there is, and facts about SQLite that matter for durability.

With --measures it checks the measures instead: their scores must fall when half of a concept's labels go missing, and
when as many are made up. On the detectors of a run, or on planted ones where none is named.

  dissect doctor
  dissect doctor --measures my-run
"""
_VERDICTS = ("measure", "pairs", "missing", "extra", "passes")


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "doctor", help="versions, kernels, GPU, SQLite; which measures to trust", description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    parser.add_argument(
        "--measures", nargs="?", const="", metavar="RUN", help="which measures notice spoilt labels (of a run)"
    )
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    if args.measures is not None:
        return _measures(args)
    facts = examine()
    if args.json:
        print(json.dumps(facts))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
    return 0 if facts["problems"] == "none" else 1


def _measures(args: argparse.Namespace) -> int:
    from dissect import sanity

    if args.measures:
        with open_store(args) as store:
            cells = sanity.cells_of(store, store.get_run(args.measures))
        verdicts = sanity.check_counts(cells)
    else:
        verdicts = [*sanity.check_counts(sanity.planted()), sanity.check_ranking()]
    found = [{name: getattr(verdict, name) for name in _VERDICTS} for verdict in verdicts]
    if args.json:
        print(json.dumps({"measures": found}))
        return 0
    print(f"{'measure':<10}  {'pairs':>6}  {'labels missing':>14}  {'labels extra':>12}")
    for one in found:
        verdict = "passes" if one["passes"] else "fails"
        print(f"{one['measure']:<10}  {one['pairs']:>6,}  {one['missing']:>14.1%}  {one['extra']:>12.1%}  {verdict}")
    print("\nshare of pairs whose score falls when half of the labels go missing, and when as many are made up")
    return 0


def examine() -> dict[str, str]:
    """Facts by name, all text; `problems` is "none" or what stands in the way, with the way out."""
    from importlib.metadata import PackageNotFoundError, version

    problems = []
    facts = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "missing"
            problems.append(f"{package} is missing: pip install {package}")
    try:
        from dissect.models.sources import find

        find("torchvision:resnet18")
    except (RuntimeError, ImportError) as error:
        problems.append(
            f"torchvision does not import ({str(error).splitlines()[0]}): a CPU-only torch beside the default "
            "torchvision does that; install both from the same place, as plain `pip install torch torchvision` does"
        )
    import torch

    from dissect import ops

    backend = ops.backend()
    facts["kernels"] = "compiled C++" if backend["cpu"] == "compiled" else f"plain reference, slow ({backend['why']})"
    if backend["cpu"] != "compiled":
        problems.append("the C++ kernels are not loaded: run `make build`, or `pip install .` with a C++ compiler")
    facts["cuda kernels"] = "loaded" if backend["cuda"] == "yes" else f"not in use ({backend['cuda']})"
    facts["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    facts["threads"] = str(torch.get_num_threads())
    facts |= _sqlite()
    facts["problems"] = "; ".join(problems) or "none"
    return facts


def _sqlite() -> dict[str, str]:
    import sqlite3

    numbers = tuple(int(part) for part in sqlite3.sqlite_version.split("."))
    fixed = numbers >= (3, 51, 3) or (3, 50, 7) <= numbers < (3, 51) or (3, 44, 6) <= numbers < (3, 45)
    journal = "WAL is safe in this version" if fixed else "rollback journal (WAL of this version can corrupt a file)"
    return {"sqlite": sqlite3.sqlite_version, "sqlite journal": journal}
