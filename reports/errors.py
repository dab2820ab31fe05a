"""The error of this package."""


class ReportError(Exception):
    """A report cannot be written: names what, what was expected, what was found and the way out."""
