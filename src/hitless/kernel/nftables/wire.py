"""nf_tables messages: numbers, and the heads of messages.

Problem: a dump of 30,000 rules must not require decoding each of them. Promise: ``rule_head`` reads only what locates a
rule (table, chain, handle, predecessor) and leaves its expressions as bytes; all numbers are those of the kernel's
include/uapi/linux/netfilter/nf_tables.h. Next stages: ``state`` keeps what is read here, ``expressions`` decodes it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.model.rules import Hook

__all__ = ["FAMILIES", "NUMBERS", "RuleHead", "hook_of", "rule_head"]

SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
EVENTS = 7  # NFNLGRP_NFTABLES

NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET, DELSET = 9, 10, 11
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14
NEWGEN, GETGEN = 15, 16
"""NFT_MSG_*; a message's type is SUBSYSTEM << 8 | one of these."""

TABLE_NAME, TABLE_FLAGS, TABLE_HANDLE = 1, 2, 4
TABLE_DORMANT = 1
CHAIN_TABLE, CHAIN_HANDLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 2, 3, 4, 5, 7
HOOK_NUMBER, HOOK_PRIORITY = 1, 2
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_POSITION, RULE_USERDATA = 1, 2, 3, 4, 6, 7
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LENGTH = 1, 2, 3, 4, 5
SET_DATA_TYPE, SET_DESC, SET_HANDLE = 6, 9, 16
SET_DESC_SIZE = 1
DATA_VERDICTS = 0xFFFFFF00  # NFT_DATA_VERDICT: a map of verdicts
SET_ANONYMOUS, SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL, SET_OBJECT, SET_CONCAT = 1, 4, 8, 16, 32, 64, 128
ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS_LIST = 1, 2, 3
ELEMENT_KEY, ELEMENT_DATA, ELEMENT_FLAGS, ELEMENT_TIMEOUT, ELEMENT_KEY_END = 1, 2, 3, 4, 10
ELEMENT_EXPIRATION, ELEMENT_EXPRESSION, ELEMENT_OBJECT, ELEMENT_EXPRESSIONS = 5, 7, 9, 11
ELEMENT_INTERVAL_END, ELEMENT_CATCHALL = 1, 2
GEN_ID, GEN_PID, GEN_NAME = 1, 2, 3
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
DATA_VALUE, DATA_VERDICT = 1, 2
VERDICT_CODE, VERDICT_CHAIN = 1, 2

FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
NUMBERS = {name: number for number, name in FAMILIES.items()}
"""The families whose rules can affect a routed packet; bridge, arp and netdev tables are not read."""

HOOKS = {0: "prerouting", 1: "input", 2: "forward", 3: "output", 4: "postrouting", 5: "ingress"}

_ATTRIBUTE = struct.Struct("=HH")
_BE64 = struct.Struct(">Q")
_BE32 = struct.Struct(">I")
_BE32S = struct.Struct(">i")


class RuleHead(NamedTuple):
    """The location of a rule. ``position`` is its predecessor's handle, 0 where the kernel gives none."""

    table: str
    chain: str
    handle: int
    position: int


def number(value: bytes) -> int:
    """An unsigned number in network byte order, of any width."""
    return int.from_bytes(value, "big")


def signed(value: bytes) -> int:
    """A signed 32-bit number in network byte order."""
    try:
        result: int = _BE32S.unpack_from(value)[0]
    except struct.error as error:
        raise KernelError("read", "nf_tables attribute", reason="a number is cut short") from error
    return result


def rule_head(payload: bytes) -> RuleHead:
    """The head of a rule message, without its expressions."""
    unpack, offset, end = _ATTRIBUTE.unpack_from, 4, len(payload)
    table = chain = ""
    handle = position = 0
    while offset + 4 <= end:
        length, kind = unpack(payload, offset)
        kind &= 0x3FFF
        if length < 4 or offset + length > end:
            raise KernelError("read", "nf_tables rule", reason=f"a length of {length} does not fit its message")
        if kind == RULE_EXPRESSIONS:
            break
        if kind == RULE_TABLE:
            table = payload[offset + 4 : offset + length - 1].decode("utf-8", "replace")
        elif kind == RULE_CHAIN:
            chain = payload[offset + 4 : offset + length - 1].decode("utf-8", "replace")
        elif kind == RULE_HANDLE:
            handle = number(payload[offset + 4 : offset + length])
        elif kind == RULE_POSITION:
            position = number(payload[offset + 4 : offset + length])
        offset += (length + 3) & ~3
    if max(handle, position) >> 64:
        raise KernelError("read", "nf_tables rule", reason="a handle of more than eight bytes")
    return RuleHead(table, chain, handle, position)


def hook_of(attributes: dict[int, bytes]) -> Hook | None:
    """The hook of a chain message; ``None`` for a chain without a hook."""
    nested = attributes.get(CHAIN_HOOK)
    if nested is None:
        return None
    hook = netlink.attributes(nested)
    name = HOOKS.get(number(hook.get(HOOK_NUMBER, b"")), "unknown")
    policy = "drop" if number(attributes.get(CHAIN_POLICY, b"\0\0\0\1")) == 0 else "accept"
    kind = netlink.to_text(attributes.get(CHAIN_TYPE, b"filter"))
    return Hook(kind, name, signed(hook.get(HOOK_PRIORITY, b"\0\0\0\0")), policy)
