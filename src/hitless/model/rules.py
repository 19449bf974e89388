"""Rules as data: one type for what the kernel has, what it should have, and what the evaluator reads.

Problem: iptables-nft, iptables-legacy and native nftables write the same rule in three encodings. Promise: every
decoder (``hitless.kernel``) yields these values and every producer (``hitless.desired``) makes them, so that equality,
difference and evaluation need to know one language only. What a decoder does not understand becomes ``Opaque`` (a
condition) or ``OpaqueAction`` (an effect): never dropped, never guessed (``hitless.semantics`` then says "cannot
tell"). Next stages: ``plan`` compares, ``semantics`` evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol as Interface
from typing import cast

from hitless.model.families import Address
from hitless.model.matches import (
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Element,
    IcmpType,
    InInterface,
    Mark,
    Match,
    Members,
    Opaque,
    OutInterface,
    Ports,
    Property,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)
from hitless.model.surroundings import Surroundings

__all__ = [
    "PRIORITIES",
    "Accept",
    "Action",
    "AddrType",
    "AnyOf",
    "Chain",
    "Comment",
    "ConnMark",
    "CtState",
    "Destination",
    "DestinationPort",
    "Dnat",
    "Drop",
    "Element",
    "Goto",
    "Hook",
    "IcmpType",
    "InInterface",
    "Jump",
    "KnowsBaseChains",
    "KnowsDestinations",
    "Mark",
    "Masquerade",
    "Match",
    "Members",
    "MoveMark",
    "NoTrack",
    "OneOf",
    "Opaque",
    "OpaqueAction",
    "OutInterface",
    "Ports",
    "Property",
    "Protocol",
    "Reject",
    "Return",
    "ReversePath",
    "Rule",
    "Ruleset",
    "SetConnMark",
    "SetMark",
    "SetMember",
    "SetProperty",
    "Silent",
    "Snat",
    "Source",
    "SourcePort",
    "Step",
    "Table",
    "TcpFlags",
    "UnknownMark",
    "inner_steps",
]

PRIORITIES: Mapping[str, int] = MappingProxyType(
    {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
)
"""Netfilter's standard hook priorities (include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities)."""

_XTABLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "raw": ("PREROUTING", "OUTPUT"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "security": ("INPUT", "FORWARD", "OUTPUT"),
    }
)
"""iptables' tables and their base chains, by which iptables-nft's are told from native ones of the same name."""


# --- effects -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accept:
    """Ends the hook's chain of this base chain with acceptance."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Ends the packet."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Ends the packet, with an answer to its sender; ``how`` is the reader's text for the answer."""

    how: str = ""


