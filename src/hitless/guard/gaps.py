"""Gaps of the primary, and of forwarding, as intervals with an author on both ends.

Promise: pure: ``Tracker.see`` is told at each committed state which pod networks are cut off and why, and gives the
gap that this state closes. A gap of several networks of a family is one gap, from the first that was lost to the last
that came back. ``egress`` and ``forward`` ask the evaluator about witness packets; "cannot tell" is no gap, and is
reported as a doubt. Next stage: ``running``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hitless.guard.learning import DESTINATIONS, TABLE, Place
from hitless.guard.places import Sample
from hitless.model.events import Writer
from hitless.model.packets import TCP
from hitless.model.rules import Ruleset
from hitless.semantics import Ending, evaluate, witnesses

__all__ = ["THROUGH", "Fate", "OpenGap", "Tracker", "egress", "forward"]

THROUGH = ("prerouting", "forward")
"""Where a forwarded packet may be dropped before it is translated. What nat chains do at prerouting is not asked: they
hold a rule for each Service, and a witness goes to none."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What the rules do to witnesses: networks that are cut off, networks of which it cannot be told; ``reason``."""

    cut: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenGap:
    """A gap that goes on."""

    begin: int
    networks: tuple[str, ...]
    reason: str
    opened_by: Writer | None


def without_guard(ruleset: Ruleset) -> Ruleset:
    """The rules of everybody else."""
    return Ruleset(tuple(table for table in ruleset.tables if table.name != TABLE))


def egress(others: Ruleset, places: Iterable[Place], uplink: str) -> Fate:
    """Whether everybody else's nat rules carry the places' new flows: of a protocol to one far end at least."""
    cut: list[str] = []
    doubtful: list[str] = []
    reason = ""
    for place in places:
        packets = witnesses(place.network, place.subnet, iif="pod", oif=uplink, destinations=DESTINATIONS)
        told: dict[int, set[str]] = {}
        for packet in packets:
            states = told.setdefault(packet.protocol, set())
            if "carried" not in states:
                outcome = evaluate(others, packet, ("postrouting",))
                states.add(outcome.state)
                reason = reason or (outcome.reason if outcome.state != "carried" else "")
        lost = [states for states in told.values() if "carried" not in states]
        if any(states == {"not_carried"} for states in lost):
            cut.append(str(place.network))
        elif lost:
            doubtful.append(str(place.network))
    return Fate(tuple(cut), tuple(doubtful), reason if cut or doubtful else "")


def forward(others: Ruleset, samples: Iterable[Sample], uplink: str) -> Fate:
    """Whether everybody else's rules drop new flows of every sampled pod on their way through the node.

    One that is let through is enough: a network policy may keep some pods in, and that is no outage. A flow that is
    hidden from conntrack (NOTRACK) is as good as dropped: no nat chain is asked for it, the standby's neither.
    """
    cut: list[str] = []
    doubtful: list[str] = []
    reason = ""
    for address, interface in samples:
        kind = IPv4Network if isinstance(address, IPv4Address) else IPv6Network
        host = kind((int(address), address.max_prefixlen))
        packet = witnesses(host, host, protocols=(TCP,), iif=interface, oif=uplink)[0]
        outcome = evaluate(others, packet, THROUGH, nat=False)
        kinds = {"dropped" if _hidden(ending) else ending.kind for ending in outcome.endings}
        if kinds == {"dropped"}:
            cut.append(str(address))
            reason = reason or outcome.reason
        elif kinds & {"dropped", "unknown"} or not kinds:
            doubtful.append(str(address))
        else:
            return Fate()
    return Fate((), tuple(doubtful), "") if doubtful else Fate(tuple(cut), (), reason)


def _hidden(ending: Ending) -> bool:
    return any(visit.kind == "notrack" for visit in ending.path)


class Tracker:
    """The open gap of one family and kind."""

    def __init__(self) -> None:
        self.open: OpenGap | None = None
        self.count = 0

    def see(self, fate: Fate, t: int, writer: Writer | None) -> OpenGap | None:
        """The state from ``t`` on; returns the gap that it ends."""
        if fate.cut and self.open is None:
            self.count += 1
            self.open = OpenGap(t, fate.cut, fate.reason, writer)
            return None
        if fate.cut and self.open is not None:
            networks = tuple(dict.fromkeys((*self.open.networks, *fate.cut)))
            self.open = OpenGap(self.open.begin, networks, self.open.reason, self.open.opened_by)
            return None
        ended, self.open = self.open, None
        return ended
