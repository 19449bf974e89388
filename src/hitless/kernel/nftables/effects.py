"""Effects of expressions: verdicts, translations, and values put into registers.

Promise: an effect that decides about a packet becomes the model's action for it, or an ``OpaqueAction`` with a
description; one that decides nothing adds no step. Attribute numbers: NFTA_IMMEDIATE, NFTA_MASQ, NFTA_NAT, NFTA_REJECT
and NFTA_OBJREF of the kernel's nf_tables.h. Previous stage: ``expressions``.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, slot
from hitless.kernel.nftables.register_values import Constant, Field, UnknownValue
from hitless.kernel.nftables.sets import SetState
from hitless.model.matches.base import span
from hitless.model.rules import (
    Accept,
    Action,
    Dnat,
    Drop,
    Goto,
    Jump,
    Masquerade,
    Opaque,
    OpaqueAction,
    Reject,
    Return,
    SetProperty,
    Snat,
)

__all__ = ["give", "immediate", "masquerade", "nat", "object_reference", "redirect", "reject"]

_NAT_RANDOM, _NAT_PERSISTENT, _NAT_FULLY, _NAT_PREFIX = 4, 8, 16, 64


def give(register: bytes, data: bytes, branch: Branch) -> None:
    """Apply the data of a map's element: a verdict, or a value for a register."""
    attributes = netlink.attributes(data)
    if slot(register) == -1:
        branch.steps.extend(_verdict(attributes.get(wire.DATA_VERDICT, b"")))
    else:
        branch.load(register, Constant(attributes.get(wire.DATA_VALUE, b"")))


def _verdict(nested: bytes) -> tuple[Action, ...]:
    attributes = netlink.attributes(nested)
    code = wire.signed(attributes.get(wire.VERDICT_CODE, b""))
    chain = netlink.to_text(attributes.get(wire.VERDICT_CHAIN, b""))
    actions: dict[int, tuple[Action, ...]] = {
        0: (Drop(),),
        1: (Accept(),),
        -1: (),  # continue
        -3: (Jump(chain),),
        -4: (Goto(chain),),
        -5: (Return(),),
    }
    return actions.get(code, (OpaqueAction(f"verdict {code}"),))


def immediate(data: Attributes, branch: Branch) -> None:
    give(data.get(1, b""), data.get(2, b""), branch)


def _ports(data: Attributes, first: int, branch: Branch) -> tuple[int, int] | None:
    """The ports in registers ``first`` and the next; (0, 0) where the rules do not determine them."""
    if first not in data:
        return None
    low, high = branch.value(data[first]), branch.value(data.get(first + 1, data[first]))
    if not isinstance(low, Constant) or not isinstance(high, Constant):
        return 0, 0
    return int.from_bytes(low.data[:2], "big"), int.from_bytes(high.data[:2], "big")


def masquerade(data: Attributes, branch: Branch) -> None:
    flags = wire.number(data.get(1, b""))
    ports = _ports(data, 2, branch)
    branch.steps.append(
        Masquerade(bool(flags & _NAT_FULLY), bool(flags & _NAT_RANDOM), bool(flags & _NAT_PERSISTENT), ports)
    )


def nat(data: Attributes, branch: Branch) -> None:
    """TYPE 1 (0 snat, 1 dnat), FAMILY 2, addresses 3 and 4, ports 5 and 6, FLAGS 7."""
    sends = wire.number(data.get(1, b"")) == 1
    width, kind = (4, IPv4Address) if wire.number(data.get(2, b"")) == 2 else (16, IPv6Address)
    low = branch.value(data[3]) if 3 in data else UnknownValue("")
    high = branch.value(data[4]) if 4 in data else low
    ports = _ports(data, 5, branch)
    if not isinstance(low, Constant) or not isinstance(high, Constant):
        if sends:
            where = low.nft(branch.context) if isinstance(low, Field) else getattr(low, "text", "")
            branch.steps.append(Dnat(where or (f":{ports[0]}" if ports is not None else "")))
        elif 3 not in data:  # a new port, the old address
            branch.steps.append(OpaqueAction("snat to a port"))
        else:
            branch.steps.append(OpaqueAction("snat to addresses that are not known from the rules"))
        return
    first, last = kind(low.data[:width]), kind(high.data[:width])
    if sends:
        address = span(first, last)
        branch.steps.append(Dnat(address if ports is None else f"{address}:{ports[0]}"))
        return
    flags = wire.number(data.get(7, b""))
    fully, random, persistent = (bool(flags & bit) for bit in (_NAT_FULLY, _NAT_RANDOM, _NAT_PERSISTENT))
    if flags & _NAT_PREFIX:  # the host part stays: one of the addresses of the range
        persistent = False
    branch.steps.append(Snat(first, last, fully, random, persistent, ports))


def redirect(data: Attributes, branch: Branch) -> None:
    ports = _ports(data, 1, branch)
    branch.steps.append(Dnat("redirect" if ports is None else f"redirect:{ports[0]}"))


_ICMPX = ("no-route", "port-unreachable", "host-unreachable", "admin-prohibited")
_ICMP = {
    **{0: "net-unreachable", 1: "host-unreachable", 2: "prot-unreachable", 3: "port-unreachable"},
    **{9: "net-prohibited", 10: "host-prohibited", 13: "admin-prohibited"},
}
_ICMPV6 = {0: "no-route", 1: "admin-prohibited", 3: "addr-unreachable", 4: "port-unreachable"}


def reject(data: Attributes, branch: Branch) -> None:
    """TYPE 1 (0 icmp, 1 reset, 2 icmpx), ICMP_CODE 2."""
    kind, code = wire.number(data.get(1, b"")), wire.number(data.get(2, b""))
    if kind == 1:
        how = "tcp reset"
    elif kind == 2:
        how = f"icmpx {_ICMPX[code] if code < len(_ICMPX) else code}"
    elif branch.context.version == 6:
        how = f"icmpv6 {_ICMPV6.get(code, code)}"
    else:
        how = f"icmp {_ICMP.get(code, code)}"
    branch.steps.append(Reject(how))


_OBJECTS = {1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "ct count", 6: "tunnel", 7: "ct timeout"}
_OBJECTS |= {8: "secmark", 9: "ct expectation", 10: "synproxy"}
_CONDITIONS = frozenset({2, 4, 5})
_SYNPROXY = 10


def object_reference(data: Attributes, branch: Branch, sets: Callable[[str], SetState | None]) -> None:
    """A named object: IMM_TYPE 1, IMM_NAME 2; from a map: SET_SREG 3, SET_NAME 4. A map without an object for the
    packet's key ends the rule."""
    if 4 in data:
        name = netlink.to_text(data[4])
        found = sets(name)
        branch.steps.append(Opaque(f"an object of @{name}"))
        if found is None or found.data_type == _SYNPROXY:
            branch.steps.append(OpaqueAction(f"an object of @{name}"))
        else:
            branch.steps.append(SetProperty("ct helper", f"an object of @{name}"))
        return
    kind, name = wire.number(data.get(1, b"")), netlink.to_text(data.get(2, b""))
    text = f'{_OBJECTS.get(kind, f"object {kind}")} name "{name}"'
    if kind == 1:
        return  # counters decide nothing
    if kind in _CONDITIONS or kind not in _OBJECTS:
        branch.steps.append(Opaque(text))
    elif kind == _SYNPROXY:
        branch.steps.append(OpaqueAction(text))
    else:
        branch.steps.append(SetProperty("ct helper" if kind == 3 else _OBJECTS[kind], text.replace("name", "set")))
