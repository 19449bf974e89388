"""What becomes of the pods' packets, asked of everybody's rules, in a thread of its own.

Problem: with 50,000 rules the first reading takes seconds, and so does each one after lost events; our own rules must
be repaired meanwhile. Promise: ``Judging`` has its own observer and its own view of the pods, shares nothing with the
worker's thread, and is called from one thread only (the judging one). It decides nothing about *when*. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.agent.egress import Egress, EgressStatus
from hitless.agent.ports import AgentClock, AllRulesPort, AroundPort
from hitless.model.families import Family
from hitless.sources import SourceSnapshot

__all__ = ["NodeJudge"]


class NodeJudge:
    """For one thread. ``rules``: opened at the first question."""

    def __init__(self, rules: AllRulesPort, clock: AgentClock) -> None:
        self._rules, self._clock = rules, clock
        self._egress = Egress()
        self._around: AroundPort | None = None
        self._around_of: tuple[Family, ...] = ()

    def close(self) -> None:
        """Close all sockets."""
        self._rules.close()
        if self._around is not None:
            self._around.close()

    def judge(self, snapshot: SourceSnapshot, *, changed: bool = True) -> Mapping[Family, EgressStatus] | None:
        """What happens to each family's pods, and why. ``changed`` false: ``None`` where nothing that the last answer
        came from has changed; legacy tables are not looked at then."""
        families = tuple(snapshot.networks)
        around = self._surrounding(families)
        looked = around.look(self._clock.monotonic())
        if not (self._rules.changed(families) or changed or (looked and self._moved(snapshot, around))):
            return None
        # one family at a time: a legacy table of 30,000 rules is 16 MB
        return {
            family: self._egress.ask(
                self._rules.everything((family,)), networks, around, masquerade=snapshot.masquerade
            )
            for family, networks in snapshot.networks.items()
        }

    def _moved(self, snapshot: SourceSnapshot, around: AroundPort) -> bool:
        return any(
            self._egress.moved(networks, around, masquerade=snapshot.masquerade)
            for networks in snapshot.networks.values()
        )

    def _surrounding(self, families: tuple[Family, ...]) -> AroundPort:
        if self._around is None or self._around_of != families:
            if self._around is not None:
                self._around.close()
            self._around, self._around_of = self._rules.around(families), families
        return self._around
