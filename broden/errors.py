"""What can be wrong with concept data: a bad set, or one bad file in a good set."""


class BrodenError(Exception):
    """Base of everything that this package raises on purpose."""


class DataError(BrodenError, ValueError):
    """The set as a whole cannot be used. Names the file, the row (1-based line of the file) and the reason."""

    def __init__(self, file: str, row: int | None, reason: str) -> None:
        self.file = file
        self.row = row
        self.reason = reason
        where = file if row is None else f"{file}, row {row}"
        super().__init__(f"{where}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, int | None, str]]:
        return type(self), (self.file, self.row, self.reason)


class InputFault(BrodenError, OSError):
    """One file cannot be used: its image is set aside, the rest of the set stays good."""

    def __init__(self, file: str, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"{file}: {reason}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.file, self.reason)


class SpaceFault(BrodenError):
    """The disk is full, or the quota is used up."""
