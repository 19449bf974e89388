"""nf_tables expressions to model rules.

Problem: a rule in the kernel is a little program over registers, native (nft) or with xtables extensions inside
(iptables-nft). Promise: ``decode`` follows the program and says the same in the model's words; a verdict map becomes
one model rule per element; what has no words, or is not known, becomes ``Opaque`` or ``OpaqueAction`` and names what
was seen, so that the evaluator says "cannot tell" and never guesses. Counters and logs are no steps. The meaning of
each expression is that of the kernel's net/netfilter/nft_*.c; attribute numbers are those of nf_tables.h. Next stage:
``state`` calls this for the chains that somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, host, slot, value_of
from hitless.kernel.nftables.effects import give, immediate, masquerade, nat, object_reference, redirect, reject
from hitless.kernel.nftables.fields import (
    META_LENGTHS,
    Constant,
    Context,
    Field,
    Unknown,
    among,
    is_destination,
    masked,
    membership,
    within,
)
from hitless.kernel.nftables.sets import Interval, SetState
from hitless.kernel.xtables.extensions import decode_match, decode_target
from hitless.model.families import Address, Family
from hitless.model.rules import (
    Comment,
    DestinationPort,
    NoTrack,
    Opaque,
    OpaqueAction,
    Rule,
    SetMark,
    SetMember,
    SourcePort,
    Step,
    UnknownMark,
)

__all__ = ["BRANCHES", "SPELT", "decode"]

SetLookup = Callable[[str], "SetState | None"]

BRANCHES = 512
"""A lookup that would need more rules than this stays opaque."""

SPELT = 64
"""A set of addresses with more elements is asked for a packet's address; a smaller one is spelt out in the rule."""

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_META_MARK = 3
_SILENT = frozenset({"counter", "log", "last", "dup", "flow_offload"})
_COMMENT = 0  # NFTNL_UDATA_RULE_COMMENT: type and length are one byte each


def decode(
    payload: bytes, family: str, sets: SetLookup, handle: int | None = None, towards: Address | None = None
) -> tuple[Rule, ...]:
    """The model rules (one, except where a lookup stands for several) of a rule message of a table of ``family``.

    ``towards``: of what a lookup by destination address finds, only what holds for packets to that address.
    """
    try:
        attributes = netlink.attributes(payload, 4)
        steps: list[Step] = [Comment(text) for text in _comments(attributes.get(wire.RULE_USERDATA, b""))]
        branches = [Branch(Context({"ip": 4, "ip6": 6}.get(family, 0)), steps)]
        for _, raw in netlink.attribute_list(attributes.get(wire.RULE_EXPRESSIONS, b"")):
            expression = netlink.attributes(raw)
            name = netlink.to_text(expression.get(wire.EXPRESSION_NAME, b""))
            data = netlink.attributes(expression.get(wire.EXPRESSION_DATA, b""))
            branches = _apply(name, data, branches, family, sets, towards)
        return tuple(Rule(_merged(branch.steps), handle) for branch in branches)
    except (KernelError, IndexError, ValueError) as error:
        return (Rule((Opaque(f"a rule that does not decode ({error})"), OpaqueAction("not decoded")), handle),)


def _comments(userdata: bytes) -> Iterable[str]:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == _COMMENT:
            yield netlink.to_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length


def _merged(steps: list[Step]) -> tuple[Step, ...]:
    """Lower and upper bound of a port, written as two compares, as the one range that they are."""
    found: list[Step] = []
    for step in steps:
        last = found[-1] if found else None
        if (
            isinstance(step, SourcePort | DestinationPort)
            and isinstance(last, type(step))
            and not (step.negated or last.negated)
        ):
            low, high = max(step.first, last.first), min(step.last, last.last)
            if low <= high:
                found[-1] = type(step)(low, high)
                continue
        found.append(step)
    return tuple(found)


def _apply(
    name: str, data: Attributes, branches: list[Branch], family: str, sets: SetLookup, towards: Address | None
) -> list[Branch]:
    if name in _SILENT:
        return branches
    if name == "lookup":
        return [after for branch in branches for after in _lookup(data, branch, sets, towards)]
    for branch in branches:
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(data, branch)
        elif name in ("match", "target"):
            _compat(name, data, branch, family)
        elif name in _EFFECTS:
            branch.steps.append(OpaqueAction(name))
        else:
            # an unknown expression may be a condition, and may load any register
            branch.steps.append(Opaque(name))
            branch.registers.clear()
    return branches


_EFFECTS = frozenset({"queue", "tproxy", "synproxy", "fwd"})


# --- loads -------------------------------------------------------------------------------------------------------


