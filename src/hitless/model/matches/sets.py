"""Conditions on sets: addresses in a set, a set that is looked up in the kernel, and groups of conditions."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from hitless.model.families import Network, in_any
from hitless.model.matches.addresses import Destination, Source, ip_of, plain
from hitless.model.matches.base import (
    ALONE,
    Distinctions,
    Inexact,
    Match,
    MatchContext,
    Members,
    destination_unknown,
    nft_list,
)
from hitless.model.matches.marks import Mark
from hitless.model.matches.native import Form
from hitless.model.packets import TCP, UDP

__all__ = ["AnyOf", "Element", "SetMember"]

_NUMBERED = re.compile(r"#([0-9]{1,5})")
_SHOWN, _SHOWN_IPTABLES = 12, 64
"""Members that are shown."""
_COPIED = 4096
"""The most members of a set that a copy spells out."""
_ALTERNATIVES = 256
"""The most forms of one condition."""


@dataclass(frozen=True, slots=True)
class SetMember(Match):
    """Membership in a named set; ``elements`` are its networks if the decoder knows them, else ``None``. An ipset is
    named by its number ("#3")."""

    name: str
    direction: str
    elements: frozenset[Network] | Members | None = None
    negated: bool = False

    def networks(self, most: int) -> frozenset[Network] | None:
        """The contents of the set; ``None`` if not known, or more than ``most`` elements."""
        elements = self.elements
        if elements is None or isinstance(elements, frozenset):
            return elements
        return frozenset(elements.networks()) if len(elements) <= most else None

    @property
    def number(self) -> int | None:
        """The number of an ipset."""
        found = _NUMBERED.fullmatch(self.name)
        return None if found is None else int(found[1])

    def check(self, context: MatchContext) -> bool | None:
        """Unknown if a rule on the path has added to the set."""
        if self.name and self.name in context.state.touched:
            return None
        directions = self.direction.split(",")
        if "dst" in directions and destination_unknown(context):
            return None
        elements = self.elements
        if elements is None:
            return self._in_ipset(directions, context)
        if directions == ["src"]:
            known = context.sources()
            if known is None or known[0] != known[1]:
                return None
            address = known[0]
        elif directions == ["dst"]:
            address = context.packet.dst
        else:
            return None
        if isinstance(elements, frozenset):
            return in_any(address, elements) is not self.negated
        return elements.covers(address) is not self.negated

    def _in_ipset(self, directions: list[str], context: MatchContext) -> bool | None:
        number = self.number
        if context.node is None or number is None or ("src" in directions and context.translated):
            return None
        matched = context.node.in_set(number, directions, context.packet)
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_set; or xt_iprange, whose ranges are represented as sets."""
        negation = "! " if self.negated else ""
        if self.name.startswith("range "):
            return "iprange", f"{negation}--{self.direction}-range {self.name.removeprefix('range ')}"
        shown = self.name or ",".join(sorted(map(str, self.networks(_SHOWN_IPTABLES) or ())))
        return "set", f"{negation}--match-set {shown} {self.direction}"

    def nft(self, protocol: int) -> str:
        """By its name, else by its members."""
        networks = sorted(self.networks(_SHOWN) or (), key=lambda network: (network.version, network))
        family = ip_of(networks[0]) if networks else "ip"
        field_text = f"{family} {'saddr' if self.direction == 'src' else 'daddr'} {'!= ' if self.negated else ''}"
        return (
            f"{field_text}@{self.name}" if self.name else f"{field_text}{nft_list([*map(plain, networks)] or ['{ }'])}"
        )

    def distinguishes_flows(self) -> Distinctions:
        """By the address; an ipset's members may be ports or pairs."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """By its members. An ipset is looked up for each pod; an unknown set is unknown for all."""
        if self.elements is None:
            return Distinctions(alone=self.number is not None)
        if isinstance(self.elements, frozenset):
            return Distinctions(tuple(self.elements))
        return Distinctions(members=(self.elements,))

    def native(self, version: int) -> list[Form]:
        """One member must hold; negated, all must fail."""
        networks = self.networks(_COPIED)
        if networks is None or self.direction not in ("src", "dst"):
            unknown = self.elements is None
            why = "whose members are not known from the rules" if unknown else "which is too large to be copied"
            raise Inexact(f"set {self.name}, {why}")
        kind = Source if self.direction == "src" else Destination
        forms = [kind(network, self.negated).native(version) for network in sorted(networks, key=str)]
        if self.negated:
            return [] if [] in forms else [tuple(part for (form,) in forms for part in form)]
        return [form for each in forms for form in each]


@dataclass(frozen=True, slots=True)
class Element(Match):
    """The set ``name`` of a table (nft family and name) contains the packet's ``key``, given by the names of its parts.
    For sets that packets or time change: they are looked up in the kernel. ``text`` is the condition as its tool writes
    it."""

    family: str
    table: str
    name: str
    key: tuple[str, ...]
    negated: bool = False
    text: str = field(default="", compare=False)

    def check(self, context: MatchContext) -> bool | None:
        """By a lookup on the node, if the whole key is known."""
        if self.name in context.state.touched or context.node is None:
            return None
        parts: list[bytes] = []
        for name in self.key:
            part = _part_of(name, context)
            if part is None:
                return None
            parts.append(part)
        matched = context.node.has_element(self.family, self.table, self.name, tuple(parts))
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """Its own text."""
        return "", self.text

    def nft(self, protocol: int) -> str:
        """Its own text."""
        return self.text

    def distinguishes_flows(self) -> Distinctions:
        """By anything that is part of its key."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """By anything that is part of its key."""
        return ALONE

    def native(self, version: int) -> list[Form]:
        """A set belongs to its table: a copy in another table cannot look it up."""
        raise self.inexact()


def _part_of(name: str, context: MatchContext) -> bytes | None:
    """The packet's value of a part, as a key of a set contains it."""
    packet, translated = context.packet, context.translated
    match name:
        case "source" if not translated:
            return packet.src.packed
        case "destination" if not destination_unknown(context):
            return packet.dst.packed
        case "sport" | "transport sport" if packet.protocol in (TCP, UDP) and not translated:
            return packet.sport.to_bytes(2, "big")
        case "dport" | "transport dport" if packet.protocol in (TCP, UDP) and not packet.own:
            return packet.dport.to_bytes(2, "big")
        case "protocol":
            return bytes((packet.protocol,))
        case "in name" if packet.iif:
            return packet.iif.encode().ljust(16, b"\0")
        case "out name" if packet.oif and context.hook != "prerouting":
            return packet.oif.encode().ljust(16, b"\0")
        case "mark" if not context.state.unknown:
            return context.state.mark.to_bytes(4, sys.byteorder)
    return None


