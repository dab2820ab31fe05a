"""`dissect submit`: queue the runs of a spec."""

import argparse
import dataclasses
import sys
from pathlib import Path

from dissect.cli.common import add_workspace, open_workspace

DESCRIPTION = """\
Queue many runs at once; workers do them. The whole file is checked before anything is queued.

  # night.toml
  priority = 1                         # higher first
  [[run]]
  model = ["resnet18", "resnet50"]     # lists span: every model with every data set
  layers = ["layer3", "layer4"]
  data = "broden1_224"
  name = "{model}"

  dissect submit night.toml --dry-run  print what would be queued
  dissect submit night.toml && dissect worker
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "submit",
        help="queue the runs of a spec",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", metavar="SPEC.toml")
    parser.add_argument("--dry-run", action="store_true", help="check and print everything, queue nothing")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    import time

    from dissect.service.queueing import plan, submit
    from dissect.service.spec import read_spec
    from dissect.store import Store
    from dissect.store.ledger import Ledger

    workspace = open_workspace(args)
    spec = read_spec(Path(args.spec))
    planned = plan(workspace, spec, announce=lambda line: print(line, file=sys.stderr))
    if args.dry_run:
        for item in planned:
            print(item.sentence())
            print(f"  {item.estimate(workspace).sentence()}")
            for field in dataclasses.fields(item.prepared.request):
                value = getattr(item.prepared.request, field.name)
                if value is not None:
                    print(f"  {field.name} = {value!r}")
        return 0
    with Store.open(workspace) as store:
        for item, (job, new) in zip(planned, submit(workspace, Ledger(store, time.time), planned, spec.priority)):
            print(f"job {job}  {item.sentence()}" + ("" if new else "  (was there already)"))
    return 0
