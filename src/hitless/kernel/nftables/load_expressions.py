"""Expressions that load a register, or write a register to the packet or its connection.

Promise: a load becomes a ``Field`` with nft's name for it, or an ``UnknownValue`` with a description; a write becomes
an effect of the model. Attribute numbers are those of the kernel's nf_tables.h, the semantics those of
net/netfilter/nft_*.c. Previous stage: ``expressions``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, host, value_of
from hitless.kernel.nftables.field_names import FieldNames, Part
from hitless.kernel.nftables.fields import CT_LENGTHS, META_LENGTHS
from hitless.kernel.nftables.register_values import Constant, Field, UnknownValue, Value
from hitless.model.packets import TCP
from hitless.model.rules import (
    ConntrackTemplate,
    MoveMark,
    OpaqueAction,
    Protocol,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    UnknownMark,
)

__all__ = ["LOADS"]

_META_MARK, _CT_MARK, _CT_ZONE = 3, 3, 17
_RANDOM = 24  # nft reads its bytes as a number in network byte order
_ALL = 0xFFFFFFFF


def _payload(data: Attributes, branch: Branch) -> None:
    base, offset, length = (wire.number(data.get(key, b"")) for key in (2, 3, 4))
    field = Field("payload", base, offset, length)
    if 5 not in data or 1 in data:
        branch.load(data.get(1), field)
        return
    # with a source register the packet is rewritten; a new address or port changes where it goes
    written = branch.value(data[5])
    branch.require_exists(written)
    changed = [part for part in field.parts(branch.context) if _changes(part, field, written)]
    text = f"{changed[0].nft if changed else field.nft(branch.context)} set {_new(changed, field, written, branch)}"
    if len(changed) != 1 or changed[0].kind in _DECIDING:
        branch.steps.append(OpaqueAction(text))
    else:
        branch.steps.append(SetProperty(changed[0].kind, text))


_DECIDING = frozenset({"source", "destination", "sport", "dport", "protocol", "ip head"})


def _changes(part: Part, field: Field, written: Value) -> bool:
    """Whether writing the loaded bytes back changes a part of the header."""
    first, last = max(part.start, field.offset), min(part.start + part.size, field.offset + field.length)
    if first >= last:
        return False
    if not isinstance(written, Field) or (written.kind, written.key, written.offset) != (
        "payload",
        field.key,
        field.offset,
    ):
        return True
    inner = slice(first - field.offset, last - field.offset)
    return any(byte != 0xFF for byte in written.mask[inner]) or any(written.xor[inner])


def _new(changed: list[Part], field: Field, written: Value, branch: Branch) -> str:
    if len(changed) == 1 and isinstance(written, Field) and written.xor:
        start = changed[0].start - field.offset
        return str(int.from_bytes(written.xor[max(0, start) : start + changed[0].size], "big"))
    return _shown(written, field, branch)


def _shown(value: Value, like: Field, branch: Branch) -> str:
    if isinstance(value, Constant):
        return like.shown(value.data, branch.context)
    return value.nft(branch.context) if isinstance(value, Field) else value.text


def _meta(data: Attributes, branch: Branch) -> None:
    key = wire.number(data.get(2, b""))
    field = Field("meta", key, length=META_LENGTHS.get(key, 4), big=key == _RANDOM)
    if 1 in data:
        branch.load(data[1], field)
        return
    value = branch.value(data.get(3))
    branch.require_exists(value)
    if key == _META_MARK:
        branch.steps.append(_marked(value, field, branch, connection=False))
    else:  # priority, packet type, nftrace…
        branch.steps.append(SetProperty(field.names.name, f"{field.names.nft} set {_shown(value, field, branch)}"))


def _marked(
    value: Value, field: Field, branch: Branch, *, connection: bool
) -> SetMark | SetConnMark | MoveMark | UnknownMark:
    """A mark is set: to a constant, to its own value with bits changed, or to bits of the other mark."""
    kind = SetConnMark if connection else SetMark
    if isinstance(value, Constant):
        return kind(host(value.data))
    if isinstance(value, Field) and not value.shift and not value.big:
        kept = host(value.mask) if value.mask else _ALL
        if (value.kind, value.key) == (field.kind, field.key):
            return kind(host(value.xor), ~kept & _ALL)
        if (value.kind, value.key) in (("meta", _META_MARK), ("ct", _CT_MARK)):
            return MoveMark(not connection, _ALL, kept, 0, host(value.xor))
    return UnknownMark(_ALL, connection, f"{field.names.nft} set {_shown(value, field, branch)}")


def _ct(data: Attributes, branch: Branch) -> None:
    key = wire.number(data.get(2, b""))
    direction = {0: "original", 1: "reply"}.get(wire.number(data[3]), "") if 3 in data else ""
    field = Field(
        "ct", key, length=CT_LENGTHS.get(key, 4), direction=direction, big=key in (8, 9, 11, 12, 19, 20, 21, 22, 23)
    )
    if 1 in data:
        branch.load(data[1], field)
        return
    value = branch.value(data.get(4))
    branch.require_exists(value)
    if key == _CT_MARK:
        branch.steps.append(_marked(value, field, branch, connection=True))
    else:
        text = f"{field.names.nft} set {_shown(value, field, branch)}"
        if key == _CT_ZONE:
            known = host(value.data[:2]) if isinstance(value, Constant) and not direction else None
            branch.steps.append(ConntrackTemplate(known, after_notrack=True, text=text))
        else:
            branch.steps.append(SetProperty(field.names.name, text))


_FIB_OIF, _FIB_OIFNAME, _FIB_TYPE = 1, 2, 3  # NFT_FIB_RESULT_*
_FIB_SOURCE, _FIB_DESTINATION, _FIB_MARK, _FIB_IIF, _FIB_OIF_FLAG, _FIB_PRESENT = 1, 2, 4, 8, 16, 32  # NFTA_FIB_F_*
_FIB_RESULTS = {_FIB_OIF: "oif", _FIB_OIFNAME: "oifname", _FIB_TYPE: "type"}


def _fib(data: Attributes, branch: Branch) -> None:
    result, flags = wire.number(data.get(2, b"")), wire.number(data.get(3, b""))
    lookup_flags = flags & ~_FIB_PRESENT
    direction = "src" if flags & _FIB_SOURCE else "dst"
    length = 1 if flags & _FIB_PRESENT else 16 if result == _FIB_OIFNAME else 4
    inputs = [name for bit, name in ((4, "mark"), (8, "iif"), (16, "oif")) if flags & bit]
    text = f"fib {' . '.join([f'{direction[0]}addr', *inputs])} {_FIB_RESULTS.get(result, result)}"
    if result == _FIB_TYPE and lookup_flags & ~_FIB_MARK in (_FIB_SOURCE, _FIB_DESTINATION):
        branch.load(data.get(1), Field("fib", result, direction=direction))
    elif result in (_FIB_OIF, _FIB_OIFNAME) and lookup_flags & ~_FIB_MARK == _FIB_SOURCE | _FIB_IIF:
        branch.load(data.get(1), Field("fib", result, length=length))
    elif flags & _FIB_PRESENT:
        name = "route to source" if direction == "src" else "route to destination"
        branch.load(data.get(1), Field("named", 0, length=1, named=FieldNames(name, text, {0: "missing", 1: "exists"})))
    elif result == _FIB_OIFNAME and lookup_flags & ~_FIB_MARK in (_FIB_SOURCE, _FIB_DESTINATION):
        name = f"route to {'source' if direction == 'src' else 'destination'} interface"
        branch.load(data.get(1), Field("named", 0, length=16, named=FieldNames(name, text, text=True)))
    else:
        branch.load(data.get(1), Field("named", 0, length=length, named=FieldNames("route", text, text=length == 16)))


def _keyed(kind: str, register: int, key_at: int, lengths: Mapping[int, int]) -> Callable[[Attributes, Branch], None]:
    def load(data: Attributes, branch: Branch) -> None:
        key = wire.number(data.get(key_at, b""))
        branch.load(
            data.get(register), Field(kind, key, length=lengths.get(key, 4), big=kind == "rt" and key in (1, 2))
        )

    return load


_HEADERS = {0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh"}
_IP_OPTIONS = {7: "rr", 131: "lsrr", 137: "ssrr", 148: "ra"}
_OPTIONS = {2: "maxseg", 3: "window", 4: "sack-permitted", 5: "sack", 8: "timestamp", 30: "mptcp"}
_TCP_OPTION = 1
_KINDS = ("exthdr", "tcp option", "ip option", "sctp chunk", "dccp option")


def _exthdr(data: Attributes, branch: Branch) -> None:
    """An extension header or option: DREG 1, TYPE 2, OFFSET 3, LEN 4, FLAGS 5, OP 6, SREG 7."""
    operation, kind = wire.number(data.get(6, b"")), wire.number(data.get(2, b""))
    keyword = _KINDS[operation] if operation < len(_KINDS) else f"exthdr {operation}"
    named = {0: _HEADERS, 1: _OPTIONS, 2: _IP_OPTIONS}.get(operation, {}).get(kind, str(kind))
    if 1 not in data:  # the packet is rewritten: an MSS is clamped, an option removed
        if operation == _TCP_OPTION and branch.context.protocol != TCP:  # another protocol's packet ends the rule
            branch.require((Protocol(TCP),), "")
        branch.steps.append(SetProperty("tcp option", f"{keyword} {named} set"))
        return
    name = {0: "ip6 extension", 2: "ip option"}.get(operation, keyword)
    present = wire.number(data.get(5, b"")) & 1
    if present:
        text = FieldNames(f"{name} present", f"{keyword} {named}", {0: "missing", 1: "exists"})
    else:
        text = FieldNames(name, f"{keyword} {named} @{wire.number(data.get(3, b''))}")
    branch.load(
        data[1], Field("named", 0, length=1 if present else wire.number(data.get(4, b"")), named=text, big=True)
    )


def _numgen(data: Attributes, branch: Branch) -> None:
    modulus, offset = wire.number(data.get(2, b"")), wire.number(data.get(4, b""))
    how = "random" if wire.number(data.get(3, b"")) else "inc"
    text = f"numgen {how} mod {modulus}" + (f" offset {offset}" if offset else "")
    branch.load(data.get(1), Field("named", 0, offset, named=FieldNames("random number", text), count=modulus))


def _hash(data: Attributes, branch: Branch) -> None:
    modulus, offset = wire.number(data.get(4, b"")), wire.number(data.get(6, b""))
    source = branch.value(data.get(1))
    branch.require_exists(source)
    of = source.nft(branch.context) if isinstance(source, Field) else "…"
    how = "symhash" if wire.number(data.get(7, b"")) else f"jhash {of}"
    text = f"{how} mod {modulus}" + (f" offset {offset}" if offset else "")
    branch.load(data.get(2), Field("named", 0, offset, named=FieldNames("hash", text), count=modulus))


def _xfrm(data: Attributes, branch: Branch) -> None:
    """The IPsec protection of the packet (DREG 1, KEY 2, DIR 3): a pod's packet has none."""
    inwards = wire.number(data.get(3, b"")) == 0
    key = {1: "ip saddr", 2: "ip daddr", 3: "ip6 saddr", 4: "ip6 daddr", 5: "reqid", 6: "spi"}
    keyword = key.get(wire.number(data.get(2, b"")), "key")
    text = FieldNames(
        "ipsec in state" if inwards else "ipsec out state", f"ipsec {'in' if inwards else 'out'} {keyword}"
    )
    length = 16 if "ip6" in keyword else 4
    branch.load(data.get(1), Field("named", 0, length=length, named=text, big=keyword != "reqid"))


