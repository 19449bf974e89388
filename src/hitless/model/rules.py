"""Rules as data: one type for what the kernel has, what it should have, and what the evaluator reads.

Problem: iptables-nft, iptables-legacy and native nftables write the same rule in three encodings. Promise: every
decoder (``hitless.kernel``) yields these values and every producer (``hitless.desired``) makes them, so that equality,
difference and evaluation need to know one language only. What a decoder does not understand becomes ``Opaque`` (a
condition) or ``OpaqueAction`` (an effect): never dropped, never guessed (``hitless.semantics`` then says "cannot
tell"). Next stages: ``plan`` compares, ``semantics`` evaluates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol as Interface
from typing import cast

from hitless.model.families import Address
from hitless.model.matches import (
    AddrType,
    Comment,
    CtState,
    Destination,
    DestinationPort,
    IcmpType,
    InInterface,
    Mark,
    Match,
    Members,
    Opaque,
    OutInterface,
    Ports,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)

__all__ = [
    "PRIORITIES",
    "Accept",
    "Action",
    "AddrType",
    "Chain",
    "Comment",
    "CtState",
    "Destination",
    "DestinationPort",
    "Dnat",
    "Drop",
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
    "NoTrack",
    "Opaque",
    "OpaqueAction",
    "OutInterface",
    "Ports",
    "Protocol",
    "Reject",
    "Return",
    "ReversePath",
    "Rule",
    "Ruleset",
    "SetMark",
    "SetMember",
    "Snat",
    "Source",
    "SourcePort",
    "Step",
    "Table",
    "TcpFlags",
    "UnknownMark",
]

PRIORITIES: Mapping[str, int] = MappingProxyType(
    {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
)
"""Netfilter's standard hook priorities (include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities)."""


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
class UnknownMark:
    """The bits ``mask`` of the packet mark become something that the rules alone do not tell (restored from the
    connection's mark, hashed, looked up in a set). Decides nothing by itself."""

    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class OpaqueAction:
    """An effect that the reader does not understand, and that might decide the packet's fate."""

    text: str


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
    | UnknownMark
    | OpaqueAction
)
Step = Match | Action


# --- rules, chains, tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """Steps in order; a condition that does not hold ends the rule. Counters and logging are no steps.

    ``handle`` is the kernel's number where it gave one, and takes no part in equality.
    """

    steps: tuple[Step, ...]
    handle: int | None = field(default=None, compare=False)


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
    """All tables that a reader was asked for, of both the nf_tables and the legacy path."""

    tables: tuple[Table, ...] = ()