@dataclass(frozen=True, slots=True)
class Return:
    """Back to the calling chain; in a base chain: its policy."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Call another chain of the same table."""

    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    """Go to another chain of the same table, without coming back to this one."""

    chain: str


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Source NAT to the output interface's address."""

    random_fully: bool = False
    random: bool = False
    persistent: bool = False
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Snat:
    """Source NAT to addresses ``first``..``last``."""

    first: Address
    last: Address
    random_fully: bool = False
    random: bool = False
    persistent: bool = False
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Dnat:
    """Destination NAT; ``text`` is the reader's words for where to."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class NoTrack:
    """Connection tracking leaves the packet alone, if it has not seen it yet: no NAT chain is asked for it."""


@dataclass(frozen=True, slots=True)
class SetMark:
    """``mark = (mark & ~mask) ^ value`` (xt_MARK revision 2; nft's bitwise on meta mark)."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class SetConnMark:
    """``connection mark = (connection mark & ~mask) ^ value``."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class MoveMark:
    """One mark becomes part of the other: ``to = (to & ~cleared) ^ ((from & taken) << shift) ^ value``. ``restore``:
    the packet's mark from the connection's, else the other way. A negative ``shift`` is to the right."""

    restore: bool
    cleared: int = 0xFFFFFFFF
    taken: int = 0xFFFFFFFF
    shift: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class UnknownMark:
    """The bits ``mask`` of the packet mark (``connection``: of the connection's) become something that the rules alone
    do not tell (hashed, looked up in a set). Decides nothing by itself. ``text``: as its tool writes it."""

    mask: int = 0xFFFFFFFF
    connection: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SetProperty:
    """From here on the property or the set ``name`` may be anything: a rule changes it (a TTL, a label, an element that
    is added). Decides nothing by itself. ``text``: as its tool writes it."""

    name: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Silent:
    """An effect that decides nothing and changes nothing that rules ask for: a log, a counter elsewhere. ``text``: as
    its tool writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class OpaqueAction:
    """An effect that the reader does not understand, and that might decide the packet's fate."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several ways on, and the rules do not tell which (a random number, a hash): each is a list of steps.
    ``exhaustive``: one of them is taken in any case. ``text`` is what chooses, as its tool writes it."""

    ways: tuple[tuple[Step, ...], ...]
    exhaustive: bool = False
    text: str = field(default="", compare=False)


Action = (
    Accept
    | Drop
    | Reject
    | Return
    | Jump
    | Goto
    | Masquerade
    | Snat
    | Dnat
    | NoTrack
    | SetMark
    | SetConnMark
    | MoveMark
    | UnknownMark
    | SetProperty
    | Silent
    | OneOf
    | OpaqueAction
)
Step = Match | Action


def inner_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps, those of a choice's ways too."""
    for step in steps:
        yield step
        if isinstance(step, OneOf):
            for way in step.ways:
                yield from inner_steps(way)


# --- rules, chains, tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """Steps in order; a condition that does not hold ends the rule. Counters are no steps.

    ``handle`` is the kernel's number where it gave one, and takes no part in equality; nor does ``number``, the rule's
    place in its chain (from 1) where that is not the model's: a map makes several model rules of one.
    """

    steps: tuple[Step, ...]
    handle: int | None = field(default=None, compare=False)
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is attached: ``type`` filter, nat or route; ``hook`` prerouting, input, forward, output or
    postrouting; ``priority`` as the kernel's number; ``policy`` accept or drop."""

    type: str
    hook: str
    priority: int
    policy: str = "accept"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; ``hook`` is set for base chains only."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None


class KnowsBaseChains(Interface):
    """What a lazy ``Table.chains`` offers so that asking for base chains does not decode every chain."""

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook."""


class KnowsDestinations(Interface):
    """What a lazy ``Table.chains`` offers so that one packet need not decode a chain of thousands of Services."""

    def rules_towards(self, name: str, destination: Address) -> Sequence[tuple[int, Rule]]:
        """The rules of a chain that may match a packet to ``destination``, with their numbers, in order."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one family (nftables' word: ip, ip6 or inet); ``legacy`` when it lives in the old xtables path."""

    family: str
    name: str
    chains: Mapping[str, Chain]
    legacy: bool = False

    @property
    def iptables(self) -> bool:
        """Whether iptables wrote it (legacy or iptables-nft): its rules are then told in iptables' words."""
        return self.legacy or (
            self.family != "inet" and self.name in _XTABLES and any(name in self.chains for name in _XTABLES[self.name])
        )

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook; a mapping that decodes lazily need not decode the others."""
        # asked for at every evaluation: isinstance with a runtime protocol would take longer than the rest of it
        known = getattr(self.chains, "base_chains", None)
        if known is not None:
            return cast(KnowsBaseChains, self.chains).base_chains()
        return tuple(chain for chain in self.chains.values() if chain.hook is not None)

    def rules_towards(self, name: str, destination: Address) -> Sequence[tuple[int, Rule]]:
        """The rules of chain ``name``, numbered from 1, less some that no packet to ``destination`` matches."""
        known = getattr(self.chains, "rules_towards", None)
        if known is not None:
            return cast(KnowsDestinations, self.chains).rules_towards(name, destination)
        return tuple(enumerate(self.chains[name].rules, 1))


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables that a reader was asked for, of both the nf_tables and the legacy path; ``node`` answers what rules
    ask about the node itself, where somebody can be asked."""

    tables: tuple[Table, ...] = ()
    node: Surroundings | None = field(default=None, compare=False, repr=False)
