"""What becomes of the pods' packets, by the rules of all programs. Runs in a thread of its own.

Problem: with 50,000 rules the first read takes seconds, and so does each one after lost events; our own rules must be
repaired meanwhile. Promise: ``NodeJudge`` has its own observer and its own view of the pods, shares nothing with the
worker's thread, and is called from the judging thread only. It does not decide when to evaluate, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.agent.egress import Egress, EgressStatus
from hitless.agent.ports import AgentClock, AllRulesPort, AroundPort
from hitless.model.families import Family
from hitless.sources import SourceSnapshot

__all__ = ["NodeJudge"]


class NodeJudge:
    """For one thread. ``rules`` is opened at the first call."""

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
        """What happens to each family's pods, and why. With ``changed`` false: ``None`` if nothing has changed since
        the last result; legacy tables are not compared then."""
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
