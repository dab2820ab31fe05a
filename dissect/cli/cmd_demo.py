"""`dissect demo`: the whole product on the network and the concepts that ship with it."""

import argparse
import json
import shlex
import sys
from collections import Counter
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from dissect.cli.common import add_workspace, open_workspace
from dissect.errors import SpecError
from dissect.workspace import DEFAULT

if TYPE_CHECKING:
    from dissect.running import Outcome
    from dissect.workspace import Workspace

IMAGES = 500
SEED = 0
"""Of the concept set. The network was trained on pictures of another seed."""
NAMES = {"demo": "demo", "demo:untrained": "demo-untrained"}
"""Run name of each model."""

DESCRIPTION = """\
Generate synthetic pictures with known concepts, dissect a small trained network and an untrained copy of it,
write their reports side by side and ask a first query. Needs no network and about a minute on two cores.

  dissect demo
  dissect demo --out /tmp/first-look

The same command again returns the finished runs.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole product in about a minute",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--out", dest="workspace", default=argparse.SUPPRESS, metavar="DIR", help="the same as --workspace"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.publish import publish_compare
    from dissect.store import Store

    workspace = open_workspace(args)
    data = _concepts(workspace)
    outcomes = {model: _dissect(workspace, data, model) for model in NAMES}
    with Store.open(workspace) as store:
        comparison = publish_compare(store, [NAMES["demo"], NAMES["demo:untrained"]])
    table = _detectors(workspace)
    _say(_summary(outcomes, table, str(comparison)))
    command = _query(args)
    if args.json:
        print(json.dumps(_object(outcomes, table, str(comparison), data, command)))
    else:
        print(outcomes["demo"].report)
    return 3 if any(outcome.excluded for outcome in outcomes.values()) else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _concepts(workspace: "Workspace") -> str:
    """The folder of the concept set, generated where it is not there yet."""
    import broden
    from broden.progress import Progress
    from dissect.models.demo import SIZE

    folder = workspace.root / "cache" / f"synthetic-{IMAGES}-{SIZE}px"
    if not (folder / "index.csv").exists():
        _say(f"generating {IMAGES} pictures of {SIZE} x {SIZE} with known concepts")
        progress = Progress()
        broden.synth(folder, images=IMAGES, size=SIZE, seed=SEED, progress=progress)
        progress.close()
    return str(folder)


def _dissect(workspace: "Workspace", data: str, model: str) -> "Outcome":
    """The finished run of one of the two networks."""
    from dissect.models.demo import LAYER
    from dissect.running import RunRequest, run_dissection

    _say(f"dissecting layer {LAYER} of {model}")
    try:
        return run_dissection(workspace, RunRequest(model, (LAYER,), data, name=NAMES[model]), _say)
    except SpecError as error:
        raise SpecError(f"{error}; or give the demo a folder of its own: dissect demo --out DIR") from error


def _detectors(workspace: "Workspace") -> dict[str, dict[str, int]]:
    """Detectors of each network by the category of their label."""
    from broden.schema import CATEGORIES
    from dissect.api import Dissections

    work = Dissections(workspace)
    counts = {model: Counter(work.units(run=name, detectors=True).column("category")) for model, name in NAMES.items()}
    return {kind: {model: found[kind] for model, found in counts.items()} for kind in sorted(CATEGORIES)}


def _summary(outcomes: dict[str, "Outcome"], table: dict[str, dict[str, int]], comparison: str) -> str:
    """The closing lines for people."""
    from dissect.models.demo import LAYER
    from dissect.progress import duration, size

    facts = {model: outcome.layers[LAYER] for model, outcome in outcomes.items()}
    rows: list[tuple[str, ...]] = [("", "trained", "untrained")]
    rows += [(kind, *(str(count) for count in counts.values())) for kind, counts in table.items()]
    for title, key in (("detectors", "detectors"), ("of units", "units"), ("unique concepts", "unique_concepts")):
        rows.append((title, *(str(found[key]) for found in facts.values())))
    lines = ["", f"Units of {LAYER} that detect a concept (IoU > 0.04), by category:", ""]
    lines += [f"  {name:<16}{one:>9}{other:>11}" for name, one, other in rows]
    seconds = sum(outcome.run.timings.get("wall_s", 0.0) for outcome in outcomes.values() if outcome.fresh)
    memory = max(outcome.run.peak_rss_bytes or 0 for outcome in outcomes.values())
    spent = f"{duration(seconds)}, {size(memory)} of memory" if seconds else "none, both runs were finished already"
    lines += [
        "",
        f"time        {spent}",
        f"database    {outcomes['demo'].database}",
        f"report      {outcomes['demo'].report}",
        f"untrained   {outcomes['demo:untrained'].report}",
        f"comparison  {comparison}",
        "",
    ]
    return "\n".join(lines)


def _query(args: argparse.Namespace) -> str:
    """Ask the table one thing, the way anyone can; returns the command."""
    from dissect.cli.main import build_parser

    words = ["query", "units", "--run", NAMES["demo"], "--category", "object", "--detectors", "--top", "5"]
    if args.workspace != DEFAULT:
        words += ["--workspace", args.workspace]
    if args.db:
        words += ["--db", args.db]
    command = shlex.join(["dissect", *words])
    _say(f"The best object detectors, with `{command}`:\n")
    options = build_parser().parse_args(words)
    with redirect_stdout(sys.stderr):  # stdout is for machines, and this is for people
        options.handler(options)
    _say("")
    return command


def _object(
    outcomes: dict[str, "Outcome"], table: dict[str, dict[str, int]], comparison: str, data: str, command: str
) -> dict[str, Any]:
    """The object of --json."""
    return {
        "database": outcomes["demo"].database,
        "report": outcomes["demo"].report,
        "comparison": comparison,
        "data": data,
        "runs": {model: outcome.json() for model, outcome in outcomes.items()},
        "detectors": table,
        "query": command,
    }
