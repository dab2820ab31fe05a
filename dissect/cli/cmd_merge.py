"""`dissect merge`: finish runs whose shards were measured one by one."""

import argparse
import json
import sys

from dissect.cli.common import add_workspace, open_workspace

DESCRIPTION = """\
Finish a run whose shards were measured by themselves, such as by an array job on a shared folder:

  #SBATCH --array=0-7
  dissect run resnet18 --layer layer4 --data DIR --workspace SHARED --shard $SLURM_ARRAY_TASK_ID/8

  dissect merge --workspace SHARED                 when all are done: the same numbers as one process, bit for bit

Without RUN, the one run with shards in the workspace is meant.
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser(
        "merge",
        help="finish a run from its shards",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="id of the run, as `dissect run --shard` prints it")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line of stdout")
    add_workspace(parser)
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    from dissect.errors import SpecError
    from dissect.shard_files import ShardFiles
    from dissect.shards import merge

    workspace = open_workspace(args)
    ids = [args.run] if args.run else ShardFiles.waiting(workspace)
    if len(ids) != 1:
        named = f": name one of {', '.join(ids)}" if ids else ": measure them with `dissect run … --shard i/n`"
        raise SpecError(f"{len(ids) or 'no'} runs have shards in workspace {workspace.root}{named}")
    outcome = merge(workspace, ids[0], announce=lambda line: print(line, file=sys.stderr))
    print(outcome.summary(), file=sys.stderr)
    if args.json:
        print(json.dumps(outcome.json()))
    return 3 if outcome.excluded else 0
