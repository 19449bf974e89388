"""Model rules to nf_tables expressions: the reverse of ``expressions``, for the constructs that have an exact form.

Problem: a table that must survive its writer, and be owned by one socket, cannot be written by running ``nft``.
Promise: ``rule`` gives the message bodies for a model rule, with native expressions only, that mean exactly the same; a
condition with several alternatives (``Ports``, ``SetMember``) makes several rules. Each kind of condition defines its
own forms (``model.matches.native``). What has no exact form raises ``Inexact``, and nothing is written. Numbers: the
kernel's nf_tables.h. Next stage: ``owned`` puts the rules into a table.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from hitless.kernel.netlink import attribute, be32, nested, text
from hitless.model import notation
from hitless.model.matches import Inexact
from hitless.model.matches.native import Compare, Form, host
from hitless.model.rules import Accept, Action, Goto, Jump, Masquerade, Match, Return, Rule, SetMark, Snat

__all__ = ["Inexact", "count", "direction_original", "expressions", "userdata"]

_REGISTER, _SECOND, _VERDICT = 1, 2, 0
_EQ, _NEQ = 0, 1
_MARK, _CT_DIRECTION, _CT_STATUS = 3, 1, 2
_SOURCE_TRANSLATED = 16  # IPS_SRC_NAT
_RANDOM, _PERSISTENT, _FULLY = 4, 8, 16
_COUNTER = 1  # NFT_OBJECT_COUNTER
_ALTERNATIVES = 256  # rules that one condition may become
_NFPROTO = {4: 2, 6: 10}


def _expression(name: str, *data: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *data))


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
    """Continue only for packets of the connection's original direction whose source is not translated."""
    direction = _ct(_CT_DIRECTION) + _cmp(b"\0", False)
    zero = host(0)
    return direction + _ct(_CT_STATUS) + _bitwise(host(_SOURCE_TRANSLATED), zero) + _cmp(zero, False)


def userdata(comment: str) -> bytes:
    """A rule's user data that ``nft list`` shows as its comment (at most 127 characters)."""
    value = comment[:127].encode()[:127] + b"\0"
    return bytes((0, len(value))) + value


# --- conditions --------------------------------------------------------------------------------------------------


def _form(form: Form) -> bytes:
    return b"".join(_compare(each) for each in form)


def _compare(each: Compare) -> bytes:
    load = each.load
    found = _expression(load.expression, be32(1, _REGISTER), *(be32(*attribute) for attribute in load.attributes))
    if each.mask is not None:
        found += _bitwise(each.mask, bytes(len(each.mask)))
    if each.high is None:
        return found + _cmp(each.low, each.negated)
    return found + _range(each.low, each.high, each.negated)


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
    mask = host(~step.mask & 0xFFFFFFFF)
    return _meta(_MARK) + _bitwise(mask, host(step.value)) + _expression("meta", be32(2, _MARK), be32(3, _REGISTER))


def _effect(step: Action, version: int) -> bytes:
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
    raise Inexact(f"{notation.rule(Rule((step,)), iptables=True)}: it has no exact form here")


def expressions(
    rule: Rule, version: int, *, before_translation: bytes = b"", before_effect: bytes = b""
) -> Iterator[bytes]:
    """The expression lists (bodies of RULE_EXPRESSIONS) that together mean ``rule``; none when it can never match.

    ``version`` is the table's, 4 or 6. ``before_translation`` is inserted before a Masquerade or Snat,
    ``before_effect`` before every effect. Raises ``Inexact``.
    """
    forms: list[bytes] = [b""]
    for step in rule.steps:
        if isinstance(step, Match):
            forms = _product(forms, [_form(form) for form in step.native(version)])
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
