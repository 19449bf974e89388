"""Witness packets: packets whose outcome shows whether a pod network's egress works.

Problem: one packet proves little: a rule may block UDP only, or one destination. Promise: for a pod network,
``witnesses`` gives a few first packets of flows from a pod address of this node to addresses outside every network of
the cluster, over TCP, UDP and ICMP. Destinations are documentation addresses (RFC 5737, RFC 3849), which no real rule
matches on purpose, and public ones. Next stage: ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from ipaddress import IPv4Address, IPv6Address

from hitless.errors import InputError
from hitless.model.families import Address, Family, Network, family_of, in_any, within
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet

__all__ = ["PORTS", "far_ends", "unused_addresses", "witnesses"]

_OUTSIDE: dict[Family, tuple[Address, ...]] = {
    Family.IPV4: tuple(map(IPv4Address, ("198.51.100.77", "8.8.8.8", "203.0.113.77", "93.184.215.14"))),
    Family.IPV6: tuple(map(IPv6Address, ("2001:db8:ffff::77", "2001:4860:4860::8888", "2606:4700:4700::1111"))),
}
PORTS = (40000, 443)
"""A witness's source and destination port, where its protocol has ports."""
_POD = 10
"""The pod's address is this one of the subnet: not the network's, the gateway's or a broadcast address."""


def far_ends(family: Family) -> tuple[Address, ...]:
    """Addresses that represent everything outside of the cluster, where none are configured."""
    return _OUTSIDE[family]


def unused_addresses(network: Network, taken: Container[Address] = (), number: int = 3) -> tuple[Address, ...]:
    """A few addresses of ``network`` that none of the ``taken`` pods has, far from each other, since a rule may match
    one of them."""
    size = network.num_addresses
    found: dict[Address, None] = {}
    # not the network's, the gateway's or the broadcast address; pods get addresses from the start of the range
    for place in (_POD, size * 2 // 3, size - 6, size // 3, size // 2, size - 9):
        for index in range(place, place + 16):
            if 0 < index < size - 1 and network[index] not in taken:
                found[network[index]] = None
                break
    return tuple(found)[:number] or (network[min(_POD, size - 1)],)


def witnesses(
    network: Network,
    subnet: Network | None = None,
    *,
    inside: Iterable[Network] = (),
    protocols: Iterable[int] = (TCP, UDP),
    destinations: int = 1,
    far_ends: Iterable[Address] = (),
    iif: str = "",
    oif: str = "",
    mark: int = 0,
    source: Address | None = None,
) -> tuple[Packet, ...]:
    """First packets of flows from a pod of ``subnet`` (this node's part of ``network``) to the outside.

    ``inside`` are the cluster's other networks (Services, other pods), in which no destination lies. ``far_ends``
    replaces the first ``destinations`` of the default ones, which lie in both halves of the IPv4 address space.
    ``source`` is the pod's address where a certain pod is meant. ``iif`` and ``oif`` are the interfaces where they are
    known: with an empty name, rules that compare it give "cannot tell". Raises ``InputError`` when ``subnet`` is not
    part of ``network``.
    """
    family = family_of(network)
    if subnet is not None and not within(subnet, network):
        raise InputError(f"{subnet} is not part of {network}", where="subnet", expected=f"a part of {network}")
    home = network if subnet is None else subnet
    source = home[min(_POD, home.num_addresses - 1)] if source is None else source
    taken = (network, *inside)
    named = [address for address in far_ends if family_of(address) is family]
    outside = [address for address in named or _OUTSIDE[family] if not in_any(address, taken)]
    if not outside:
        raise InputError("every address that could serve as a far end lies inside the cluster", where=str(network))
    echo = ICMP if family is Family.IPV4 else ICMPV6
    found = []
    for destination in outside if named else outside[:destinations]:
        for protocol in protocols:
            number = echo if protocol in (ICMP, ICMPV6) else protocol
            sport, dport = PORTS if number in (TCP, UDP) else (0, 0)
            found.append(Packet(source, destination, number, sport, dport, iif, oif, mark))
    return tuple(found)