@dataclass(frozen=True, slots=True)
class AnyOf(Match):
    """One of several groups of conditions holds: a set whose elements are neither single addresses nor single ports.
    ``name`` is the set's, empty for one that belongs to its rule; ``text`` is the condition as its tool writes it."""

    alternatives: tuple[tuple[Match, ...], ...]
    negated: bool = False
    name: str = ""
    text: str = field(default="", compare=False)

    def check(self, context: MatchContext) -> bool | None:
        """If the packet does not have a compared property, it is neither in the set nor outside of it."""
        if self.name and self.name in context.state.touched:
            return None
        matched: bool | None = False
        for group in self.alternatives:
            truth = _all_of(group, context)
            if truth:
                matched = True
                break
            if truth is None:
                matched = None
        if self.negated and any(_missing(each, context) for group in self.alternatives[:1] for each in group):
            return False
        return None if matched is None else matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """Its own text."""
        return "", self.text

    def nft(self, protocol: int) -> str:
        """Its own text."""
        return self.text

    def distinguishes_flows(self) -> Distinctions:
        """By anything that is part of its key."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """By everything that its conditions distinguish."""
        return Distinctions.of(each.distinguishes_pods() for group in self.alternatives for each in group)

    def native(self, version: int) -> list[Form]:
        """A form for each alternative; negated, all of them must fail, so that each may have only one condition."""
        wrong = self.inexact()
        if any(isinstance(each, Mark) for group in self.alternatives for each in group):
            raise wrong
        if not self.negated:
            return [form for group in self.alternatives for form in _together(group, version)]
        inverted = [_inverse(group[0]) if len(group) == 1 else None for group in self.alternatives]
        if None in inverted:
            raise wrong
        return _together(tuple(each for each in inverted if each is not None), version)


def _all_of(group: tuple[Match, ...], context: MatchContext) -> bool | None:
    whole: bool | None = True
    for each in group:
        truth = each.check(context)
        if truth is False:
            return False
        if truth is None:
            whole = None
    return whole


def _missing(each: Match, context: MatchContext) -> bool:
    """Whether the packet does not have the property: neither the condition nor its opposite holds."""
    other = _inverse(each)
    return other is not None and each.check(context) is False and other.check(context) is False


def _inverse(each: Match) -> Match | None:
    """The negated condition, if there is one."""
    step: Any = each
    if not hasattr(step, "negated"):
        return None
    found: Match = replace(step, negated=not step.negated)
    return found


def _together(group: tuple[Match, ...], version: int) -> list[Form]:
    """The forms of conditions that must all hold."""
    forms: list[Form] = [()]
    for each in group:
        forms = [form + other for form in forms for other in each.native(version)]
        if len(forms) > _ALTERNATIVES:
            raise Inexact(f"a condition with {len(forms)} alternatives")
    return forms
