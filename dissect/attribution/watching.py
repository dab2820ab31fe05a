"""Who wants to know how far a long answer is."""

from collections.abc import Callable

Watch = Callable[[int, int], None]  # (done, total), in whatever the answer counts


def nobody(done: int, total: int) -> None:
    """Nobody wants to know."""
