"""Witness packets: packets whose outcome shows whether the egress path works."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.families import Address, Family, family_of

__all__ = ["ICMP", "ICMPV6", "TCP", "UDP", "Packet"]

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow that a node forwards; ``state`` is its conntrack state, ``mark`` its initial mark.

    Ports are 0 for protocols without ports. ``iif`` is the interface that it comes in by (for a pod's packet the host's
    end of the pod's link), ``oif`` the one that it leaves by; empty: not known. ``reply``: it is the reply to a pod's
    first packet whose source was translated. ``own``: its destination is an address of this node (a reply before NAT is
    reversed); the unspecified address then means that it is not known.
    """

    src: Address
    dst: Address
    protocol: int = TCP
    sport: int = 40000
    dport: int = 443
    iif: str = ""
    oif: str = ""
    mark: int = 0
    state: str = "NEW"
    reply: bool = False
    own: bool = False

    @property
    def family(self) -> Family:
        """The packet's address family."""
        return family_of(self.src)
