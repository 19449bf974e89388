"""Lookups in sets and maps, and additions to sets.

Problem: one rule with a map represents as many rules as the map has elements, and a key may be something that a packet
does not determine. Promise: ``lookup`` makes one condition of a set, negated or not, and of a map one branch for each
element; where the key is a random number or a hash, the branches become alternatives of one choice (``Branch.choice``).
Elements with a rate limit or quota of their own make a condition. Previous stage: ``expressions``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, Choice, slot
from hitless.kernel.nftables.effects import give
from hitless.kernel.nftables.fields import among, any_of, membership, within
from hitless.kernel.nftables.limits import condition_of
from hitless.kernel.nftables.register_values import Context, Field, UnknownValue
from hitless.kernel.nftables.sets import KeyInterval, SetState
from hitless.model.headers import PacketHeader
from hitless.model.rules import AnyOf, Element, Match, Opaque, OpaqueAction, SetProperty

__all__ = ["INLINE_LIMIT", "MAX_BRANCHES", "HeaderReader", "SetLookup", "add", "lookup"]

_ROOMY = 65535
"""The size that nft gives by default to a set that rules add to; a set with a smaller size is expected to become
full.
"""

SetLookup = Callable[[str], "SetState | None"]

MAX_BRANCHES = 512
"""A map that would need more rules than this stays opaque."""

INLINE_LIMIT = 64
"""A set of addresses with more elements is kept as a set and looked up; a smaller one is spelt out in the rule. Of
other large sets and maps, only the elements relevant for a packet are decoded.
"""


class HeaderReader:
    """The header of the packets for which a rule is decoded; ``parts_read``: the parts on which the result depended."""

    def __init__(self, header: PacketHeader) -> None:
        self._header = header
        self.parts_read: set[str] = set()

    def part(self, name: str) -> bytes | None:
        """The value of a part; ``None``: not known."""
        self.parts_read.add(name)
        return self._header.part(name)


_OPERATIONS = ("add", "update", "delete")
_Parts = list[tuple[slice, Field]]


def lookup(data: Attributes, branch: Branch, sets: SetLookup, header: HeaderReader | None) -> list[Branch]:
    """Membership in a set, or the branches of a map. ``LOOKUP``: set 1, source register 2, destination register 3,
    flags 5."""
    name = netlink.to_text(data.get(1, b""))
    found, negated, is_map = sets(name), bool(wire.number(data.get(5, b"")) & 1), 3 in data
    key = _parts(branch, slot(data.get(2)), found.key_length if found is not None else 0)
    text = _description(key, name, found, negated, is_map, branch.context)
    if found is None or not key:
        return _opaque(data, branch, text)
    label = "" if found.anonymous else name
    if (found.dynamic or found.too_large) and not is_map:
        branch.require(_live_lookup(key, name, negated, text, branch), text)
        return [branch]
    if not found.is_known:
        return _opaque(data, branch, text)
    if is_map:
        held = _relevant(found, key, branch.context, header)
        return _opaque(data, branch, text) if held is None else _map(data, branch, found, key, held, text)
    if found.catch_all is not None:
        for _, field in key:
            branch.require_exists(field)
        branch.require(() if not negated else (AnyOf(((),), True, label, text),), text)
        return [branch]
    branch.require(_members(found, key, label, negated, branch.context, header), text)
    return [branch]


def _members(
    found: SetState, key: _Parts, label: str, negated: bool, context: Context, header: HeaderReader | None
) -> tuple[Match, ...] | None:
    """One condition for the elements of a set; ``None`` if there are too many."""
    if len(key) == 1 and len(found.elements) > INLINE_LIMIT:
        members = found.members()
        matches = None if members is None else among(key[0][1], label, members, negated, context)
        if matches is not None:
            return matches
    intervals = _relevant(found, key, context, header)
    if intervals is None:
        return None
    pairs = tuple((interval.low, interval.high) for interval in intervals)
    matches = membership(key[0][1], label, pairs, negated, context) if len(key) == 1 else None
    return any_of(key, label, pairs, negated, context) if matches is None else matches


def _live_lookup(key: _Parts, name: str, negated: bool, text: str, branch: Branch) -> tuple[Match, ...] | None:
    """A condition that is looked up in the kernel; ``None`` if a part of the key is not a plain field of a packet."""
    parts = [loaded.plain(branch.context) for _, loaded in key]
    if not all(parts):
        return None
    return (Element(*branch.table, name, tuple(parts), negated, text),)


def _map(
    data: Attributes, branch: Branch, found: SetState, key: _Parts, intervals: tuple[KeyInterval, ...], text: str
) -> list[Branch]:
    if len(intervals) > MAX_BRANCHES:
        return _opaque(data, branch, text)
    counted = key[0][1] if len(key) == 1 and key[0][1].count else None
    branches = []
    for interval in intervals:
        after = branch.fork()
        if counted is not None:
            after.choose(Choice(len(branch.steps), text, _covers(intervals, counted, found)))
        else:
            for part, loaded in key:
                matches = within(loaded, interval.low[part], interval.high[part], False, after.context)
                after.require(matches, f"{loaded.nft(after.context)} in {found.name}")
        give(data[3], interval.data, after)
        branches.append(after)
    default = found.catch_all
    if default is not None:
        rest = branch.fork()
        pairs = tuple((interval.low, interval.high) for interval in intervals)
        if counted is not None:
            rest.choose(Choice(len(branch.steps), text, True))
        else:
            rest.require(any_of(key, "", pairs, True, rest.context) if pairs else (), text)
        give(data[3], default, rest)
        branches.append(rest)
    if not branches:  # the map is empty: the rule never matches
        branch.steps.append(AnyOf((), text=text))
        return [branch]
    return branches


def _covers(intervals: Sequence[KeyInterval], counted: Field, found: SetState) -> bool:
    """Whether the elements cover all values that the field can have."""
    if found.catch_all is not None:
        return True
    values = {
        number
        for interval in intervals
        for number in range(
            int.from_bytes(interval.low, counted.order),
            min(int.from_bytes(interval.high, counted.order), counted.offset + counted.count) + 1,
        )
    }
    return values >= set(range(counted.offset, counted.offset + counted.count))


def _relevant(
    found: SetState, parts: _Parts, context: Context, header: HeaderReader | None
) -> tuple[KeyInterval, ...] | None:
    """The elements whose keys the packet may have; all of them where no part of the packet's key is known."""
    if header is not None and len(found.elements) > INLINE_LIMIT:
        names = [(part, loaded.plain(context), loaded.length) for part, loaded in parts]
        known = [
            (part, value)
            for part, name, width in names
            if name and (value := header.part(name)) is not None and len(value) == width
        ]
        if known:
            return found.intervals_containing(known)
    return found.intervals()


