"""Which chains and sets are anybody's business? Those that a packet of interest may meet; told from bytes.

Problem: strangers own tables of any size on a node (block lists, another firewall's chains), and what is kept of them
costs memory and time at each of their changes. Promise: of interest are the base chains at the ``hooks`` that a reader
asks about, the chains that it names, every chain that a rule of interest jumps to (by a verdict map too), and every set
or map that such a rule looks up; ``links`` finds what a rule leads to without decoding it. It may find too much, never
too little. What it never does: say that a packet comes there. Next stages: ``replay`` and ``dump`` keep the rules and
elements of these alone, and only the heads of all others.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.sets import SetState
from hitless.model.rules import Hook

__all__ = ["EVERYTHING", "Body", "Interest", "called", "identity", "links", "named"]


class Body(NamedTuple):
    """What a chain (its rules) or a set (its elements) holds, by name."""

    is_set: bool
    name: str


@dataclass(frozen=True, slots=True)
class Interest:
    """What is asked about: base chains at ``hooks``, all chains of ``tables``, and ``chains`` (table, chain). ``hooks``
    ``None``: everything is of interest."""

    hooks: frozenset[str] | None = None
    tables: frozenset[str] = field(default=frozenset())
    chains: frozenset[tuple[str, str]] = field(default=frozenset())

    def begins(self, table: str, chain: str, hook: Hook | None) -> bool:
        """Whether a chain is of interest by itself."""
        if self.hooks is None or table in self.tables or (table, chain) in self.chains:
            return True
        return hook is not None and hook.hook in self.hooks

    def wants(self, found: SetState) -> bool:
        """Whether the elements of a set that is of interest are worth keeping: not where they change with packets or
        time, and not where they were too many."""
        return self.hooks is None or not (found.dynamic or found.refused)


EVERYTHING = Interest()

# NFT_JUMP and NFT_GOTO as verdict codes; the name of a lookup expression, behind which its data follows
_JUMPS = (netlink.be32(wire.VERDICT_CODE, -3), netlink.be32(wire.VERDICT_CODE, -4))
_LOOKUP = netlink.text(wire.EXPRESSION_NAME, "lookup")


def identity(key: tuple[int, str], body: Body) -> bytes:
    """The bytes by which messages about a rule of this chain, or an element of this set, begin after their head: table
    and name, as attributes whose numbers are the same for both; before them the kind and the family."""
    family, table = key
    head = bytes((body.is_set, family))
    return head + netlink.text(wire.RULE_TABLE, table) + netlink.text(wire.RULE_CHAIN, body.name)


def named(what: bytes) -> tuple[int, str, Body]:
    """Family, table and name of an ``identity``."""
    attributes = netlink.attributes(what, 2)
    table, name = (netlink.to_text(attributes.get(kind, b"")) for kind in (wire.RULE_TABLE, wire.RULE_CHAIN))
    return what[1], table, Body(bool(what[0]), name)


def called(data: bytes) -> set[str]:
    """The chains that the verdicts in these bytes jump or go to."""
    found: set[str] = set()
    for code in _JUMPS:
        at = data.find(code)
        while at >= 0:
            begin = at + len(code)
            length = int.from_bytes(data[begin : begin + 2], sys.byteorder)
            if int.from_bytes(data[begin + 2 : begin + 4], sys.byteorder) == wire.VERDICT_CHAIN and length > 4:
                found.add(sys.intern(netlink.to_text(data[begin + 4 : begin + length])))  # as the chain itself
            at = data.find(code, begin)
    return found


def links(rule: bytes) -> Collection[Body]:
    """The chains and sets that a rule message leads to."""
    found = {Body(False, name) for name in called(rule)} if b"\xff\xff\xff" in rule else set()
    at = rule.find(_LOOKUP)
    while at >= 0:
        at += len(_LOOKUP)
        length = int.from_bytes(rule[at : at + 2], sys.byteorder)
        try:
            name = netlink.attributes(rule[at + 4 : at + length]).get(1)  # NFTA_LOOKUP_SET
        except KernelError:  # such bytes in a comment
            name = None
        if name:
            found.add(Body(True, netlink.to_text(name)))
        at = rule.find(_LOOKUP, at)
    return found
