"""Model rules to nf_tables expressions: the way back from ``expressions``, for the few constructs that are exact.

Problem: a table that must outlive its writer, and belong to one socket, cannot be written by running ``nft``. Promise:
``rule`` gives the messages' bodies for a model rule, native expressions only, that mean exactly what the model's words
mean; a condition that holds never drops the rule, one that has several alternatives (``Ports``, ``SetMember``) makes
several rules. What has no exact form raises ``Inexact`` and nothing is written. Numbers: the kernel's nf_tables.h.
Next stage: ``owned`` puts rules into a table.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from hitless.errors import HitlessError
from hitless.kernel.netlink import attribute, be32, nested, text
from hitless.model import words
from hitless.model.families import Network
from hitless.model.rules import (
    Accept,
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Element,
    Goto,
    IcmpType,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    Opaque,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Return,
    Rule,
    SetMark,
    SetMember,
    Snat,
    Source,
    SourcePort,
    Step,
    TcpFlags,
)

__all__ = ["Inexact", "count", "direction_original", "expressions", "userdata"]

_REGISTER, _SECOND, _VERDICT = 1, 2, 0
_EQ, _NEQ = 0, 1
_NETWORK, _TRANSPORT = 1, 2
_MARK, _IIFNAME, _OIFNAME, _L4PROTO = 3, 6, 7, 16
_CT_STATE, _CT_DIRECTION, _CT_STATUS = 0, 1, 2
_FIB_ADDRESS_TYPE = 3
_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}
_STATUS = {"SNAT": 16, "DNAT": 32}
_ADDRESS_TYPES = {"UNICAST": 1, "LOCAL": 2, "BROADCAST": 3, "MULTICAST": 5}
_RANDOM, _PERSISTENT, _FULLY = 4, 8, 16
_COUNTER = 1  # NFT_OBJECT_COUNTER
_ALTERNATIVES = 256  # rules that one condition may become; more belong into a set
_MOST_MEMBERS = 4096  # elements of a set that a copy spells out, at most
_NFPROTO = {4: 2, 6: 10}


class Inexact(HitlessError):
    """A step that has no exact form in native nf_tables expressions."""


def _host32(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", be32(1, _REGISTER), be32(2, base), be32(3, offset), be32(4, length))


def _meta(key: int) -> bytes:
    return _expression("meta", be32(1, _REGISTER), be32(2, key))


def _ct(key: int) -> bytes:
    return _expression("ct", be32(1, _REGISTER), be32(2, key))


def _cmp(value: bytes, negated: bool) -> bytes:
    return _expression("cmp", be32(1, _REGISTER), be32(2, _NEQ if negated else _EQ), nested(3, attribute(1, value)))


def _range(low: bytes, high: bytes, negated: bool) -> bytes:
    operation = be32(2, 1 if negated else 0)
    return _expression(
        "range", be32(1, _REGISTER), operation, nested(3, attribute(1, low)), nested(4, attribute(1, high))
    )


def _bitwise(mask: bytes, xor: bytes) -> bytes:
    size = be32(3, len(mask))
    return _expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        size,
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, xor)),
    )


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", be32(1, register), nested(2, attribute(1, value)))


def _verdict(code: int, chain: str = "") -> bytes:
    parts = [be32(1, code)] + ([text(2, chain)] if chain else [])
    return _expression("immediate", be32(1, _VERDICT), nested(2, nested(2, *parts)))


def count(name: str) -> bytes:
    """Count the packet in the table's counter object ``name``."""
    return _expression("objref", be32(1, _COUNTER), text(2, name))


def direction_original() -> bytes:
    """Go on only for packets of the connection's original direction whose source is not translated."""
    direction = _ct(_CT_DIRECTION) + _cmp(b"\0", False)
    zero = _host32(0)
    return direction + _ct(_CT_STATUS) + _bitwise(_host32(_STATUS["SNAT"]), zero) + _cmp(zero, False)


def userdata(comment: str) -> bytes:
    """A rule's user data that ``nft list`` shows as its comment (at most 127 characters)."""
    value = comment[:127].encode()[:127] + b"\0"
    return bytes((0, len(value))) + value


# --- conditions: bytes that hold, or None for a condition that never holds ---------------------------------------


def _address(step: Source | Destination, version: int) -> bytes | None:
    network: Network = step.network
    if network.version != version:
        return b"" if step.negated else None
    if network.prefixlen == 0:
        return None if step.negated else b""
    offset, length = ((12, 16), (8, 24))[version == 6][isinstance(step, Destination)], network.max_prefixlen // 8
    load = _payload(_NETWORK, offset, length)
    if network.prefixlen < network.max_prefixlen:
        load += _bitwise(network.netmask.packed, bytes(length))
    return load + _cmp(network.network_address.packed, step.negated)


