"""A long list on several pages, so that none grows heavy."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class Leaf(NamedTuple):
    """One page of a list: its file, its items, and (text, link) of every page, no link for itself."""

    name: str
    items: Sequence[Any]
    pages: list[tuple[str, str | None]]


def leaves(items: Sequence[Any], most: int, first: str, later: str) -> Iterator[Leaf]:
    """`most` items a page, one page at least, named `first`, then `later` with 1, 2 … in its braces."""
    names = [first] + [later.format(n) for n in range(1, -(-len(items) // most))]
    for at, name in enumerate(names):
        pages = [(f"page {n + 1}", None if n == at else other) for n, other in enumerate(names)]
        yield Leaf(name, items[at * most : (at + 1) * most], pages)