def _payload(data: Attributes, branch: Branch) -> None:
    if 5 in data and 1 not in data:  # a source register: the packet is rewritten
        branch.steps.append(OpaqueAction("the packet is rewritten"))
        return
    base, offset, length = (wire.number(data.get(key, b"")) for key in (2, 3, 4))
    branch.load(data.get(1), Field("payload", base, offset, length))


def _meta(data: Attributes, branch: Branch) -> None:
    key = wire.number(data.get(2, b""))
    if 1 in data:
        branch.load(data[1], Field("meta", key, length=META_LENGTHS.get(key, 4)))
        return
    if key != _META_MARK:
        return  # priority, pkttype, nftrace…: no verdict depends on them here
    value = branch.value(data.get(3))
    if isinstance(value, Constant):
        branch.steps.append(SetMark(host(value.data)))
    elif isinstance(value, Field) and value.kind == "meta" and value.key == _META_MARK:
        kept = host(value.mask) if value.mask else 0xFFFFFFFF
        branch.steps.append(SetMark(host(value.xor), ~kept & 0xFFFFFFFF))
    else:
        branch.steps.append(UnknownMark())


def _ct(data: Attributes, branch: Branch) -> None:
    key = wire.number(data.get(2, b""))
    if 1 in data:
        direction = 3 in data
        branch.load(data[1], Unknown(f"ct key {key} of a direction") if direction else Field("ct", key))
    # setting ct mark, label… decides nothing for a first packet; helpers and zones are set by objects


_FIB_OIF, _FIB_TYPE = 1, 3  # NFT_FIB_RESULT_*
_FIB_SOURCE_BY_INPUT, _FIB_MARK, _FIB_PRESENT = 0x01 | 0x08, 0x04, 0x20  # NFTA_FIB_F_*


def _fib(data: Attributes, branch: Branch) -> None:
    result, flags = wire.number(data.get(2, b"")), wire.number(data.get(3, b""))
    direction = {1: "src", 2: "dst"}.get(flags, "")
    if result == _FIB_TYPE and direction:  # the address type of the source or the destination alone
        branch.load(data.get(1), Field("fib", result, direction=direction))
    elif result == _FIB_OIF and flags & ~(_FIB_MARK | _FIB_PRESENT) == _FIB_SOURCE_BY_INPUT:
        branch.load(data.get(1), Field("fib", result, length=1 if flags & _FIB_PRESENT else 4))
    else:
        branch.load(data.get(1), Unknown(f"fib result {result} flags {flags}"))


def _unknown_load(what: str, register: int = 1) -> Callable[[Attributes, Branch], None]:
    def load(data: Attributes, branch: Branch) -> None:
        if register in data:  # without one it writes to the packet (clamps the MSS, say), which decides nothing
            branch.load(data[register], Unknown(what))

    return load


def _bitwise(data: Attributes, branch: Branch) -> None:
    source = branch.value(data.get(1))
    operation = wire.number(data.get(6, b""))
    mask, xor = (value_of(data.get(key)) for key in (4, 5))
    if operation == 0 and isinstance(source, Field) and not source.mask and mask and len(mask) == len(xor):
        branch.load(data.get(2), replace(source, mask=mask, xor=xor))
    elif operation == 0 and isinstance(source, Constant) and len(source.data) == len(mask) == len(xor):
        branch.load(data.get(2), Constant(bytes((a & m) ^ x for a, m, x in zip(source.data, mask, xor, strict=True))))
    else:
        branch.load(data.get(2), Unknown("bitwise"))


def _byteorder(data: Attributes, branch: Branch) -> None:
    branch.load(data.get(2), Unknown("byteorder"))


# --- conditions --------------------------------------------------------------------------------------------------


def _cmp(data: Attributes, branch: Branch) -> None:
    loaded, operation, value = branch.value(data.get(1)), wire.number(data.get(2, b"")), value_of(data.get(3))
    if not isinstance(loaded, Field):
        branch.steps.append(Opaque(loaded.text if isinstance(loaded, Unknown) else "compare of constants"))
        return
    words = f"{loaded.words()} {_OPERATORS[operation]} 0x{value.hex()}"
    if operation in (_EQ, _NEQ):
        branch.require(masked(loaded, value, operation == _NEQ, branch.context), words)
        return
    number, width = int.from_bytes(value, "big"), len(value)
    low, high = 0, (1 << 8 * width) - 1
    if operation in (_LT, _LTE):
        high = number - (operation == _LT)
    else:
        low = number + (operation == _GT)
    if not 0 <= low <= high < 1 << 8 * width:
        branch.steps.append(Opaque(words))
        return
    branch.require(
        within(loaded, low.to_bytes(width, "big"), high.to_bytes(width, "big"), False, branch.context), words
    )