def _interface(step: InInterface | OutInterface) -> bytes:
    load = _meta(_IIFNAME if isinstance(step, InInterface) else _OIFNAME)
    if step.name.endswith("+"):
        prefix = step.name[:-1].encode()
        if not prefix:
            if step.negated:
                raise Inexact(f"no interface is not {step.name}")
            return b""
        return load + _cmp(prefix, step.negated)
    return load + _cmp(step.name.encode().ljust(16, b"\0"), step.negated)


def _mark(step: Mark) -> bytes | None:
    if step.value & ~step.mask:
        return b"" if step.negated else None
    load = _meta(_MARK)
    if step.mask != 0xFFFFFFFF:
        load += _bitwise(_host32(step.mask), _host32(0))
    return load + _cmp(_host32(step.value), step.negated)


def _port(first: int, last: int, negated: bool, source: bool) -> bytes:
    load = _payload(_TRANSPORT, 0 if source else 2, 2)
    low, high = struct.pack(">H", first), struct.pack(">H", last)
    return load + (_cmp(low, negated) if first == last else _range(low, high, negated))


def _state(step: CtState) -> bytes:
    names = step.states
    for table, key in ((_STATES, _CT_STATE), (_STATUS, _CT_STATUS)):
        if names and names <= table.keys():
            mask = sum(table[name] for name in names)
            # "& mask != 0" is "one of"; the state of a packet without connection is INVALID's bit
            return _ct(key) + _bitwise(_host32(mask), _host32(0)) + _cmp(_host32(0), not step.negated)
    raise Inexact(f"conntrack states {', '.join(sorted(names))} together")


def _address_type(step: AddrType) -> bytes:
    (name,) = step.types if len(step.types) == 1 else ("several types",)
    if name not in _ADDRESS_TYPES or step.direction not in ("src", "dst"):
        raise Inexact(f"address type {', '.join(sorted(step.types))}")
    flag = 1 if step.direction == "src" else 2
    load = _expression("fib", be32(1, _REGISTER), be32(2, _FIB_ADDRESS_TYPE), be32(3, flag))
    return load + _cmp(_host32(_ADDRESS_TYPES[name]), step.negated)


def _icmp(step: IcmpType) -> bytes:
    if step.codes == (0, 255):
        return _payload(_TRANSPORT, 0, 1) + _cmp(bytes((step.type,)), step.negated)
    low, high = bytes((step.type, step.codes[0])), bytes((step.type, step.codes[1]))
    return _payload(_TRANSPORT, 0, 2) + _range(low, high, step.negated)


def _flags(step: TcpFlags) -> bytes:
    load = _payload(_TRANSPORT, 13, 1) + _bitwise(bytes((step.mask,)), b"\0")
    return load + _cmp(bytes((step.value,)), step.negated)


def _ports(step: Ports) -> list[bytes]:
    sides = {"src": (True,), "dst": (False,), "either": (True, False)}[step.direction]
    parts = [_port(first, last, step.negated, side) for side in sides for first, last in step.ranges]
    return [b"".join(parts)] if step.negated else parts


def _member(step: SetMember, version: int) -> list[bytes]:
    networks = step.networks(_MOST_MEMBERS)
    if networks is None or step.direction not in ("src", "dst"):
        why = "whose members the rules do not tell" if step.elements is None else "which is too large to be copied"
        raise Inexact(f"set {step.name}, {why}")
    kind = Source if step.direction == "src" else Destination
    parts = [_address(kind(network, step.negated), version) for network in sorted(networks, key=str)]
    if step.negated:
        return [] if None in parts else [b"".join(part for part in parts if part is not None)]
    return [part for part in parts if part is not None]


def _any_of(step: AnyOf, version: int) -> list[bytes]:
    """A group for each alternative; negated, all of them must fail, so that each may have one condition only."""
    if any(isinstance(each, Mark) for group in step.alternatives for each in group):
        raise Inexact(f"{step.text}: it has no exact form here")
    if not step.negated:
        return [form for group in step.alternatives for form in _all_of(group, version)]
    if any(len(group) != 1 for group in step.alternatives):
        raise Inexact(f"{step.text}: it has no exact form here")
    forms: list[bytes] = [b""]
    for (each,) in step.alternatives:
        if isinstance(each, Comment | Opaque):
            raise Inexact(f"{step.text}: it has no exact form here")
        forms = _product(forms, _alternatives(_inverse(each), version) or [])
    return forms


