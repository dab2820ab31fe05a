"""The one family of errors that reaches a user, each with the exit code it ends the command with.

A message names the thing, what was expected, what was found and the way out, in one or two lines.
`cli.main` prints it without a traceback.
"""


class DissectError(Exception):
    """Something failed and was understood. Exit code 1."""

    exit_code = 1


class SpecError(DissectError, ValueError):
    """A wrong argument, specification, layer or model name, or unusable input data. Exit code 2."""

    exit_code = 2


class UnsafeError(DissectError):
    """Refused because running it could run somebody else's code. Exit code 4."""

    exit_code = 4


class SpaceError(DissectError):
    """Out of disk space or memory. Exit code 5."""

    exit_code = 5


class RetryLater(DissectError):
    """Nothing is wrong with the request, but it cannot be served now. Exit code 75 (EX_TEMPFAIL)."""

    exit_code = 75


class TooSlow(RetryLater):
    """A question was stopped because its time was up: with more time, or asked for less, it may be answered."""
