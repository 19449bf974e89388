"""From answers to gaps. Pure.

Problem: a gap must have an exact beginning, an end, and an author for each, and one that is open when watching ends
must not be lost. Promise: for one pod network, ``observe`` takes the answer after every commit and returns the events
that follow from it: a ``RuleState`` at the start and at each change of the answer, also when only the pods that are not
carried are others, and a ``Gap`` when "not carried" ends. A time in which the state is not known is neither a gap nor a
proof of health: it is in the states. Next stage: ``watching``.
"""

from __future__ import annotations

from hitless.model.events import Gap, RuleState, State, Writer
from hitless.model.families import Network, family_of
from hitless.observe import Poll

__all__ = ["Tracker"]


class Tracker:
    """The rule state of one pod network over time."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.family = family_of(network)
        self.state: State | None = None
        self.partly = ""
        self.gaps = 0
        self.gap_ns = 0
        self.longest_ns = 0
        self._opened: tuple[int, Poll, Writer | None] | None = None

    def observe(self, t: int, answer: Poll, writer: Writer | None = None, generation: int = 0) -> list[RuleState | Gap]:
        """The answer holds since ``t``, when ``writer`` committed ``generation``."""
        same = answer.state == self.state
        if same and (not answer.whole or answer.partly == self.partly):
            return []
        self.state, self.partly = answer.state, answer.partly
        if same:
            return [self._event(t, answer, writer, generation)]
        events: list[RuleState | Gap] = [self._event(t, answer, writer, generation)]
        if self._opened is not None:
            events.append(self._close(self._opened, t, writer))
        if answer.state == "not_carried":
            self._opened = (t, answer, writer)
        return events

    def _event(self, t: int, answer: Poll, writer: Writer | None, generation: int) -> RuleState:
        return RuleState(
            t=t,
            family=self.family.value,
            network=str(self.network),
            state=answer.state,
            code=answer.how,
            reason=answer.reason,
            writer=writer,
            generation=generation,
            pods=answer.pods,
            pods_not_carried=answer.kept,
            pods_unknown=answer.unknown,
            partly=answer.partly,
        )

    def finish(self, t: int) -> list[RuleState | Gap]:
        """Watching ends: a gap that is open now is written as such."""
        return [] if self._opened is None else [self._close(self._opened, t, None, still_open=True)]

    def _close(
        self, opened: tuple[int, Poll, Writer | None], t: int, writer: Writer | None, *, still_open: bool = False
    ) -> Gap:
        begin, answer, opened_by = opened
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
            code=answer.how,
            reason=answer.reason,
            opened_by=opened_by,
            closed_by=writer,
            open=still_open,
        )