def _range(data: Attributes, branch: Branch) -> None:
    loaded, low, high = branch.value(data.get(1)), value_of(data.get(3)), value_of(data.get(4))
    if isinstance(loaded, Field):
        negated = wire.number(data.get(2, b"")) == 1
        words = f"{loaded.words()} {'not ' if negated else ''}in 0x{low.hex()}-0x{high.hex()}"
        branch.require(within(loaded, low, high, negated, branch.context), words)
    else:
        branch.steps.append(Opaque(loaded.text if isinstance(loaded, Unknown) else "range of constants"))


def _lookup(data: Attributes, branch: Branch, sets: SetLookup, towards: Address | None) -> list[Branch]:
    """Membership, or the branches of a map. ``LOOKUP``: set 1, source register 2, destination register 3, flags 5."""
    name = netlink.to_text(data.get(1, b""))
    found, negated = sets(name), bool(wire.number(data.get(5, b"")) & 1)
    words = f"lookup in {'map' if 3 in data else 'set'} {name}"
    if found is None or not found.told:
        return _opaque_lookup(data, branch, words)
    parts = _parts(branch, slot(data.get(2)), found.key_length)
    if not parts:
        return _opaque_lookup(data, branch, words)
    label = "" if found.anonymous else name
    if 3 not in data and len(parts) == 1 and len(found.elements) > SPELT:
        members = found.members()
        matches = None if members is None else among(parts[0][1], label, members, negated, branch.context)
        if matches is not None:
            branch.steps.extend(matches)
            return [branch]
    intervals = _held(found, parts, branch.context, towards)
    if intervals is None:
        return _opaque_lookup(data, branch, words)
    if 3 not in data and len(parts) == 1:
        pairs = tuple((interval.low, interval.high) for interval in intervals)
        matches = membership(parts[0][1], label, pairs, negated, branch.context)
        if matches is not None:
            branch.steps.extend(matches)
            return [branch]
    if negated and intervals:
        return _opaque_lookup(data, branch, words)
    if not intervals:  # nothing is in an empty set; the rule stays, and never applies (or always, as to this)
        if not negated:
            branch.steps.append(SetMember(label, "dst", frozenset()))
        return [branch]
    if len(intervals) > BRANCHES:
        return _opaque_lookup(data, branch, words)
    branches = []
    for interval in intervals:
        after = branch.fork()
        for part, loaded in parts:
            matches = within(loaded, interval.low[part], interval.high[part], False, after.context)
            after.require(matches, f"{loaded.words()} in {name}")
        if 3 in data:
            give(data[3], interval.data, after)
        branches.append(after)
    return branches


def _held(
    found: SetState, parts: list[tuple[slice, Field]], context: Context, towards: Address | None
) -> tuple[Interval, ...] | None:
    """The elements that a packet to ``towards`` may be in: all, where their keys do not name the destination."""
    for part, loaded in parts:
        if towards is not None and is_destination(loaded, context) and loaded.length == len(towards.packed):
            return found.holding(part, towards.packed)
    return found.intervals()


def _opaque_lookup(data: Attributes, branch: Branch, words: str) -> list[Branch]:
    branch.steps.append(Opaque(words))
    if 3 in data:
        if slot(data[3]) == -1:
            branch.steps.append(OpaqueAction(f"verdict of a {words}"))
        else:
            branch.load(data[3], Unknown(words))
    return [branch]


def _parts(branch: Branch, first: int, key_length: int) -> list[tuple[slice, Field]]:
    """The fields that make up a key, register after register, and where each stands in it; empty when unknown."""
    parts: list[tuple[slice, Field]] = []
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


def _compat(name: str, data: Attributes, branch: Branch, family: str) -> None:
    extension, revision = netlink.to_text(data.get(1, b"")), wire.number(data.get(2, b""))
    version = branch.context.version
    if family == "inet" and not version:
        branch.steps.append(Opaque(f"xtables {name} {extension} in an inet table"))
        return
    which = Family.IPV4 if version == 4 else Family.IPV6
    blob = data.get(3, b"")
    if name == "match":
        branch.require(decode_match(extension, revision, blob, which), extension)
    else:
        branch.steps.extend(decode_target(extension, revision, blob, which))


_HANDLERS: dict[str, Callable[[Attributes, Branch], None]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
    "bitwise": _bitwise,
    "byteorder": _byteorder,
    "cmp": _cmp,
    "range": _range,
    "immediate": immediate,
    "masq": masquerade,
    "nat": nat,
    "redir": redirect,
    "reject": reject,
    "objref": object_reference,
    "notrack": lambda data, branch: branch.steps.append(NoTrack()),
    "exthdr": _unknown_load("an extension header"),
    "rt": _unknown_load("a route's data"),
    "socket": _unknown_load("a socket's data", 2),
    "osf": _unknown_load("a guess at the operating system"),
    "numgen": _unknown_load("a generated number"),
    "tunnel": _unknown_load("a tunnel's data", 2),
    "xfrm": _unknown_load("an IPsec state"),
}
