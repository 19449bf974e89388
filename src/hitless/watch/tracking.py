"""From answers to gaps. Pure.

Problem: a gap must have an exact beginning, an end, and an author for each, and one that is open when watching ends
must not be lost. Promise: for one pod network, ``observe`` takes the answer after every commit and returns the events
that follow from it: a ``RuleState`` at the start and at each change of the answer, a ``Gap`` when "not carried" ends.
A time in which it cannot be told is no gap and no proof of health: it is in the states. Next stage: ``watching``.
"""

from __future__ import annotations

from hitless.model.events import Gap, RuleState, State, Writer
from hitless.model.families import Network, family_of

__all__ = ["Tracker"]


class Tracker:
    """The rule state of one pod network over time."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.family = family_of(network)
        self.state: State | None = None
        self.reason = ""
        self.gaps = 0
        self.gap_ns = 0
        self.longest_ns = 0
        self._opened: tuple[int, str, Writer | None] | None = None

    def observe(
        self, t: int, state: State, reason: str = "", writer: Writer | None = None, generation: int = 0
    ) -> list[RuleState | Gap]:
        """The answer ``state`` holds since ``t``, when ``writer`` committed ``generation``."""
        if state == self.state:
            return []
        self.state, self.reason = state, reason
        events: list[RuleState | Gap] = [
            RuleState(
                t=t,
                family=self.family.value,
                network=str(self.network),
                state=state,
                reason=reason,
                writer=writer,
                generation=generation,
            )
        ]
        if self._opened is not None:
            events.append(self._close(self._opened, t, writer))
        if state == "not_carried":
            self._opened = (t, reason, writer)
        return events

    def finish(self, t: int) -> list[RuleState | Gap]:
        """Watching ends: a gap that is open now is written as such."""
        return [] if self._opened is None else [self._close(self._opened, t, None, still_open=True)]

    def _close(
        self, opened: tuple[int, str, Writer | None], t: int, writer: Writer | None, *, still_open: bool = False
    ) -> Gap:
        begin, reason, opened_by = opened
        self._opened = None
        self.gaps += 1
        self.gap_ns += t - begin
        self.longest_ns = max(self.longest_ns, t - begin)
        return Gap(
            t=t,
            family=self.family.value,
            network=str(self.network),
            begin=begin,
            end=t,
            reason=reason,
            opened_by=opened_by,
            closed_by=writer,
            open=still_open,
        )
