"""Whether another program is reloading whole tables.

Problem: a script that reloads rules by single commands must find the tables as it left them, and its end is not
announced. Promise: a reload is over when our chains, and those that lead to them, have not been touched for a second,
and after ten seconds in any case (a busy iptables-legacy never rests). Meanwhile a bridge (``hitless.plan.bridging``)
carries the pods. Pure: the time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reload"]

_QUIET = 1.0  # a loaded machine runs ten commands in that time; between -F and -X of a script there are one to six
_LONGEST = 10.0


@dataclass(slots=True)
class Reload:
    """Call ``begin`` when whole tables were flushed, and ``touched`` at each further change; it is over at ``due``."""

    begun: float | None = None
    due: float = 0.0

    def begin(self, now: float) -> None:
        """Whole tables were flushed."""
        self.begun = now
        self.touched(now)

    def touched(self, now: float) -> None:
        """A rule that concerns us was changed again."""
        if self.begun is not None:
            self.due = min(now + _QUIET, self.begun + _LONGEST)

    def goes_on(self, now: float) -> bool:
        """Whether the tables must still be left alone."""
        return self.begun is not None and now < self.due

    def end(self) -> None:
        """The rules are whole again."""
        self.begun = None