def _named(name: str, text: str, register: int, length: int = 4) -> Callable[[Attributes, Branch], None]:
    def load(data: Attributes, branch: Branch) -> None:
        branch.load(
            data.get(register), Field("named", 0, length=length, named=FieldNames(name, text, text=length == 16))
        )

    return load


_SHIFTS = {1: "<<", 2: ">>"}


def _bitwise(data: Attributes, branch: Branch) -> None:
    source, operation = branch.value(data.get(1)), wire.number(data.get(6, b""))
    mask, xor = (value_of(data.get(key)) for key in (4, 5))
    result: Value = UnknownValue(f"{_description(source, branch)} with bits changed")
    if operation == 0 and isinstance(source, Field) and not source.shift and mask and len(mask) == len(xor):
        if not source.mask:
            result = replace(source, mask=mask, xor=xor)
        else:  # ((field & m1) ^ x1) & m2 ^ x2
            first = bytes(a & b for a, b in zip(source.mask, mask, strict=False))
            changed = bytes((a & b) ^ c for a, b, c in zip(source.xor or bytes(len(mask)), mask, xor, strict=False))
            result = replace(source, mask=first, xor=changed)
    elif operation == 0 and isinstance(source, Constant) and len(source.data) == len(mask) == len(xor):
        result = Constant(bytes((a & m) ^ x for a, m, x in zip(source.data, mask, xor, strict=True)))
    elif operation == 2 and isinstance(source, Field) and not source.shift:
        shift = host(value_of(data.get(7)))
        if 0 < shift < 8 * source.length:
            result = replace(source, shift=shift)
    if isinstance(result, UnknownValue):
        branch.require_exists(source)
    branch.load(data.get(2), result)


