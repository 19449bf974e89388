"""A condition in nf_tables' own terms: load a field, compare it.

Problem: a kind of condition must say by itself how the kernel is asked for it, and the model knows no netlink. Promise:
``Compare`` is one load, a mask, and a comparison, as values; ``kernel/nftables/encoding`` writes them as messages.
Numbers: the kernel's nf_tables.h. Values are in the register's byte order: that of the network for headers, of the
machine (``host``) for what the kernel keeps as numbers.
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
    """Something of the packet within the node (NFT_META_*)."""
    return Load("meta", ((2, key),))


def ct(key: int) -> Load:
    """Something of its connection (NFT_CT_*)."""
    return Load("ct", ((2, key),))


def fib(result: int, flags: int) -> Load:
    """What the routing table says (NFT_FIB_RESULT_*, NFTA_FIB_F_*)."""
    return Load("fib", ((2, result), (3, flags)))


def _payload(base: int, offset: int, length: int) -> Load:
    return Load("payload", ((2, base), (3, offset), (4, length)))


def network_header(offset: int, length: int) -> Load:
    """Bytes of the IP header."""
    return _payload(1, offset, length)


def transport_header(offset: int, length: int) -> Load:
    """Bytes of the header behind it."""
    return _payload(2, offset, length)


def host(value: int, size: int = 4) -> bytes:
    """A number as the machine keeps it."""
    return value.to_bytes(size, sys.byteorder)


@dataclass(frozen=True, slots=True)
class Compare:
    """What is loaded, under ``mask``, equals ``low``, or lies between ``low`` and ``high``; ``negated``: does not."""

    load: Load
    low: bytes
    negated: bool = False
    mask: bytes | None = None
    high: bytes | None = None


Form = tuple[Compare, ...]
"""Comparisons that must all hold; none: it always holds."""
