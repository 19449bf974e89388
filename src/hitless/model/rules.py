"""Rules as data: one type for the rules in the kernel, the desired rules, and the input of the evaluator.

Problem: iptables-nft, iptables-legacy and native nftables encode the same rule in three forms. Promise: every decoder
(``hitless.kernel``) returns these values and every producer (``hitless.desired``) makes them, so that equality,
difference and evaluation handle one form only. What a decoder does not understand becomes ``Opaque`` (a condition) or
``OpaqueAction`` (an effect): never dropped, never guessed (``hitless.semantics`` then answers "cannot tell"). Next
stages: ``plan`` compares, ``semantics`` evaluates.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol as Interface
from typing import cast

from hitless.model.effects import (
    Accept,
    Action,
    ConntrackTemplate,
    Dnat,
    Drop,
    Goto,
    Jump,
    Masquerade,
    MoveMark,
    NoTrack,
    OneOf,
    OpaqueAction,
    Reject,
    Return,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    Snat,
    Step,
    UnknownMark,
    inner_steps,
)
from hitless.model.headers import PacketHeader
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
from hitless.model.reachability import reachable
from hitless.model.surroundings import Surroundings

__all__ = [
    "MOST_MET",
    "PRIORITIES",
    "TOO_MANY",
    "UNREAD",
    "Accept",
    "Action",
    "AddrType",
    "AnyOf",
    "Chain",
    "Comment",
    "ConnMark",
    "ConntrackTemplate",
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
    "LazyChains",
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
    "jump_targets",
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
"""iptables' tables and their base chains, which distinguish iptables-nft's tables from native ones of the same name."""


# --- rules, chains, tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """Steps in order; a condition that does not hold ends the rule. Counters are not steps.

    ``handle`` is the kernel's number of the rule, if it has one, and ignored by equality; so is ``number``, the rule's
    position in its chain (from 1) where it differs from the model's: a map makes several model rules of one.
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


def jump_targets(chain: Chain) -> tuple[str, ...]:
    """The chains that its rules jump or go to, in order, each once."""
    steps = (step for rule in chain.rules for step in inner_steps(rule.steps))
    return tuple(dict.fromkeys(step.chain for step in steps if isinstance(step, Jump | Goto)))


UNREAD = (Rule((Opaque("rules that were not read"), OpaqueAction("rules that were not read"))),)
"""The rules of a chain of which only the head is known."""

MOST_MET = 16384
"""Candidate rules of one chain for a packet: evaluating more would take too long."""
_TOO_MANY = "more rules than can be told apart"
TOO_MANY: Sequence[tuple[int, Rule]] = ((1, Rule((Opaque(_TOO_MANY), OpaqueAction(_TOO_MANY)))),)
"""What ``Table.rules_for`` returns for a chain with more of them."""


class LazyChains(Interface):
    """A mapping of ``Table.chains`` that decodes as little as possible."""

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook."""

    def hooks(self) -> tuple[tuple[str, Hook], ...]:
        """Their names and hooks."""

    def rules_for(self, name: str, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules of a chain that may match a packet with this header, with their numbers, in order."""

    def specific_rules(self, name: str, header: PacketHeader) -> Sequence[object]:
        """Identifies those of them that are candidates only for some packets."""

    def header_parts_used(self, name: str) -> frozenset[str]:
        """The parts of a header (``PacketHeader.part``) on which decoding its rules has depended so far."""

    def version(self, name: str) -> object:
        """Equal for chains that certainly do the same."""

    def calls(self, name: str) -> Collection[str]:
        """The chains that a chain's rules jump or go to; of a long one perhaps some more."""

    def size(self, name: str) -> int:
        """How many rules a chain has."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of one family (nftables' name: ip, ip6 or inet); ``legacy``: it is in the old xtables path."""

    family: str
    name: str
    chains: Mapping[str, Chain]
    legacy: bool = False

    @property
    def iptables(self) -> bool:
        """Whether iptables wrote it (legacy or iptables-nft): its rules are then shown in iptables' notation."""
        return self.legacy or (
            self.family != "inet" and self.name in _XTABLES and any(name in self.chains for name in _XTABLES[self.name])
        )

    @property
    def _lazy(self) -> LazyChains | None:
        # used in every evaluation: isinstance with a runtime protocol would take longer than everything else
        return cast(LazyChains, self.chains) if hasattr(self.chains, "rules_for") else None

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook; a lazy mapping need not decode the others."""
        if (lazy := self._lazy) is not None:
            return lazy.base_chains()
        return tuple(chain for chain in self.chains.values() if chain.hook is not None)

    def hooks(self) -> tuple[tuple[str, Hook], ...]:
        """The names of the base chains and their hooks; no rule is decoded."""
        if (lazy := self._lazy) is not None:
            return lazy.hooks()
        return tuple((name, chain.hook) for name, chain in self.chains.items() if chain.hook is not None)

    def rules_for(self, name: str, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules of chain ``name``, numbered from 1, without some that no packet with this header matches."""
        if (lazy := self._lazy) is not None:
            return lazy.rules_for(name, header)
        return tuple(enumerate(self.chains[name].rules, 1))

    def specific_rules(self, name: str, header: PacketHeader) -> Sequence[object]:
        """Equal for packets for which ``rules_for`` excludes the same rules."""
        return () if (lazy := self._lazy) is None else lazy.specific_rules(name, header)

    def header_parts_used(self, name: str) -> frozenset[str]:
        """The parts of a header (``PacketHeader.part``) on which decoding in ``rules_for`` has depended: for packets
        that differ in them, the same rule may be decoded differently."""
        return frozenset() if (lazy := self._lazy) is None else lazy.header_parts_used(name)

    def version(self, name: str) -> object:
        """Equal for chains that certainly do the same; cheap for long ones."""
        return self.chains[name] if (lazy := self._lazy) is None else lazy.version(name)

    def calls(self, name: str) -> Collection[str]:
        """The chains that the rules of chain ``name`` jump or go to; of a long one perhaps some more."""
        if (lazy := self._lazy) is not None:
            return lazy.calls(name)
        return jump_targets(self.chains[name])

    def reachable(self, name: str) -> set[str]:
        """Chain ``name``, and all chains that its rules lead to."""
        found = reachable((name,), lambda each: self.calls(each) if each in self.chains else ())
        return {each for each in found if each in self.chains}

    def size(self, name: str) -> int:
        """How many rules chain ``name`` has; no rule is decoded."""
        return len(self.chains[name].rules) if (lazy := self._lazy) is None else lazy.size(name)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All tables that were read, of the nf_tables and the legacy path; ``node`` looks up what rules depend on besides
    the rules, if available."""

    tables: tuple[Table, ...] = ()
    node: Surroundings | None = field(default=None, compare=False, repr=False)
