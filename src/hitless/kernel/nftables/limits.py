"""Conditions that depend on previous packets: rates, quotas, numbers of connections.

Promise: each becomes an opaque condition with nft's text, because a packet alone does not determine whether it holds.
``condition_of`` recognises such expressions inside a set's element; counters are none. Attribute numbers: the kernel's
nf_tables.h. Previous stage: ``expressions``.
"""

from __future__ import annotations

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.branches import Attributes, Branch
from hitless.model.rules import Opaque

__all__ = ["CONDITIONS", "condition_of", "limited"]

_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}


def _limit(data: Attributes) -> str:
    """RATE 1, UNIT 2, BURST 3, TYPE 4 (0 packets, 1 bytes), FLAGS 5 (1 inverted)."""
    rate, unit, burst, kind, flags = (wire.number(data.get(key, b"")) for key in range(1, 6))
    over = "over " if flags & 1 else ""
    per = _UNITS.get(unit, f"{unit} seconds")
    if kind:
        return f"limit rate {over}{rate} bytes/{per}" + (f" burst {burst} bytes" if burst else "")
    return f"limit rate {over}{rate}/{per}" + (f" burst {burst} packets" if burst else "")


def _quota(data: Attributes) -> str:
    """BYTES 1, FLAGS 2 (1 inverted)."""
    return f"quota {'over ' if wire.number(data.get(2, b'')) & 1 else ''}{wire.number(data.get(1, b''))} bytes"


def _connections(data: Attributes) -> str:
    """COUNT 1, FLAGS 2 (1 inverted)."""
    return f"ct count {'over ' if wire.number(data.get(2, b'')) & 1 else ''}{wire.number(data.get(1, b''))}"


CONDITIONS = {"limit": _limit, "quota": _quota, "connlimit": _connections}
"""By the expression's name."""


def condition_of(expression: bytes) -> str:
    """The text of an expression within an element, if it is a condition; else empty."""
    outer = netlink.attributes(expression)
    describe = CONDITIONS.get(netlink.to_text(outer.get(wire.EXPRESSION_NAME, b"")))
    return "" if describe is None else describe(netlink.attributes(outer.get(wire.EXPRESSION_DATA, b"")))


def limited(name: str, data: Attributes, branch: Branch) -> None:
    """Add such a condition of the rule itself."""
    branch.steps.append(Opaque(CONDITIONS[name](data)))
