"""What is certain about a packet's headers, for finding the rules that it may match.

Problem: a chain has 50,000 rules of which each names another address, and a packet matches none or one of them.
Promise: ``PacketHeader`` is what all states of a packet at one hook have in common; with it a table finds the rules
that may match (``Table.rules_for``) without reading the others. What is not known is ``None`` (or empty), and excludes
no rule.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PacketHeader"]


class PacketHeader(NamedTuple):
    """Addresses are packed; ports are those of TCP and UDP."""

    version: int
    protocol: int
    source: bytes | None = None
    destination: bytes | None = None
    sport: int | None = None
    dport: int | None = None
    iif: str = ""
    oif: str = ""

    def part(self, name: str) -> bytes | None:
        """The value of a part as in a key of an nf_tables set; ``name`` as in ``Element.key``."""
        match name:
            case "source":
                return self.source
            case "destination":
                return self.destination
            case "sport" | "transport sport":
                return None if self.sport is None else self.sport.to_bytes(2, "big")
            case "dport" | "transport dport":
                return None if self.dport is None else self.dport.to_bytes(2, "big")
            case "protocol":
                return bytes((self.protocol,))
            case "in name" if self.iif:
                return self.iif.encode().ljust(16, b"\0")
            case "out name" if self.oif:
                return self.oif.encode().ljust(16, b"\0")
        return None
