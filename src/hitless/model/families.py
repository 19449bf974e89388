"""Closed choices that are used everywhere: address family, rules backend.

IPv4 and IPv6 are one code path with a ``Family`` parameter (architecture, invariant 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType

__all__ = ["Address", "Backend", "Family", "KernelPath", "Network", "family_of", "in_any", "overlap", "within"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Family(StrEnum):
    """An address family, by its name on the command line."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"

    @property
    def nft(self) -> str:
        """nftables' name of the family: ``ip`` or ``ip6``."""
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


class KernelPath(Enum):
    """Where the kernel keeps rules: this determines how they are read, and how changes are detected."""

    NF_TABLES = auto()  # read and announced by netlink
    XTABLES = auto()  # whole tables, read and replaced by socket options, changed without events


class Backend(StrEnum):
    """How rules get into the kernel; the differences are in ``_FACTS``."""

    NFT = "nft"  # iptables-nft: iptables syntax, nf_tables underneath
    LEGACY = "legacy"  # iptables-legacy: whole-table replacement by setsockopt
    NFTABLES = "nftables"  # native nftables tables

    @classmethod
    def of(cls, path: KernelPath, *, native: bool) -> Backend:
        """The first one with this kernel path and language (native nft, or iptables)."""
        return next(each for each in cls if each.path is path and each.native is native)

    @property
    def native(self) -> bool:
        """Whether our rules are nft's, in tables of our own; else they are iptables rules in iptables' tables."""
        return bool(_FACTS[self].tables)

    @property
    def path(self) -> KernelPath:
        """Where the kernel keeps its rules."""
        return _FACTS[self].path

    @property
    def legacy(self) -> bool:
        """Whether the kernel keeps its rules in xtables' own tables."""
        return _FACTS[self].path is KernelPath.XTABLES

    @property
    def iptables(self) -> Backend:
        """The backend whose iptables holds the other rules of the node (kubelet's, kube-proxy's): itself, if
        possible."""
        return Backend(_FACTS[self].iptables or self.value)

    @property
    def needs(self) -> str:
        """What the kernel must have, for users."""
        return _FACTS[self].needs

    def table(self, family: Family) -> str:
        """The name of our own table; empty: our chains are in iptables' tables."""
        return _FACTS[self].tables.format(family=family.value)

    def tool(self, family: Family, end: str = "") -> str:
        """The iptables program (``end``: "-restore", "-save") that reads and writes the node's other rules."""
        return f"{family.iptables}-{self.iptables.value}{end}"

    def writer(self, family: Family) -> str:
        """The program that gets our transactions."""
        return "nft" if self.native else self.tool(family, "-restore")


@dataclass(frozen=True, slots=True)
class _Facts:
    """``tables``: the name of our own tables, if there are any. ``iptables``: the other backend whose iptables holds
    the node's other rules."""

    path: KernelPath
    needs: str
    tables: str = ""
    iptables: str = ""


_FACTS: Mapping[Backend, _Facts] = MappingProxyType(
    {
        Backend.NFT: _Facts(
            KernelPath.NF_TABLES, "load nf_tables, nft_compat, nft_chain_nat and the xt_ modules for these names"
        ),
        Backend.LEGACY: _Facts(
            KernelPath.XTABLES, "load ip_tables or ip6_tables with nat and mangle, and the xt_ modules for these names"
        ),
        Backend.NFTABLES: _Facts(
            KernelPath.NF_TABLES, "load nf_tables and nft_chain_nat", tables="flannel-{family}", iptables="nft"
        ),
    }
)


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
