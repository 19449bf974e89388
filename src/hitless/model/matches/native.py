"""A condition as nf_tables expressions: load a field, compare it.

Problem: a kind of condition must define its own native form, and the model does not use netlink. Promise: ``Compare``
is a load, a mask and a comparison, as values; ``kernel/nftables/encoding`` writes them as messages. Numbers: the
kernel's nf_tables.h. Values are in the register's byte order: network order for headers, machine order (``host``) for
numbers kept by the kernel.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

__all__ = ["Compare", "Form", "Load", "ct", "fib", "host", "meta", "network_header", "transport_header"]


@dataclass(frozen=True, slots=True)
class Load:
    """The name of an expression that loads a register, and its attributes by number."""

    expression: str
    attributes: tuple[tuple[int, int], ...]


def meta(key: int) -> Load:
    """Metadata of the packet (NFT_META_*)."""
    return Load("meta", ((2, key),))


def ct(key: int) -> Load:
    """A field of its connection (NFT_CT_*)."""
    return Load("ct", ((2, key),))


def fib(result: int, flags: int) -> Load:
    """A lookup in the routing table (NFT_FIB_RESULT_*, NFTA_FIB_F_*)."""
    return Load("fib", ((2, result), (3, flags)))


def _payload(base: int, offset: int, length: int) -> Load:
    return Load("payload", ((2, base), (3, offset), (4, length)))


def network_header(offset: int, length: int) -> Load:
    """Bytes of the IP header."""
    return _payload(1, offset, length)


def transport_header(offset: int, length: int) -> Load:
    """Bytes of the transport header."""
    return _payload(2, offset, length)


def host(value: int, size: int = 4) -> bytes:
    """A number in the machine's byte order."""
    return value.to_bytes(size, sys.byteorder)


@dataclass(frozen=True, slots=True)
class Compare:
    """The loaded value, under ``mask``, equals ``low``, or lies between ``low`` and ``high``; ``negated``: it does
    not."""

    load: Load
    low: bytes
    negated: bool = False
    mask: bytes | None = None
    high: bytes | None = None


Form = tuple[Compare, ...]
"""Comparisons that must all hold; an empty form always holds."""
