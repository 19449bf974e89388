"""Conditions on the packet's addresses: networks, address types, and the reverse path."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.model.families import Family, Network
from hitless.model.matches.base import (
    ALONE,
    NOTHING,
    Distinctions,
    Inexact,
    Match,
    MatchContext,
    destination_unknown,
    nft_list,
)
from hitless.model.matches.native import Compare, Form, fib, host, network_header

__all__ = ["AddrType", "Destination", "ReversePath", "Source", "ip_of", "plain"]


def ip_of(network: Network) -> str:
    """nft's name of the family."""
    return "ip" if network.version == 4 else "ip6"


def plain(network: Network) -> str:
    """The network as nft writes it: a single address without its length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def _forms(network: Network, negated: bool, version: int, offsets: tuple[int, int]) -> list[Form]:
    if network.version != version:
        return [()] if negated else []
    if network.prefixlen == 0:
        return [] if negated else [()]
    length = network.max_prefixlen // 8
    mask = network.netmask.packed if network.prefixlen < network.max_prefixlen else None
    load = network_header(offsets[version == 6], length)
    return [(Compare(load, network.network_address.packed, negated, mask),)]


@dataclass(frozen=True, slots=True)
class Source(Match):
    """The packet's source address lies in ``network``."""

    network: Network
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """After a translation the source is another one."""
        network = self.network
        if network.version != context.packet.src.version:
            return self.negated
        if network.prefixlen == 0:
            return not self.negated
        known = context.sources()
        if known is None:
            return None
        first, last = (int(address) for address in known)
        low, high = int(network.network_address), int(network.broadcast_address)
        if low <= first and last <= high:
            return not self.negated
        return self.negated if last < low or high < first else None

    def iptables(self, protocol: int) -> tuple[str, str]:
        """An option in the rule's head."""
        return "", f"{'! ' if self.negated else ''}-s {self.network}"

    def nft(self, protocol: int) -> str:
        """All addresses of a family are the family."""
        operator = "!= " if self.negated else ""
        if self.network.prefixlen == 0:
            return f"meta nfproto {operator}ipv{self.network.version}"
        return f"{ip_of(self.network)} saddr {operator}{plain(self.network)}"

    def distinguishes_flows(self) -> Distinctions:
        """By the network."""
        return Distinctions((self.network,))

    def distinguishes_pods(self) -> Distinctions:
        """By the network."""
        return Distinctions((self.network,))

    def native(self, version: int) -> list[Form]:
        """A field of the header."""
        return _forms(self.network, self.negated, version, (12, 8))


@dataclass(frozen=True, slots=True)
class Destination(Match):
    """The packet's destination address lies in ``network``."""

    network: Network
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """A reply may go to an address of the node that is not known."""
        if destination_unknown(context):
            return None
        return (context.packet.dst in self.network) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """An option in the rule's head."""
        return "", f"{'! ' if self.negated else ''}-d {self.network}"

    def nft(self, protocol: int) -> str:
        """A field of the header."""
        return f"{ip_of(self.network)} daddr {'!= ' if self.negated else ''}{plain(self.network)}"

    def distinguishes_flows(self) -> Distinctions:
        """By the network."""
        return Distinctions((self.network,))

    def distinguishes_pods(self) -> Distinctions:
        """By the network: a reply goes to the pod."""
        return Distinctions((self.network,))

    def native(self, version: int) -> list[Form]:
        """A field of the header."""
        return _forms(self.network, self.negated, version, (16, 24))


_BY_ADDRESS_TYPE = 3  # NFT_FIB_RESULT_ADDRTYPE
_NUMBERS = {"UNICAST": 1, "LOCAL": 2, "BROADCAST": 3, "MULTICAST": 5}  # RTN_*


@dataclass(frozen=True, slots=True)
class AddrType(Match):
    """The address type (LOCAL, UNICAST, …) of the source (``direction`` "src") or destination ("dst")."""

    direction: str
    types: frozenset[str]
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """A forwarded packet's addresses are neither the node's own nor broadcast: the kernel would deliver or drop
        it."""
        packet = context.packet
        if self.direction == "src" and context.translated:
            return None
        kind = "MULTICAST" if (packet.src if self.direction == "src" else packet.dst).is_multicast else "UNICAST"
        if packet.own and self.direction == "dst":
            kind = "LOCAL"
        matched = kind in self.types
        if packet.family is Family.IPV6 and len(self.types) > 1:
            # For IPv6, xt_addrtype (match_type6) requires all of several types at once, nft's fib one of them.
            every = self.types == {kind}
            if every is not matched:
                return None
        return matched is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_addrtype."""
        return "addrtype", f"{'! ' if self.negated else ''}--{self.direction}-type {','.join(sorted(self.types))}"

    def nft(self, protocol: int) -> str:
        """A lookup in the routing table."""
        types = nft_list(sorted(name.lower() for name in self.types))
        return f"fib {self.direction[0]}addr type {'!= ' if self.negated else ''}{types}"

    def distinguishes_flows(self) -> Distinctions:
        """By the address."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """All pods' addresses are of one type."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Only for a single type, because the kernel returns one."""
        (name,) = self.types if len(self.types) == 1 else ("several types",)
        if name not in _NUMBERS or self.direction not in ("src", "dst"):
            raise Inexact(f"address type {', '.join(sorted(self.types))}")
        load = fib(_BY_ADDRESS_TYPE, 1 if self.direction == "src" else 2)
        return [(Compare(load, host(_NUMBERS[name]), self.negated),)]


@dataclass(frozen=True, slots=True)
class ReversePath(Match):
    """The route to the source uses the interface by which the packet came in (xtables' rpfilter; nft's ``fib saddr .
    iif oif exists``)."""

    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """A witness is a pod's packet, which comes in by the interface that leads to the pod. After a translation the
        source is the node's."""
        return None if context.translated else not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_rpfilter."""
        return "rpfilter", "--invert" if self.negated else ""

    def nft(self, protocol: int) -> str:
        """A lookup in the routing table."""
        return f"fib saddr . iif oif {'missing' if self.negated else 'exists'}"

    def distinguishes_flows(self) -> Distinctions:
        """By the source's route."""
        return ALONE

    def distinguishes_pods(self) -> Distinctions:
        """A pod's packet comes in by the interface that leads to the pod."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """The two tools' results differ for addresses of the node."""
        raise self.inexact()
