"""Which rules of a long chain concern a destination? Told from their bytes.

Problem: kube-proxy has a chain with a rule for each Service, and decoding 5,000 of them for one packet takes a second.
Promise: ``by_destination`` finds the rules that compare the whole destination address with one value, as iptables-nft
and nft write ``-d ADDRESS``, and sorts them by it; every other rule counts as one for any destination. What it never
does: say that a rule matches. Next stage: ``state`` decodes the few that are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hitless.kernel.netlink import attribute, be32, text
from hitless.kernel.nftables.packing import unpack

__all__ = ["LONG", "Places", "by_destination"]

LONG = 64
"""Chains of more rules than this are not decoded whole for one packet."""

_REGISTER, _NETWORK_HEADER, _EQUAL = 1, 1, 0


def _needle(offset: int, width: int) -> bytes:
    """A load of the destination and a compare for equality, up to the value, byte for byte as the kernel dumps them."""
    where = be32(1, _REGISTER) + be32(2, _NETWORK_HEADER) + be32(3, offset) + be32(4, width)
    load = attribute(1, text(1, "payload") + attribute(2, where))
    how = be32(1, _REGISTER) + be32(2, _EQUAL) + attribute(3, attribute(1, bytes(width)))
    return load + attribute(1, text(1, "cmp") + attribute(2, how))[:-width]


_NEEDLES = {"ip": (_needle(16, 4), 4), "ip6": (_needle(24, 16), 16)}
"""By family; in inet tables the same bytes may be compared in packets of the other family, so there are none."""


@dataclass(frozen=True, slots=True)
class Places:
    """The rules of a chain, each as (number from 1, handle): those for one destination by that address, and others."""

    exact: Mapping[bytes, Sequence[tuple[int, int]]]
    others: Sequence[tuple[int, int]]

    def towards(self, destination: bytes) -> Sequence[tuple[int, int]]:
        """Those that may match a packet to ``destination``, in order."""
        found = self.exact.get(destination)
        return sorted((*found, *self.others)) if found else self.others


def by_destination(rules: Mapping[int, bytes], family: str) -> Places:
    """Sort packed rule messages of a table of ``family``."""
    exact: dict[bytes, list[tuple[int, int]]] = {}
    others: list[tuple[int, int]] = []
    needle, width = _NEEDLES.get(family, (b"", 0))
    for number, (handle, packed) in enumerate(rules.items(), 1):
        payload = unpack(packed)
        at = payload.find(needle) if needle else -1
        if at < 0:
            others.append((number, handle))
        else:
            value = payload[at + len(needle) : at + len(needle) + width]
            exact.setdefault(value, []).append((number, handle))
    return Places(exact, others)
