"""A legacy table's entries as model chains, decoded on demand.

Problem: with 5,000 Services a nat table has more than 30,000 entries, and a witness packet passes thirty of them.
Promise: ``LegacyChains`` is a mapping of every chain by name; a chain is decoded at its first use, the target of a jump
is found by its offset, and the whole blob is walked only for a name that no decoded jump has led to. What the model
cannot express becomes ``Opaque`` or ``OpaqueAction``; a blob that is not a valid table raises ``KernelError``. The
implicit RETURN at the end of each user chain is not a rule. Encoding: include/uapi/linux/netfilter_ipv4/ip_tables.h,
netfilter_ipv6/ip6_tables.h; semantics: net/ipv4/netfilter/ip_tables.c. Next stage: ``semantics``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from hitless.errors import KernelError
from hitless.kernel.xtables.addressing import head_steps
from hitless.kernel.xtables.extensions import decode_match, decode_target
from hitless.kernel.xtables.layout import LAYOUTS, AddressIndex, compared_address
from hitless.kernel.xtables.packed_entries import Entries
from hitless.kernel.xtables.sockopt import HOOKS, Info
from hitless.model.families import Family
from hitless.model.headers import PacketHeader
from hitless.model.rules import (
    MOST_MET,
    TOO_MANY,
    Accept,
    Chain,
    Drop,
    Goto,
    Hook,
    Jump,
    OpaqueAction,
    Return,
    Rule,
    Step,
    Table,
    jump_targets,
)

__all__ = ["LegacyChains", "decode_table", "unread_table"]


_TARGET_HEAD = 32  # struct xt_entry_target: size, name[29], revision
_ERROR_TARGET = 64  # XT_ALIGN(sizeof(struct xt_error_target)): a chain's head is an entry with this target
_ERROR_NAME = 30

_HOOK_NAMES = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITIES: Mapping[str, tuple[int, ...]] = {
    # per hook, as each table registers them (iptable_*.c; nat: source side after, destination side before filter)
    "raw": (-300,) * HOOKS,
    "mangle": (-150,) * HOOKS,
    "nat": (-100, 100, 0, -100, 100),
    "filter": (0,) * HOOKS,
    "security": (50,) * HOOKS,
}


class _EntryReader:
    """Reads single entries of a table by their offsets."""

    def __init__(self, entries: Entries, table: str, family: Family) -> None:
        self._stored, self._table, self._family = entries, table, family
        self._layout = LAYOUTS[family]

    @property
    def _entries(self) -> bytes:
        return self._stored.whole

    def _sizes(self, at: int) -> tuple[int, int]:
        """target_offset and next_offset of the entry at ``at``, checked."""
        layout = self._layout
        if at + layout.head + _TARGET_HEAD > len(self._entries):
            raise self._broken(at)
        target, after = struct.unpack_from("=HH", self._entries, at + layout.sizes_at)
        if target < layout.head or target + _TARGET_HEAD > after or at + after > len(self._entries):
            raise self._broken(at)
        return target, after

    def _broken(self, at: int) -> KernelError:
        return KernelError("decode", f"legacy table {self._table}", reason=f"no whole entry at offset {at}")

    def _head_name(self, at: int, target: int) -> str | None:
        """The chain name in the entry at ``at``, if it is a chain's head (an ERROR target)."""
        start = at + target + 2
        if self._entries[start : start + 6] != b"ERROR\0":
            return None
        name = self._entries[at + target + _TARGET_HEAD : at + target + _TARGET_HEAD + _ERROR_NAME]
        return name.split(b"\0", 1)[0].decode("utf-8", "replace")

    def _extension(self, at: int) -> tuple[str, int]:
        field = self._entries[at + 2 : at + 31]
        return field.split(b"\0", 1)[0].decode("ascii", "replace"), self._entries[at + 31]


