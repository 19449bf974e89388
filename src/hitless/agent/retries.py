"""How soon to try again what has just failed.

Problem: a failure that passes (another writer in between) should be tried again at once, one that lasts (a kernel that
refuses, a text that cannot be written) must not be tried ten times a second, whoever else is busy with the rules.
Promise: three tries are free; after that the gap grows from one second to ten, and no event shortens it. A success, or
another configuration, starts anew. Pure: time comes in.
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

    def anew(self) -> None:
        """It worked, or there is something else to do."""
        self.failures, self.not_before = 0, 0.0
