"""What every kind of condition says of itself.

Problem: a condition is evaluated, written for people, copied into the kernel, and used to group flows and pods; a kind
that is forgotten in one of these places merges flows that differ, and the wrong ones are freed. Promise: ``Match`` is
the base class of all kinds, and each of its abstract methods must be written for a new kind: the type checker refuses
to construct one that lacks an answer. Reading a kind from the kernel is the decoders' (``kernel/nftables/fields``,
``kernel/xtables/matches``). Next stage: the modules beside this one, a family of kinds each.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from hitless.errors import HitlessError
from hitless.model.families import Address, Network
from hitless.model.matches.native import Form
from hitless.model.packets import Packet
from hitless.model.surroundings import Surroundings

__all__ = [
    "ALONE",
    "NOTHING",
    "Distinctions",
    "Inexact",
    "Match",
    "MatchContext",
    "Members",
    "PacketState",
    "Possible",
    "destination_unknown",
    "nft_list",
]

Possible = tuple[tuple[int, int], ...]
"""The closed ranges that a value lies in."""


class Inexact(HitlessError):
    """A step that has no exact form in native nf_tables expressions."""


class Members(Protocol):
    """The addresses of a set that is too large to be spelt out in a rule: asked one by one, quickly."""

    def covers(self, address: Address) -> bool:
        """Whether the address is in the set."""

    def networks(self) -> Iterator[Network]:
        """All of them, one after the other."""

    def __len__(self) -> int:
        """How many elements it has."""


class PacketState(Protocol):
    """What a packet is like by now (``semantics.walk_state``): marks, and the bits of them that are not known."""

    @property
    def mark(self) -> int:
        """The packet's mark; bits that are not known are 0."""

    @property
    def unknown(self) -> int:
        """The bits of it that are not known."""

    @property
    def ct_mark(self) -> int:
        """The connection's mark."""

    @property
    def ct_unknown(self) -> int:
        """The bits of it that are not known."""

    @property
    def ct_state(self) -> str:
        """The packet's conntrack state."""

    @property
    def touched(self) -> frozenset[str]:
        """Properties and sets that a rule on the way has changed."""

    @property
    def connected(self) -> bool:
        """Whether the packet has a connection."""


class MatchContext(Protocol):
    """What a condition may look at (``semantics.contexts``): the packet, what it is like by now, and the node."""

    @property
    def packet(self) -> Packet:
        """The packet."""

    @property
    def state(self) -> PacketState:
        """What it is like by now."""

    @property
    def hook(self) -> str:
        """Where it is."""

    @property
    def node(self) -> Surroundings | None:
        """Who answers for the node; ``None``: nobody."""

    @property
    def translated(self) -> bool:
        """Whether the flow has been given a source translation."""

    def sources(self) -> tuple[Address, Address] | None:
        """The first and the last address that the packet's source may be."""

    def possible(self, name: str) -> Possible | None:
        """The ranges that a property's value lies in; none: there is no such thing; ``None``: anything is possible."""


@dataclass(frozen=True, slots=True)
class Distinctions:
    """By what a condition tells packets apart: it says the same of two that agree in all of this. ``alone``: perhaps by
    anything, so that it must be asked of each."""

    networks: tuple[Network, ...] = ()
    members: tuple[Members, ...] = ()
    interfaces: tuple[str, ...] = ()
    protocol: bool = False
    sport: bool = False
    dport: bool = False
    alone: bool = False

    @staticmethod
    def of(tellings: Iterable[Distinctions]) -> Distinctions:
        """By all of these together."""
        every = tuple(tellings)
        return Distinctions(
            tuple(network for each in every for network in each.networks),
            tuple(members for each in every for members in each.members),
            tuple(name for each in every for name in each.interfaces),
            *(any(getattr(each, name) for each in every) for name in ("protocol", "sport", "dport", "alone")),
        )


NOTHING = Distinctions()
ALONE = Distinctions(protocol=True, sport=True, dport=True, alone=True)


class Match:
    """A kind of condition. No metaclass: the evaluator asks ``isinstance`` for every rule."""

    __slots__ = ()

    names_protocol: ClassVar[bool] = False
    """Whether nft's words for it name the protocol ("tcp dport"), so that it is not said twice."""

    @abstractmethod
    def check(self, context: MatchContext) -> bool | None:
        """Whether it holds for this packet; ``None`` (cannot tell) whenever the answer would depend on something that
        is not known. The packet is one that the node *forwards*. Written from the manuals (iptables-extensions(8),
        nft(8)) and the kernel's xt_*.c and nft_*.c."""
        raise NotImplementedError

    @abstractmethod
    def iptables(self, protocol: int) -> tuple[str, str]:
        """The match module that iptables needs for it (empty: none), and its words, as iptables-save writes them;
        ``protocol``: the one that its rule asks for, 0 if none."""
        raise NotImplementedError

    @abstractmethod
    def nft(self, protocol: int) -> str:
        """Its words as ``nft list ruleset`` writes them."""
        raise NotImplementedError

    @abstractmethod
    def distinguishes_flows(self) -> Distinctions:
        """By what it tells flows apart that pass the same two interfaces (``heal.flow_groups``)."""
        raise NotImplementedError

    @abstractmethod
    def distinguishes_pods(self) -> Distinctions:
        """By what it tells the first packets of two pods to the same destination apart, and the answers to these
        (``observe.likeness``)."""
        raise NotImplementedError

    @abstractmethod
    def native(self, version: int) -> list[Form]:
        """Its exact forms in nf_tables' expressions for a table of IP version 4 or 6, of which one must hold (none: it
        never holds). Raises ``Inexact`` where there is none."""
        raise NotImplementedError

    def inexact(self) -> Inexact:
        """What ``native`` raises for a kind that has no exact form."""
        module, words = self.iptables(0)
        return Inexact(f"{f'-m {module} {words}' if module else words}: it has no exact form here")


def destination_unknown(context: MatchContext) -> bool:
    """Whether the packet goes to one of the node's own addresses, and to which one is not known."""
    return context.packet.own and context.packet.dst.is_unspecified


def nft_list(texts: Sequence[str], most: int = 12) -> str:
    """Values as nft writes them: one alone, several as a set, of which the first are shown."""
    if len(texts) == 1:
        return texts[0]
    more = f", … {len(texts) - most} more" if len(texts) > most else ""
    return f"{{ {', '.join(texts[:most])}{more} }}"