def _opaque(data: Attributes, branch: Branch, text: str) -> list[Branch]:
    branch.steps.append(Opaque(text))
    if 3 in data:
        if slot(data[3]) == -1:
            branch.steps.append(OpaqueAction(f"the verdict of {text}"))
        else:
            branch.load(data[3], UnknownValue(text))
    return [branch]


def _description(key: _Parts, name: str, found: SetState | None, negated: bool, is_map: bool, context: Context) -> str:
    fields = " . ".join(field.nft(context) for _, field in key) or "a key"
    shown = f"@{name}" if found is None or not found.anonymous else f"{{ {len(found.elements)} elements }}"
    kind = ("vmap " if found is not None and found.gives_verdicts else "map ") if is_map else ""
    return f"{fields} {'!= ' if negated else ''}{kind}{shown}"


def _parts(branch: Branch, first: int, key_length: int) -> _Parts:
    """The fields that make up a key, with their places in it; empty when one is not known."""
    parts: _Parts = []
    offset = 0
    while offset < key_length:
        loaded = branch.registers.get(first)
        if not isinstance(loaded, Field) or loaded.length <= 0:
            return []
        width = min(loaded.length, key_length - offset)
        parts.append((slice(offset, offset + width), loaded))
        offset += (width + 3) & ~3
        first += (width + 3) // 4
    return parts


def add(data: Attributes, branch: Branch, sets: SetLookup) -> None:
    """A rule that adds the packet's key to a set (``dynset``: set 1, operation 3, key register 4, expression 7,
    expressions 10). The rule goes on, unless the set is full or an expression of the element does not hold."""
    name, operation = netlink.to_text(data.get(1, b"")), wire.number(data.get(3, b""))
    found = sets(name)
    key = _parts(branch, slot(data.get(4)), found.key_length if found is not None else 0)
    fields = " . ".join(field.nft(branch.context) for _, field in key) or "a key"
    for _, field in key:
        branch.require_exists(field)
    each = [data[7]] if 7 in data else [raw for _, raw in netlink.attribute_list(data.get(10, b""))]
    limits = [condition for raw in each if (condition := condition_of(raw))]
    operation_name = _OPERATIONS[operation] if operation < len(_OPERATIONS) else "change"
    branch.steps.append(SetProperty(name, f"{operation_name} @{name} {{ {' '.join([fields, *limits])} }}"))
    if limits:
        branch.steps.append(Opaque(" ".join(limits)))
    elif found is not None and 0 < found.max_elements < _ROOMY:
        branch.steps.append(Opaque(f"@{name} has room (size {found.max_elements})"))