def _description(value: Value, branch: Branch) -> str:
    if isinstance(value, Field):
        return value.nft(branch.context)
    return value.text if isinstance(value, UnknownValue) else "a constant"


def _byteorder(data: Attributes, branch: Branch) -> None:
    """Convert the byte order: SREG 1, DREG 2, OP 3, LEN 4, SIZE 5."""
    source, size = branch.value(data.get(1)), wire.number(data.get(5, b""))
    result: Value = UnknownValue(f"{_description(source, branch)} in another byte order")
    if isinstance(source, Field) and not source.mask and not source.shift and size in (source.length, 0):
        if not source.big and source.kind != "payload" and not source.names.text and sys.byteorder == "little":
            result = replace(source, big=True)
        elif source.big:
            result = replace(source, big=False)
    if isinstance(result, UnknownValue):
        branch.require_exists(source)
    branch.load(data.get(2), result)


LOADS: Mapping[str, Callable[[Attributes, Branch], None]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
    "rt": _keyed("rt", 1, 2, {2: 16, 3: 2, 4: 1}),
    "socket": _keyed("socket", 2, 1, {0: 1, 2: 1, 3: 8}),
    "exthdr": _exthdr,
    "numgen": _numgen,
    "hash": _hash,
    "xfrm": _xfrm,
    "osf": _named("operating system", "osf name", 1, 16),
    "tunnel": _named("tunnel", "tunnel", 2),
    "bitwise": _bitwise,
    "byteorder": _byteorder,
    "dup": lambda data, branch: branch.steps.append(Silent("dup")),
}
"""Handlers by the expression's name."""
