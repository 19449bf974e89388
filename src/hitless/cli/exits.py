"""Exit codes, in one table: people and scripts read them before anything else."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """What the process ends with; ``hitless --help`` prints the same words."""

    PASS = 0  # it worked; a drill: the judged agent lost nothing
    FAIL = 1  # a drill: the judged agent lost something; a check: it found something wrong
    INCONCLUSIVE = 2  # could not tell
    ERROR = 3  # wrong input, or this machine cannot do it; nothing was changed
    INTERRUPTED = 130  # Ctrl-C
    UNHEARD = 141  # whoever read the output went away first; what a shell tells of SIGPIPE, and no verdict


HELP = (
    "Exit codes: 0 pass, 1 fail, 2 inconclusive (could not tell), 3 error (wrong input, missing program or "
    "permission), 130 interrupted."
)
"""The table in one sentence, for the help text of commands."""
