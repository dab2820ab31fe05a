"""How many bytes the pictures of a report may take, and what gives way first."""

from dataclasses import dataclass

from .text import integer

DEFAULT = 1_000_000_000  # bytes of a whole report folder


@dataclass(frozen=True)
class Rung:
    """One way to draw thumbnails."""

    px: int
    thumbs: int
    quality: int

    def told(self) -> str:
        """In words, for the message."""
        if not self.thumbs:
            return "no pictures"
        return f"{self.thumbs} pictures a unit at {self.px} x {self.px} pixels"


LADDER = (
    Rung(112, 10, 70),
    Rung(112, 8, 70),
    Rung(96, 8, 70),
    Rung(96, 5, 70),
    Rung(80, 5, 65),
    Rung(64, 5, 60),
    Rung(64, 3, 60),
    Rung(48, 3, 50),
    Rung(48, 1, 50),
    Rung(48, 0, 50),
)
SURELY = 0.5  # bytes a pixel that no JPEG of these qualities exceeds on photographs: no need to try first


def note(rung: Rung, best: Rung, limit: int) -> str:
    """Why there are fewer or smaller pictures than there could be."""
    return f"Thinned to stay within {integer(limit)} bytes: {rung.told()} instead of {best.told()}."
