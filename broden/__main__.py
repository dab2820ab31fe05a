"""`python -m broden`: describe, check, generate, unify, pack and search concept data."""

import sys

from broden.cli import main

if __name__ == "__main__":
    sys.exit(main())
