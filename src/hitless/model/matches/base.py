"""The interface of every kind of condition.

Problem: a condition is evaluated, shown to users, copied into the kernel, and used to group flows and pods; a kind that
is forgotten in one of these places merges flows that differ, and the wrong ones are freed. Promise: ``Match`` is the
base class of all kinds, and each of its abstract methods must be written for a new kind: the type checker refuses to
construct one without them. Reading a kind from the kernel is done by the decoders (``kernel/nftables/fields``,
``kernel/xtables/matches``). Next stage: the modules beside this one, with one family of kinds each.
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
    "span",
]

Possible = tuple[tuple[int, int], ...]
"""The closed ranges in which a value lies."""


class Inexact(HitlessError):
    """A step has no exact form in native nf_tables expressions."""


class Members(Protocol):
    """The addresses of a set that is too large to be spelt out in a rule; lookups are quick."""

    def covers(self, address: Address) -> bool:
        """Whether the address is in the set."""

    def networks(self) -> Iterator[Network]:
        """All of them."""

    def __len__(self) -> int:
        """How many elements it has."""


class PacketState(Protocol):
    """The state of a packet on its path (``semantics.walk_state``): marks, and the bits of them that are not known."""

    @property
    def mark(self) -> int:
        """The packet's mark; bits that are not known are 0."""

    @property
    def unknown(self) -> int:
        """The bits of the mark that are not known."""

    @property
    def ct_mark(self) -> int:
        """The connection's mark."""

    @property
    def ct_unknown(self) -> int:
        """The bits of the connection's mark that are not known."""

    @property
    def ct_state(self) -> str:
        """The packet's conntrack state."""

    @property
    def touched(self) -> frozenset[str]:
        """Properties and sets that a rule on the path has changed."""

    @property
    def connected(self) -> bool:
        """Whether the packet has a connection."""


class MatchContext(Protocol):
    """What a condition may depend on (``semantics.contexts``): the packet, its state by now, and the node."""

    @property
    def packet(self) -> Packet:
        """The packet."""

    @property
    def state(self) -> PacketState:
        """Its state by now."""

    @property
    def hook(self) -> str:
        """The hook that the packet is at."""

    @property
    def node(self) -> Surroundings | None:
        """Lookups on the node; ``None``: not available."""

    @property
    def translated(self) -> bool:
        """Whether the flow's source has been translated."""

    def sources(self) -> tuple[Address, Address] | None:
        """The first and the last address that the packet's source may be."""

    def possible(self, name: str) -> Possible | None:
        """The ranges in which a property's value lies; none: the packet does not have it; ``None``: any value is
        possible."""


@dataclass(frozen=True, slots=True)
class Distinctions:
    """The fields by which a condition distinguishes packets: it has the same result for two that agree in all of them.
    ``alone``: perhaps by anything, so that it must be evaluated for each packet."""

    networks: tuple[Network, ...] = ()
    members: tuple[Members, ...] = ()
    interfaces: tuple[str, ...] = ()
    protocol: bool = False
    sport: bool = False
    dport: bool = False
    alone: bool = False

    @staticmethod
    def of(several: Iterable[Distinctions]) -> Distinctions:
        """All of these together."""
        all_of = tuple(several)
        return Distinctions(
            tuple(network for each in all_of for network in each.networks),
            tuple(members for each in all_of for members in each.members),
            tuple(name for each in all_of for name in each.interfaces),
            *(any(getattr(each, name) for each in all_of) for name in ("protocol", "sport", "dport", "alone")),
        )


NOTHING = Distinctions()
ALONE = Distinctions(protocol=True, sport=True, dport=True, alone=True)


class Match:
    """A kind of condition. Without a metaclass, because the evaluator uses ``isinstance`` for every rule."""

    __slots__ = ()

    names_protocol: ClassVar[bool] = False
    """Whether its nft notation names the protocol ("tcp dport"), so that it need not be written twice."""

    @abstractmethod
    def check(self, context: MatchContext) -> bool | None:
        """Whether it holds for this packet; ``None`` (cannot tell) if the result depends on anything that is not known.
        The packet is one that the node *forwards*. Written from the manuals (iptables-extensions(8), nft(8)) and the
        kernel's xt_*.c and nft_*.c."""
        raise NotImplementedError

    @abstractmethod
    def iptables(self, protocol: int) -> tuple[str, str]:
        """The match module that iptables needs for it (empty: none), and its text, as iptables-save writes it;
        ``protocol``: the one that its rule requires, 0 if none."""
        raise NotImplementedError

    @abstractmethod
    def nft(self, protocol: int) -> str:
        """Its text as ``nft list ruleset`` writes it."""
        raise NotImplementedError

    @abstractmethod
    def distinguishes_flows(self) -> Distinctions:
        """By what it distinguishes flows that pass the same two interfaces (``heal.flow_groups``)."""
        raise NotImplementedError

    @abstractmethod
    def distinguishes_pods(self) -> Distinctions:
        """By what it distinguishes the first packets of two pods to the same destination, and the replies to these
        (``observe.likeness``)."""
        raise NotImplementedError

    @abstractmethod
    def native(self, version: int) -> list[Form]:
        """Its exact forms in nf_tables expressions for a table of IP version 4 or 6; one of them must hold (none: it
        never holds). Raises ``Inexact`` if there is no exact form."""
        raise NotImplementedError

    def inexact(self) -> Inexact:
        """The error of ``native`` for a kind without an exact form."""
        module, text = self.iptables(0)
        return Inexact(f"{f'-m {module} {text}' if module else text}: it has no exact form here")


def destination_unknown(context: MatchContext) -> bool:
    """Whether the packet goes to an address of the node that is not known."""
    return context.packet.own and context.packet.dst.is_unspecified


def span(first: object, last: object, sign: str = "-") -> str:
    """A range as both tools write it: only its first value where it has no other."""
    return f"{first}" if first == last else f"{first}{sign}{last}"


def nft_list(texts: Sequence[str], most: int = 12) -> str:
    """Values as nft writes them: a single one alone, several as a set, of which the first are shown."""
    if len(texts) == 1:
        return texts[0]
    more = f", … {len(texts) - most} more" if len(texts) > most else ""
    return f"{{ {', '.join(texts[:most])}{more} }}"