class LegacyChains(_EntryReader, Mapping[str, Chain]):
    """The chains of one table by name."""

    def __init__(self, info: Info, entries: Entries, table: str, family: Family) -> None:
        if entries.size != info.size:
            raise KernelError("decode", f"legacy table {table}", reason=f"{entries.size} bytes instead of {info.size}")
        super().__init__(entries, table, family)
        self._info = info
        self._chains: dict[str, Chain] = {}
        self._offsets: dict[str, int] = {}  # the first entry of each user chain
        self._names: dict[int, str] = {}
        self._indexed = False
        self._indexes: dict[str, AddressIndex] = {}
        self._read: dict[int, Rule] = {}  # decoded entries, by offset
        self._hooks = {
            name.upper(): (number, Hook("nat" if table == "nat" else "filter", name, _PRIORITIES[table][number]))
            for number, name in enumerate(_HOOK_NAMES)
            if info.valid_hooks >> number & 1
        }

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook, in the order of the hooks."""
        return tuple(self[name] for name in self._hooks)

    def __getitem__(self, name: str) -> Chain:
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chains[name] = self._built_in(name) if name in self._hooks else self._user(name)
        return chain

    def __iter__(self) -> Iterator[str]:
        self._index()
        yield from self._hooks
        yield from self._offsets

    def __len__(self) -> int:
        self._index()
        return len(self._hooks) + len(self._offsets)

    def __contains__(self, name: object) -> bool:
        if name in self._hooks or name in self._offsets:
            return True
        self._index()
        return name in self._offsets

    def hooks(self) -> tuple[tuple[str, Hook], ...]:
        """Their names and hooks."""
        return tuple((name, self._attached(name)) for name in self._hooks)

    def rules_for(self, name: str, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules of a chain, numbered from 1, without those that compare other addresses: these are not decoded."""
        index = self._index_of(name)
        met = index.candidates(header)
        if len(met) > MOST_MET:
            return TOO_MANY
        found = [(number, self._rule_at(at)) for number, at in met]
        if name in self._hooks:
            return found
        if found and found[-1] == (index.count, _END):
            return found[:-1]
        return [*found, (index.count, _runs_on(name))]

    def specific_rules(self, name: str, header: PacketHeader) -> Sequence[object]:
        """The candidates that compare an address."""
        return sorted(self._index_of(name).specific_rules(header))

    def header_parts_used(self, name: str) -> frozenset[str]:
        """None: decoding does not depend on the packet."""
        return frozenset()

    def version(self, name: str) -> object:
        """The chain, or for a long one, the entries of the whole table."""
        return self._stored if self._index_of(name).count > _LONG else self[name]

    def calls(self, name: str) -> Collection[str]:
        """The chains that its rules jump or go to."""
        index = self._index_of(name)
        if index.count <= _LONG:
            return jump_targets(self[name])
        found = set()
        for at in index.offsets:
            target, after = self._sizes(at)
            start = at + target
            verdict = struct.unpack_from("=i", self._entries, start + _TARGET_HEAD)[0] if after - target > 32 else -1
            if self._entries[start + 2] == 0 and verdict >= 0 and (name := self._name_at(verdict) or ""):
                found.add(name)
        return found

    def size(self, name: str) -> int:
        """How many rules a chain has."""
        return self._index_of(name).count - (name not in self._hooks)

    def _index_of(self, name: str) -> AddressIndex:
        index = self._indexes.get(name)
        if index is None:
            index = self._indexes[name] = self._build_index(name)
        return index

    def _build_index(self, name: str) -> AddressIndex:
        """Build the index of a chain from the addresses that its entries compare; nothing is decoded."""
        layout, entries = self._layout, self._entries
        index = AddressIndex(layout.address)
        if name in self._hooks:
            number, _ = self._hooks[name]
            at, end = self._info.hook_entry[number], self._info.underflow[number]
            while at < end:
                index.add(at, *compared_address(layout, entries, at))
                at += self._sizes(at)[1]
            if at != end:
                raise self._without_policy(name)
            return index.finish()
        if name not in self._offsets:
            self._index()
        at = self._offsets[name]
        while True:
            target, after = self._sizes(at)
            key, value = compared_address(layout, entries, at)
            if key is None and self._head_name(at, target) is not None:
                return index.finish()
            index.add(at, key, value)
            at += after

    def _rule_at(self, at: int) -> Rule:
        rule = self._read.get(at)
        if rule is None:
            rule = self._read[at] = self._rule(at)
        return rule

    # --- entries

    def _index(self) -> None:
        """Find every user chain by walking all entries once."""
        if self._indexed:
            return
        at, end = 0, len(self._entries)
        while at < end:
            target, after = self._sizes(at)
            name = self._head_name(at, target)
            at += after
            if name is not None and at < end:  # the last ERROR entry ends the table
                self._offsets[name] = at
                self._names[at] = name
        self._indexed = True

    def _name_at(self, offset: int) -> str | None:
        """The name of the chain that begins at ``offset``; ``None`` when no chain begins there."""
        name = self._names.get(offset)
        if name is None:
            size = self._layout.head + _ERROR_TARGET
            head = offset - size
            if head < 0 or offset > len(self._entries):
                return None
            if struct.unpack_from("=HH", self._entries, head + self._layout.sizes_at) != (self._layout.head, size):
                return None
            name = self._head_name(head, self._layout.head)
            if name is not None:
                self._names[offset] = name
                self._offsets[name] = offset
        return name

    # --- chains

    def _built_in(self, name: str) -> Chain:
        number, _ = self._hooks[name]
        at, policy_at = self._info.hook_entry[number], self._info.underflow[number]
        rules = []
        while at < policy_at:
            rules.append(self._rule(at))
            at += self._sizes(at)[1]
        if at != policy_at:
            raise self._without_policy(name)
        return Chain(name, tuple(rules), self._attached(name))

    def _attached(self, name: str) -> Hook:
        number, hook = self._hooks[name]
        policy = self._rule_at(self._info.underflow[number]).steps
        verdict = {Accept(): "accept", Drop(): "drop"}.get(policy[0]) if len(policy) == 1 else None
        if verdict is None:
            raise self._without_policy(name)
        return replace(hook, policy=verdict)

    def _without_policy(self, name: str) -> KernelError:
        return KernelError("decode", f"legacy table {self._table}", reason=f"chain {name} has no policy")

    def _user(self, name: str) -> Chain:
        if name not in self._offsets:
            self._index()
        at = self._offsets[name]
        rules = []
        while True:
            target, after = self._sizes(at)
            if self._head_name(at, target) is not None:
                break
            rules.append(self._rule(at))
            at += after
        if rules and rules[-1] == _END:
            rules.pop()
        else:
            rules.append(_runs_on(name))
        return Chain(name, tuple(rules))

    def _rule(self, at: int) -> Rule:
        target, after = self._sizes(at)
        steps: list[Step] = list(head_steps(self._family, self._entries, at))
        entries, cursor, end = self._entries, at + self._layout.head, at + target
        while cursor < end:
            size = struct.unpack_from("=H", entries, cursor)[0] if end - cursor >= _TARGET_HEAD else 0
            if size < _TARGET_HEAD or cursor + size > end:
                raise self._broken(at)
            name, revision = self._extension(cursor)
            data = entries[cursor + _TARGET_HEAD : cursor + size]
            # tcp, udp and icmp repeat the protocol of the rule's head
            steps += (step for step in decode_match(name, revision, data, self._family) if step not in steps)
            cursor += size
        steps += self._target_steps(at, target, after)
        return Rule(tuple(steps))

    def _target_steps(self, at: int, target: int, after: int) -> tuple[Step, ...]:
        name, revision = self._extension(at + target)
        data = self._entries[at + target + _TARGET_HEAD : at + after]
        if name == "" and len(data) >= 4:
            (verdict,) = struct.unpack_from("=i", data)
            if verdict >= 0:
                return self._jump(verdict, at, after)
        return decode_target(name, revision, data, self._family)

    def _jump(self, offset: int, at: int, after: int) -> tuple[Step, ...]:
        if offset == at + after:
            return ()  # a rule without a target: it goes on with the next one
        chain = self._name_at(offset)
        if chain is None:
            return (OpaqueAction(f"jump to offset {offset}"),)
        goto = self._entries[at + self._layout.flags_at] & self._layout.goto
        return (Goto(chain) if goto else Jump(chain),)


