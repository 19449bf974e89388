"""Which chains and sets are relevant for packets of interest? Found in the bytes of the rules.

Problem: other programs own tables of any size on a node (block lists, another firewall's chains), and keeping their
contents costs memory and time at each change. Promise: of interest are the base chains at the ``hooks`` that a reader
asks about, the chains that it names, every chain that a rule of interest jumps to (also by a verdict map), and every
set or map that such a rule looks up. ``references`` finds what a rule refers to without decoding it; it may find too
much, never too little. It never decides whether a packet gets there. Next stages: ``replay`` and ``dump`` keep the
rules and elements of these objects, and of all others only the heads.
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

__all__ = ["EVERYTHING", "Interest", "ObjectRef", "identity", "jump_targets", "parse_identity", "references"]


class ObjectRef(NamedTuple):
    """A chain (whose content is its rules) or a set (its elements) of a table, by name."""

    is_set: bool
    name: str


@dataclass(frozen=True, slots=True)
class Interest:
    """What is of interest: base chains at ``hooks``, all chains of ``tables``, and ``chains`` (table, chain). ``hooks``
    is ``None``: everything is."""

    hooks: frozenset[str] | None = None
    tables: frozenset[str] = field(default=frozenset())
    chains: frozenset[tuple[str, str]] = field(default=frozenset())

    def includes(self, table: str, chain: str, hook: Hook | None) -> bool:
        """Whether a chain is of interest by itself."""
        if self.hooks is None or table in self.tables or (table, chain) in self.chains:
            return True
        return hook is not None and hook.hook in self.hooks

    def wants_elements(self, found: SetState) -> bool:
        """Whether to keep the elements of a set of interest: not where packets or time change them, and not where there
        are too many."""
        return self.hooks is None or not (found.dynamic or found.too_large)


EVERYTHING = Interest()

# NFT_JUMP and NFT_GOTO as verdict codes; the name of a lookup expression, which its data follows
_JUMPS = (netlink.be32(wire.VERDICT_CODE, -3), netlink.be32(wire.VERDICT_CODE, -4))
_LOOKUP = netlink.text(wire.EXPRESSION_NAME, "lookup")


def identity(key: tuple[int, str], ref: ObjectRef) -> bytes:
    """A key for a chain or set: kind, family, and then the bytes with which messages about its rules or elements begin
    after their head (table and name: the attribute numbers are the same for both kinds)."""
    family, table = key
    head = bytes((ref.is_set, family))
    return head + netlink.text(wire.RULE_TABLE, table) + netlink.text(wire.RULE_CHAIN, ref.name)


def parse_identity(what: bytes) -> tuple[int, str, ObjectRef]:
    """Family, table and object of an ``identity``."""
    attributes = netlink.attributes(what, 2)
    table, name = (netlink.to_text(attributes.get(kind, b"")) for kind in (wire.RULE_TABLE, wire.RULE_CHAIN))
    return what[1], table, ObjectRef(bool(what[0]), name)


def jump_targets(data: bytes) -> set[str]:
    """The chains that the verdicts in these bytes jump or go to."""
    found: set[str] = set()
    for code in _JUMPS:
        at = data.find(code)
        while at >= 0:
            begin = at + len(code)
            length = int.from_bytes(data[begin : begin + 2], sys.byteorder)
            if int.from_bytes(data[begin + 2 : begin + 4], sys.byteorder) == wire.VERDICT_CHAIN and length > 4:
                found.add(sys.intern(netlink.to_text(data[begin + 4 : begin + length])))  # shared with the chain's name
            at = data.find(code, begin)
    return found


def references(rule: bytes) -> Collection[ObjectRef]:
    """The chains and sets that a rule message refers to."""
    found = {ObjectRef(False, name) for name in jump_targets(rule)} if b"\xff\xff\xff" in rule else set()
    at = rule.find(_LOOKUP)
    while at >= 0:
        at += len(_LOOKUP)
        length = int.from_bytes(rule[at : at + 2], sys.byteorder)
        try:
            name = netlink.attributes(rule[at + 4 : at + length]).get(1)  # NFTA_LOOKUP_SET
        except KernelError:  # such bytes in a comment
            name = None
        if name:
            found.add(ObjectRef(True, netlink.to_text(name)))
        at = rule.find(_LOOKUP, at)
    return found
