"""Witness packets: the packets whose fate tells whether the egress path stands."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.families import Address, Family, family_of

__all__ = ["ICMP", "ICMPV6", "TCP", "UDP", "Packet"]

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow that a node forwards; ``state`` is its conntrack state, ``mark`` its initial mark.

    Ports are 0 for protocols without ports. ``iif`` is the pod's host-side interface, ``oif`` the node's uplink.
    """

    src: Address
    dst: Address
    protocol: int = TCP
    sport: int = 40000
    dport: int = 443
    iif: str = "veth0"
    oif: str = "eth0"
    mark: int = 0
    state: str = "NEW"

    @property
    def family(self) -> Family:
        """The packet's address family."""
        return family_of(self.src)
