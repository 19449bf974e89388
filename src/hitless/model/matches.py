"""Conditions of rules: what must hold of a packet for a rule to go on.

Problem and promise are those of ``rules``, whose other half this is; everybody imports them from there. A condition
that a reader does not understand is ``Opaque``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol as Interface

from hitless.model.families import Address, Network

_NUMBERED = re.compile(r"#([0-9]{1,5})")

__all__ = [
    "AddrType",
    "AnyOf",
    "Comment",
    "ConnMark",
    "CtState",
    "Destination",
    "DestinationPort",
    "Element",
    "IcmpType",
    "InInterface",
    "Mark",
    "Match",
    "Members",
    "Opaque",
    "OutInterface",
    "Ports",
    "Property",
    "Protocol",
    "ReversePath",
    "SetMember",
    "Source",
    "SourcePort",
    "TcpFlags",
]


@dataclass(frozen=True, slots=True)
class Source:
    """The packet's source address lies in ``network``."""

    network: Network
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """The packet's destination address lies in ``network``."""

    network: Network
    negated: bool = False


@dataclass(frozen=True, slots=True)
class InInterface:
    """The input interface's name; a trailing ``+`` stands for any continuation (as in iptables)."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class OutInterface:
    """The output interface's name; a trailing ``+`` stands for any continuation (as in iptables)."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """``packet mark & mask == value``."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ConnMark:
    """``connection mark & mask == value``; without a connection it does not hold, negated or not."""

    value: int
    mask: int = 0xFFFFFFFF
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """The transport protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6)."""

    number: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class SourcePort:
    """The transport source port lies in ``first``..``last``, both included."""

    first: int
    last: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class DestinationPort:
    """The transport destination port lies in ``first``..``last``, both included."""

    first: int
    last: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Ports:
    """A transport port lies in one of ``ranges`` (both ends included): the source's (``direction`` "src"), the
    destination's ("dst"), or one of the two ("either"). For several ranges; for one use ``DestinationPort``."""

    direction: str
    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TcpFlags:
    """``TCP flags byte & mask == value`` (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32)."""

    mask: int
    value: int
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IcmpType:
    """The ICMP or ICMPv6 type is ``type`` and its code lies in ``codes`` (both ends included)."""

    type: int
    codes: tuple[int, int] = (0, 255)
    negated: bool = False


@dataclass(frozen=True, slots=True)
class CtState:
    """The connection's conntrack state is one of ``states`` (NEW, ESTABLISHED, RELATED, INVALID, UNTRACKED), or it is
    source- or destination-translated (SNAT, DNAT: nft's ``ct status snat``, xtables' ``--ctstate SNAT``)."""

    states: frozenset[str]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class AddrType:
    """The address type (LOCAL, UNICAST, …) of the source (``direction`` "src") or destination ("dst")."""

    direction: str
    types: frozenset[str]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class ReversePath:
    """The route back to the source leads out by the interface that the packet came by (xtables' rpfilter; nft's
    ``fib saddr . iif oif exists``)."""

    negated: bool = False


class Members(Interface):
    """The addresses of a set that is too large to be spelt out in a rule: asked one by one, quickly."""

    def covers(self, address: Address) -> bool:
        """Whether the address is in the set."""

    def networks(self) -> Iterator[Network]:
        """All of them, one after the other."""

    def __len__(self) -> int:
        """How many elements it has."""


@dataclass(frozen=True, slots=True)
class SetMember:
    """Membership in a named set; ``elements`` are its networks where the reader knows them, else ``None``. An ipset is
    called by its number ("#3")."""

    name: str
    direction: str
    elements: frozenset[Network] | Members | None = None
    negated: bool = False

    def networks(self, most: int) -> frozenset[Network] | None:
        """What is in the set; ``None`` where that is not known, or has more than ``most`` elements."""
        elements = self.elements
        if elements is None or isinstance(elements, frozenset):
            return elements
        return frozenset(elements.networks()) if len(elements) <= most else None

    @property
    def number(self) -> int | None:
        """The number by which a rule knows an ipset."""
        found = _NUMBERED.fullmatch(self.name)
        return None if found is None else int(found[1])


@dataclass(frozen=True, slots=True)
class Property:
    """Any other property of a packet, its connection or its interfaces, by ``name`` (those of
    ``semantics.properties``): ``property & mask`` lies in one of ``ranges`` (both ends included). ``text`` is the
    condition as its tool writes it."""

    name: str
    ranges: tuple[tuple[int, int], ...]
    mask: int | None = None
    negated: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several groups of conditions holds: a set whose elements are neither addresses nor ports alone. ``name``
    is the set's, empty for one that belongs to its rule; ``text`` is the condition as its tool writes it."""

    alternatives: tuple[tuple[Match, ...], ...]
    negated: bool = False
    name: str = ""
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Element:
    """The set ``name`` of a table (nft family and name) holds the packet's ``key``, the names of its parts. For sets
    that packets fill or time empties: the kernel is asked. ``text`` is the condition as its tool writes it."""

    family: str
    table: str
    name: str
    key: tuple[str, ...]
    negated: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment: always matches; kept because owners recognise their rules by it."""

    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A condition whose answer nobody knows beforehand (a rate, a clock, a payload), or that the reader does not
    understand; ``text`` is the condition as its tool writes it, else what was seen of it."""

    text: str


Match = (
    Source
    | Destination
    | InInterface
    | OutInterface
    | Mark
    | ConnMark
    | Protocol
    | SourcePort
    | DestinationPort
    | Ports
    | TcpFlags
    | IcmpType
    | CtState
    | AddrType
    | ReversePath
    | SetMember
    | Property
    | AnyOf
    | Element
    | Comment
    | Opaque
)
