"""How soon to retry after a failure.

Problem: after a short-lived failure (another writer's commit in between) a retry should follow at once; a lasting one
(the kernel refuses the rules) must not be retried ten times a second, however often events request a pass. Promise:
three retries follow at once; after that the pause grows from one second to ten, and no event shortens it. A success or
another configuration resets it. Pure: the time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Retries"]

_FREE = 3
_FIRST, _LONGEST = 1.0, 10.0


@dataclass(slots=True)
class Retries:
    """``not_before``: the earliest time of the next try."""

    not_before: float = 0.0
    failures: int = 0

    def failed(self, now: float) -> None:
        """A try failed."""
        self.failures += 1
        if self.failures > _FREE:
            self.not_before = now + min(_LONGEST, _FIRST * 2.0 ** min(self.failures - _FREE - 1, 8))

    def reset(self) -> None:
        """It worked, or there is another desired state."""
        self.failures, self.not_before = 0, 0.0
