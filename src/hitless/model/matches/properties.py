"""Conditions on any other property of a packet, by its name; most things that a rule can compare need no class of their
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hitless.model.matches.base import ALONE, NOTHING, Distinctions, Match, MatchContext, Possible
from hitless.model.matches.native import Form

__all__ = ["Property"]

_MOST_VALUES = 64
"""Values of a property under a mask that are tried one by one."""

_OF_HEADERS = frozenset(
    {"ip head", "ip option", "ip option present", "ip length", "ip fragment", "ttl", "ip6 length", "ip6 extensions"}
    | {"ip6 extension", "ip6 extension present", "family", "protocol family", "protocol", "icmp code", "anything"}
    | {"tcp acknowledgement", "tcp urgent", "text", "udp length", "packet type", "mark", "traced", "socket user"}
    | {"socket", "decrypted", "bound socket", "bridged", "ipvs", "master", "ipsec in state", "ipsec out"}
    | {"ipsec out state", "ct direction", "ct status", "ct state", "ct mark", "ct helper", "ct zone", "ct label"}
    | {"ct family", "ct protocol", "connection", "offloaded"}
)
"""Properties with the same value for all first packets of one protocol: no address, port or interface is part of
them.
"""
_OF_INTERFACES = frozenset({"in index", "out index", "in group", "out group", "in kind", "out kind"})
_OF_PORTS = frozenset({"transport sport", "transport dport"})
_SAME_FOR_FLOWS = _OF_HEADERS | _OF_INTERFACES
_SAME_FOR_PODS = _OF_HEADERS | _OF_PORTS


@dataclass(frozen=True, slots=True)
class Property(Match):
    """A property of a packet, its connection or its interfaces, by ``name`` (those of ``semantics.properties``):
    ``property & mask`` lies in one of ``ranges`` (both ends included). ``text`` is the condition as its tool writes it;
    empty if another expression implies it."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    mask: int | None = None
    negated: bool = False
    text: str = field(default="", compare=False)

    def check(self, context: MatchContext) -> bool | None:
        """If the packet does not have the property, the condition does not hold, negated or not."""
        values = context.possible(self.name)
        if values == ():
            return False
        matched = self._lies_in(values)
        return None if matched is None else matched is not self.negated

    def _lies_in(self, values: Possible | None) -> bool | None:
        if values is None:
            return None
        if self.mask is None:
            results = {_within(value, self.ranges) for value in values}
        elif sum(high - low + 1 for low, high in values) <= _MOST_VALUES:
            every = {value & self.mask for low, high in values for value in range(low, high + 1)}
            results = {_within((value, value), self.ranges) for value in every}
        else:
            return None
        return results.pop() if len(results) == 1 else None

    def iptables(self, protocol: int) -> tuple[str, str]:
        """Its own text; fragments are an option in the rule's head."""
        if self.name == "ip fragment" and self.ranges == ((0, 0),) and self.mask == 0x1FFF:
            return "", "-f" if self.negated else "! -f"
        return "", self.text

    def nft(self, protocol: int) -> str:
        """Its own text."""
        return self.text

    def distinguishes_flows(self) -> Distinctions:
        """A property that may depend on a flow's address or port distinguishes flows by anything."""
        return Distinctions(protocol=True) if self.name in _SAME_FOR_FLOWS else ALONE

    def distinguishes_pods(self) -> Distinctions:
        """A property that may depend on the pod's address or interface distinguishes pods by anything."""
        return NOTHING if self.name in _SAME_FOR_PODS else ALONE

    def native(self, version: int) -> list[Form]:
        """Properties are decoded, not written."""
        raise self.inexact()


def _within(value: tuple[int, int], ranges: tuple[tuple[int, int], ...]) -> bool | None:
    """Whether all of a range of values lies in ``ranges`` (``True``), or none of it (``False``)."""
    low, high = value
    if any(first <= low and high <= last for first, last in ranges):
        return True
    return None if any(first <= high and low <= last for first, last in ranges) else False
