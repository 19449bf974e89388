"""What rules depend on besides the rules: interfaces, ipsets, IPsec policies of the node.

Problem: a rule may depend on what no rule set contains: which interface is number 4, whether an address is in an ipset.
Promise: ``Surroundings`` looks it up, so that the evaluator does not depend on the kernel; every result may be
``None``, not known. ``hitless.kernel.surroundings`` asks the kernel; tests have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hitless.model.families import Address, Family
from hitless.model.packets import Packet

__all__ = ["Surroundings"]


class Surroundings(Protocol):
    """Lookups on a node. ``version`` changes whenever a result has changed."""

    version: int

    def index(self, interface: str) -> int | None:
        """The number of an interface."""

    def group(self, interface: str) -> int | None:
        """The group of an interface (``ip link set … group``)."""

    def kind(self, interface: str) -> str | None:
        """The kind of link of an interface (veth, bridge, …; empty for hardware)."""

    def address(self, interface: str, family: Family) -> Address | None:
        """The address that a masquerade uses for packets leaving by an interface, if there is only one possible."""

    def set_name(self, number: int) -> str | None:
        """The name of the ipset that rules know by this number."""

    def in_set(self, number: int, directions: Sequence[str], packet: Packet) -> bool | None:
        """Whether the ipset contains the packet's values; ``directions`` ("src" or "dst") by dimension."""

    def has_element(self, family: str, table: str, name: str, key: tuple[bytes, ...]) -> bool | None:
        """Whether an nf_tables set contains a key, given part by part, now."""

    def ipsec(self) -> bool | None:
        """Whether the node has any IPsec policy."""

    def quota(self, account: str) -> bool | None:
        """Whether an accounting object (nfacct) has a limit, so that a rule that counts in it is a condition."""

    def recent(self, name: str, address: str) -> bool | None:
        """Whether the list ``name`` of xt_recent holds the address."""
