"""A table that prints its rows as they are measured, in Markdown, and keeps them for JSON."""

from collections.abc import Callable
from typing import Any


class Table:
    """columns {key: (heading, format)}; format takes the value."""

    def __init__(self, title: str, columns: dict[str, tuple[str, Callable[[Any], str]]]) -> None:
        self.columns, self.rows = columns, list[dict[str, Any]]()
        headings = [heading for heading, _ in columns.values()]
        print(f"\n{title}\n\n| {' | '.join(headings)} |\n|{'|'.join(' --- ' for _ in headings)}|", flush=True)

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        cells = [form(row[key]) for key, (_, form) in self.columns.items()]
        print(f"| {' | '.join(cells)} |", flush=True)


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def milliseconds(value: float) -> str:
    return f"{1000 * value:.2f} ms"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def times(value: float) -> str:
    return f"{value:,.0f}x" if value >= 10 else f"{value:.1f}x"


def share(value: float) -> str:
    return f"{value:.1%}"


def megabytes(value: float) -> str:
    return f"{value / 1e6:,.0f} MB"


def whole(value: float) -> str:
    return f"{value:,}"
