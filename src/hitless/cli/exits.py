"""Exit codes, in one table."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """The exit codes; ``hitless --help`` prints the same."""

    PASS = 0  # it worked; a drill: the judged agent lost nothing
    FAIL = 1  # a drill: the judged agent lost something; a check: it found something wrong
    INCONCLUSIVE = 2  # could not tell
    ERROR = 3  # wrong input, or this machine cannot do it; nothing was changed
    INTERRUPTED = 130  # Ctrl-C
    UNHEARD = 141  # the reader of the output ended first; a shell reports SIGPIPE so


HELP = (
    "Exit codes: 0 pass, 1 fail, 2 inconclusive (could not tell), 3 error (wrong input, missing program or "
    "permission), 130 interrupted."
)
"""The table in one sentence, for the help text of commands."""