_END = Rule((Return(),))
"""What the kernel requires at the end of each user chain; not a rule of its own."""


_LONG = 64  # chains of more rules are not compared rule by rule


def _runs_on(name: str) -> Rule:
    return Rule((OpaqueAction(f"chain {name} runs into the next one"),))


def decode_table(family: Family, name: str, info: Info, entries: bytes | Entries) -> Table:
    """The table that GET_INFO and GET_ENTRIES gave; its chains are decoded when they are used.

    Raises ``KernelError`` for a table name that iptables does not have, and later, at its use, for a broken entry.
    """
    if name not in _PRIORITIES:
        raise KernelError("decode", f"legacy table {name}", reason="no such table")
    stored = entries if isinstance(entries, Entries) else Entries(entries)
    return Table(family.nft, name, LegacyChains(info, stored, name, family), legacy=True)


def unread_table(family: Family, name: str, info: Info) -> Table:
    """A table of which only GET_INFO is known: every chain may do anything."""
    rules = (Rule((OpaqueAction("the table was replaced before it could be read"),)),)
    hooks = {
        hook.upper(): Hook("nat" if name == "nat" else "filter", hook, _PRIORITIES[name][number])
        for number, hook in enumerate(_HOOK_NAMES)
        if info.valid_hooks >> number & 1
    }
    return Table(family.nft, name, {chain: Chain(chain, rules, hook) for chain, hook in hooks.items()}, legacy=True)
