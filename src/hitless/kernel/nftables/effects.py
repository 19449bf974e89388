"""What a rule does: verdicts, translations, and values that are put into registers.

Promise: an effect that decides a packet's fate becomes the model's action for it, or ``OpaqueAction`` with what was
seen; one that decides nothing becomes no step. Attribute numbers: NFTA_IMMEDIATE, NFTA_MASQ, NFTA_NAT, NFTA_REJECT and
NFTA_OBJREF of the kernel's nf_tables.h. Previous stage: ``expressions``.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch, slot
from hitless.kernel.nftables.fields import Constant, Unknown
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
    Snat,
)

__all__ = ["give", "immediate", "masquerade", "nat", "object_reference", "redirect", "reject"]

_NAT_RANDOM, _NAT_PERSISTENT, _NAT_FULLY = 4, 8, 16
_REJECTS = {0: "icmp", 1: "tcp-reset", 2: "icmpx"}


def give(register: bytes, data: bytes, branch: Branch) -> None:
    """What a map gives for its element: a verdict, or a value in a register."""
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


def masquerade(data: Attributes, branch: Branch) -> None:
    flags = wire.number(data.get(1, b""))
    ports: tuple[int, int] | None = None
    if 2 in data:
        low, high = branch.value(data[2]), branch.value(data.get(3, data[2]))
        if not isinstance(low, Constant) or not isinstance(high, Constant):
            branch.steps.append(OpaqueAction("masquerade to ports that the rules do not tell"))
            return
        ports = int.from_bytes(low.data[:2], "big"), int.from_bytes(high.data[:2], "big")
    branch.steps.append(
        Masquerade(bool(flags & _NAT_FULLY), bool(flags & _NAT_RANDOM), bool(flags & _NAT_PERSISTENT), ports)
    )


def nat(data: Attributes, branch: Branch) -> None:
    if wire.number(data.get(1, b"")) == 1:
        branch.steps.append(Dnat("nft dnat"))
        return
    low = branch.value(data[3]) if 3 in data else Unknown("")
    high = branch.value(data[4]) if 4 in data else low
    if not isinstance(low, Constant) or not isinstance(high, Constant):
        branch.steps.append(OpaqueAction("snat to addresses that the rules do not tell"))
        return
    flags = wire.number(data.get(7, b""))
    width, kind = (4, IPv4Address) if wire.number(data.get(2, b"")) == 2 else (16, IPv6Address)
    branch.steps.append(Snat(kind(low.data[:width]), kind(high.data[:width]), bool(flags & _NAT_FULLY)))


def redirect(data: Attributes, branch: Branch) -> None:
    branch.steps.append(Dnat("redirect"))


def reject(data: Attributes, branch: Branch) -> None:
    branch.steps.append(Reject(_REJECTS.get(wire.number(data.get(1, b"")), "")))


def object_reference(data: Attributes, branch: Branch) -> None:
    kind = wire.number(data.get(1, b""))
    if kind != 1:  # counters count; quotas and limits are conditions, helpers and the rest are not known
        branch.steps.append(Opaque(f"object of type {kind}"))
