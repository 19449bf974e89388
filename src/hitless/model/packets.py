"""Witness packets: the packets whose fate tells whether the egress path stands."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.families import Address, Family, family_of

__all__ = ["ICMP", "ICMPV6", "TCP", "UDP", "Packet"]

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a flow that a node forwards; ``state`` is its conntrack state, ``mark`` its initial mark.

    Ports are 0 for protocols without ports. ``iif`` is the interface that it comes in by (of a pod's packet the host's
    side of the pod's link), ``oif`` the one that it leaves by; empty: not known. ``reply``: it is the answer to a
    pod's first packet, whose source was translated. ``own``: its destination is an address of this node (an answer
    before NAT is undone); an unspecified destination is then one that is not known.
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
