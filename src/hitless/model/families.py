"""The closed choices that run through everything: address family, rules backend.

IPv4 and IPv6 are one code path with a ``Family`` parameter (architecture, invariant 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

__all__ = ["Address", "Backend", "Family", "Network", "family_of", "in_any", "overlap", "within"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Family(StrEnum):
    """An address family, by the name that people use on the command line."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def nft(self) -> str:
        """The family word of nftables: ``ip`` or ``ip6``."""
        return "ip" if self is Family.IPV4 else "ip6"

    @property
    def iptables(self) -> str:
        """The stem of the xtables programs: ``iptables`` or ``ip6tables``."""
        return "iptables" if self is Family.IPV4 else "ip6tables"

    @property
    def multicast(self) -> Network:
        """The multicast range that flannel leaves un-translated (224.0.0.0/4, ff00::/8)."""
        return _MULTICAST[self]


_MULTICAST: Mapping[Family, Network] = MappingProxyType(
    {Family.IPV4: IPv4Network("224.0.0.0/4"), Family.IPV6: IPv6Network("ff00::/8")}
)


class Backend(StrEnum):
    """How rules get into the kernel."""

    NFT = "nft"  # iptables-nft: iptables syntax, nf_tables underneath
    LEGACY = "legacy"  # iptables-legacy: whole-table replacement by setsockopt
    NFTABLES = "nftables"  # native nftables tables


def family_of(value: Address | Network) -> Family:
    """The family that an address or network belongs to."""
    return Family.IPV4 if value.version == 4 else Family.IPV6


def within(part: Network, whole: Network) -> bool:
    """Whether ``whole`` has all addresses of ``part``; a network of the other family has none of them."""
    return part.version == whole.version and part.prefixlen >= whole.prefixlen and part.network_address in whole


def in_any(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; it is in none of the other family's."""
    return any(address in network for network in networks)


def overlap(one: Network, other: Network) -> bool:
    """Whether two networks have addresses in common.

    The library's ``overlaps`` and ``subnet_of`` make two more addresses, which each network then keeps: megabytes.
    """
    return within(one, other) or within(other, one)
