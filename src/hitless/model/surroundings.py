"""What rules ask about the node itself: its interfaces, its ipsets, its IPsec policies.

Problem: a rule may ask for things that no rule set holds: which interface is number 4, whether an address is in an
ipset. Promise: ``Surroundings`` is who can be asked, so that the evaluator stays free of the kernel; every answer may
be ``None``, not known. ``hitless.kernel.surroundings`` asks the kernel; tests answer themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hitless.model.families import Address, Family
from hitless.model.packets import Packet

__all__ = ["Surroundings"]


class Surroundings(Protocol):
    """Who answers for a node. ``version`` is another one whenever an answer has changed."""

    version: int

    def index(self, interface: str) -> int | None:
        """The number of an interface."""

    def group(self, interface: str) -> int | None:
        """The group that an interface is in (``ip link set … group``)."""

    def kind(self, interface: str) -> str | None:
        """What kind of link an interface is (veth, bridge, …; empty for hardware)."""

    def address(self, interface: str, family: Family) -> Address | None:
        """The address that a masquerade gives to what leaves by an interface, where it can be but one."""

    def set_name(self, number: int) -> str | None:
        """The name of the ipset that rules know by this number."""

    def in_set(self, number: int, directions: Sequence[str], packet: Packet) -> bool | None:
        """Whether the ipset holds what the packet has there; ``directions`` ("src" or "dst") by dimension."""

    def has_element(self, family: str, table: str, name: str, key: tuple[bytes, ...]) -> bool | None:
        """Whether an nf_tables set holds a key, given part by part, now."""

    def ipsec(self) -> bool | None:
        """Whether the node has any IPsec policy."""

    def quota(self, account: str) -> bool | None:
        """Whether an accounting object (nfacct) has a limit, so that a rule that counts in it is a condition."""

    def recent(self, name: str, address: str) -> bool | None:
        """Whether the list ``name`` of xt_recent holds the address."""
