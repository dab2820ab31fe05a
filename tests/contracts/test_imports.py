"""Who may import whom: leaf packages stay leaves, each third-party library has one door, stages stay apart."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("broden", "reports", "dissect")

# Library -> where it may be imported.
DOORS = {
    "sqlalchemy": ("dissect/store/",),
    "torchvision": ("dissect/models/",),
    "timm": ("dissect/models/",),
    "jinja2": ("reports/",),
    "fastapi": ("dissect/serve/",),
    "ray": ("dissect/service/",),
}

# From the bottom to the top; a module imports only its own rank or lower ones, never the reverse.
RANKS = (
    ("ahead", "errors", "heap", "process", "progress", "prometheus", "suggest", "_C", "_C_cuda", "assets"),
    ("upsample", "reference", "histogram", "arena"),
    ("ops",),
    ("conventions", "models", "chunk", "gatherer"),
    ("scan", "peaks", "bases", "candidates", "labels", "activations", "checkpoint", "shelf"),
    ("measures", "scores", "statistics"),
    ("method", "thresholds", "exemplars", "overlap", "forward", "plan", "results"),
    ("setting",),
    ("work",),
    ("null",),
    ("measuring", "counting", "finished", "estimate"),
    ("partial",),
    ("pipeline", "store", "workspace", "attribution", "inversion"),
    ("comparison", "sanity"),
    ("query", "golden", "publish"),
    ("api",),
    ("request", "outcome"),
    ("untrained",),
    ("threshold_file", "shard_files"),
    ("preparing",),
    ("recording",),
    ("running",),
    ("shards", "curve"),
    ("service", "serve"),
    ("cli",),
)
# Modules of one rank that may import each other.
TOGETHER = {("exemplars", "scan"), ("query", "golden")}


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = dict(modules())


@pytest.mark.parametrize("name", FILES)
def test_leaf_packages_and_doors(name: str) -> None:
    package = name.split("/", 1)[0]
    for module in imported(FILES[name]):
        top = module.split(".")[0]
        if package in ("broden", "reports"):
            assert top not in set(PACKAGES) - {package}, f"{name} imports {module}"
            assert top not in ("torch", "torchvision", "sqlalchemy"), f"{name} imports {module}"
        for library, doors in DOORS.items():
            assert top != library or name.startswith(doors), f"{name} imports {module}; only {doors} may"


@pytest.mark.parametrize("name", [name for name in FILES if name != "dissect/ops.py"])
def test_only_ops_touches_the_op_registry(name: str) -> None:
    text = FILES[name].read_text()
    assert "torch.ops" not in text
    assert "torch.library" not in text


def rank(module: str) -> int:
    for number, names in enumerate(RANKS):
        if module in names:
            return number
    raise AssertionError(f"dissect.{module} has no place in RANKS")


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("dissect/") and n.count("/") + n.endswith("y") > 1])
def test_lower_modules_never_import_higher_ones(name: str) -> None:
    own = name.split("/")[1].removesuffix(".py")
    if own == "__init__":
        return
    for module in imported(FILES[name]):
        parts = module.split(".")
        if parts[0] == "dissect" and len(parts) > 1 and parts[1] != own:
            assert rank(parts[1]) <= rank(own), f"{name} imports {module}"


def test_reports_is_written_by_publish_alone() -> None:
    users = {name for name, path in FILES.items() if any(m.split(".")[0] == "reports" for m in imported(path))}
    outside = {name for name in users if name.startswith("dissect/") and not name.startswith("dissect/publish/")}
    assert outside <= {"dissect/cli/cmd_report.py", "dissect/cli/cmd_compare.py"}
