"""The tables of an HTML page as rows of text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class PageTable:
    """One table: its name (caption or label), the names of its columns, its rows."""

    name: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: list[PageTable] = []
        self._label = ""  # of the region around the next table
        self._open: PageTable | None = None
        self._row: list[str] = []
        self._text: list[str] | None = None
        self._head = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if found.get("role") == "region":
            self._label = found.get("aria-label") or ""
        if tag == "table":
            self._open = PageTable(self._label)
            self.tables.append(self._open)
        elif tag == "thead":
            self._head = True
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th", "caption") and self._open is not None:
            self._text = []

    def handle_endtag(self, tag: str) -> None:
        if self._open is None:
            return
        if tag in ("td", "th") and self._text is not None:
            self._row.append(" ".join("".join(self._text).split()))
            self._text = None
        elif tag == "caption" and self._text is not None:
            self._open.name = " ".join("".join(self._text).split())
            self._text = None
        elif tag == "tr":
            if self._head:
                self._open.columns = self._row
            else:
                self._open.rows.append(self._row)
        elif tag == "thead":
            self._head = False
        elif tag == "table":
            self._open = None

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)


def page_tables(html: str) -> list[PageTable]:
    """All tables of a page, in order."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.tables