def _inverse(step: Any) -> Step:
    """A condition (every kind but comments and opaque ones can be negated) the other way round."""
    found: Step = replace(step, negated=not step.negated)
    return found


def _all_of(group: tuple[Match, ...], version: int) -> list[bytes]:
    forms: list[bytes] = [b""]
    for each in group:
        forms = _product(forms, _alternatives(each, version) or [])
    return forms


def _alternatives(step: Step, version: int) -> list[bytes] | None:
    """The forms of a condition, one of which must hold (none: it never holds); ``None`` when it is no condition."""
    one: bytes | None
    match step:
        case Source() | Destination():
            one = _address(step, version)
        case InInterface() | OutInterface():
            one = _interface(step)
        case Mark():
            one = _mark(step)
        case Protocol():
            one = _meta(_L4PROTO) + _cmp(bytes((step.number,)), step.negated)
        case SourcePort() | DestinationPort():
            one = _port(step.first, step.last, step.negated, isinstance(step, SourcePort))
        case TcpFlags():
            one = _flags(step)
        case IcmpType():
            one = _icmp(step)
        case CtState():
            one = _state(step)
        case AddrType():
            one = _address_type(step)
        case Ports():
            return _ports(step)
        case SetMember():
            return _member(step, version)
        case AnyOf():
            return _any_of(step, version)
        case Opaque() | Property() | ConnMark() | Element():
            raise Inexact(f"{words.condition(step, iptables=True)}: it has no exact form here")
        case Comment():
            one = b""
        case _:
            return None
    return [] if one is None else [one]


# --- effects -----------------------------------------------------------------------------------------------------


def _translation(step: Masquerade | Snat, version: int) -> bytes:
    if isinstance(step, Masquerade):
        flags = step.random * _RANDOM | step.persistent * _PERSISTENT | step.random_fully * _FULLY
        loads, data = b"", [be32(1, flags)] if flags else []
        if step.ports is not None:
            loads = b"".join(
                _immediate(register, struct.pack(">H", port))
                for register, port in zip((_REGISTER, _SECOND), step.ports, strict=True)
            )
            data += [be32(2, _REGISTER), be32(3, _SECOND)]
        return loads + _expression("masq", *data)
    if step.first.version != version:
        raise Inexact(f"source NAT to {step.first}, an address of the other family")
    loads = _immediate(_REGISTER, step.first.packed) + _immediate(_SECOND, step.last.packed)
    data = [be32(1, 0), be32(2, _NFPROTO[version]), be32(3, _REGISTER), be32(4, _SECOND)]
    return loads + _expression("nat", *data, *([be32(7, _FULLY)] if step.random_fully else []))


def _set_mark(step: SetMark) -> bytes:
    mask = _host32(~step.mask & 0xFFFFFFFF)
    return _meta(_MARK) + _bitwise(mask, _host32(step.value)) + _expression("meta", be32(2, _MARK), be32(3, _REGISTER))


def _effect(step: Step, version: int) -> bytes:
    match step:
        case Accept():
            return _verdict(1)
        case Return():
            return _verdict(-5)
        case Jump():
            return _verdict(-3, step.chain)
        case Goto():
            return _verdict(-4, step.chain)
        case Masquerade() | Snat():
            return _translation(step, version)
        case SetMark():
            return _set_mark(step)
    raise Inexact(f"{words.rule(Rule((step,)), iptables=True)}: it has no exact form here")


def expressions(
    rule: Rule, version: int, *, before_translation: bytes = b"", before_effect: bytes = b""
) -> Iterator[bytes]:
    """The expression lists (bodies of RULE_EXPRESSIONS) that together mean ``rule``; none when it can never match.

    ``version`` is the table's, 4 or 6. ``before_translation`` stands before a Masquerade or Snat, ``before_effect``
    before every effect. Raises ``Inexact``.
    """
    forms: list[bytes] = [b""]
    for step in rule.steps:
        found = _alternatives(step, version)
        if found is not None:
            forms = _product(forms, found)
            continue
        before = before_translation if isinstance(step, Masquerade | Snat) else b""
        effect = before_effect + before + _effect(step, version)
        forms = [form + effect for form in forms]
    yield from forms


def _product(forms: Iterable[bytes], alternatives: list[bytes]) -> list[bytes]:
    found = [form + other for form in forms for other in alternatives]
    if len(found) > _ALTERNATIVES:
        raise Inexact(f"a condition with {len(found)} alternatives")
    return found
