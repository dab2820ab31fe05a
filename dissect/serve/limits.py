"""What one request may cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Ceilings of one request; a request may ask for less, never for more."""

    seconds: float = 2.0  # time of all queries of a request together
    rows: int = 1_000  # rows of one answer
    page: int = 100  # rows of one answer that does not say how many
    values: int = 50  # values of one filter
    pairs: int = 100_000  # unit x concept pairs that are computed from the counts
    query_bytes: int = 16_384  # length of the part of an address after the question mark
    body_bytes: int = 65_536  # body of a request, although none is needed
    export_bytes: int = 100 << 20  # a whole table as one answer
