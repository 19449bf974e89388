"""How long somebody is at work on whole tables.

Problem: a reload by single commands must find the tables as it left them, and nobody says when it is over. Promise: it
is over when nothing has touched our chains, or those that lead to them, for a second, and after ten seconds in any
case (on a busy iptables-legacy somebody always writes). The pods are carried by a bridge (``hitless.plan.bridging``)
meanwhile, so there is no hurry. Pure: time comes in.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reload"]

_QUIET = 1.0  # a loaded machine runs ten commands in that time; between -F and -X of a script there are one to six
_LONGEST = 10.0


@dataclass(slots=True)
class Reload:
    """``begin`` at the first sign, ``touched`` at each further one; ``over`` from ``due`` on."""

    begun: float | None = None
    due: float = 0.0

    def begin(self, now: float) -> None:
        """Whole tables were flushed."""
        self.begun = now
        self.touched(now)

    def touched(self, now: float) -> None:
        """Something of it was seen."""
        if self.begun is not None:
            self.due = min(now + _QUIET, self.begun + _LONGEST)

    def goes_on(self, now: float) -> bool:
        """Whether to stay out of its way."""
        return self.begun is not None and now < self.due

    def end(self) -> None:
        """The rules are whole again."""
        self.begun = None
