"""Many writers claim many shards of one database: `python -m tests.campaigns.claims [--jobs 157] [--writers 8]`.

157 jobs of 64 shards are 10,048 claims. Prints how many shards were committed, and how many twice or not at all.
"""

import argparse
import tempfile
import time

from dissect.workspace import Workspace
from tests.dissect.service.test_ledger import claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=157)
    parser.add_argument("--writers", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        committed, wrong = claims(Workspace.at(folder), options.jobs, options.writers)
    seconds = time.monotonic() - start
    print(f"{committed:,} shards committed by {options.writers} writers in {seconds:.0f} s, {wrong} wrong")


if __name__ == "__main__":
    main()
