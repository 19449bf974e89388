"""How a cluster's network is cut into nodes' subnets where Kubernetes does not do it: flannel's SubnetLen and its like.

Problem: in etcd and in a shared directory each node takes a subnet for itself. Promise: ``cut`` checks the four numbers
against the network as flannel does (its pkg/subnet/config.go), with its defaults, and ``Cut`` knows which subnets are
inside and which are free. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hitless.errors import InputError
from hitless.model.families import Address, Network

__all__ = ["Cut", "Cutting", "cut"]


@dataclass(frozen=True, slots=True)
class Cutting:
    """SubnetLen, SubnetMin and SubnetMax as they are written; 0 and ``None``: flannel's defaults."""

    length: int = 0
    first: Address | None = None
    last: Address | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Subnets of ``length`` bits from ``first`` to ``last`` (their first addresses, as numbers)."""

    network: Network
    length: int
    first: int
    last: int

    def fits(self, subnet: Network) -> bool:
        """Whether this is one of the subnets."""
        same = subnet.version == self.network.version and subnet.prefixlen == self.length
        return same and self.first <= int(subnet.network_address) <= self.last

    def free(self, taken: Iterable[Network]) -> Iterator[Network]:
        """Subnets that overlap none of ``taken``, in order."""
        size = 1 << (self.network.max_prefixlen - self.length)
        spans = sorted(
            (int(one.network_address), int(one.broadcast_address))
            for one in taken
            if one.version == self.network.version
        )
        at, start = 0, self.first
        while start <= self.last:
            while at < len(spans) and spans[at][1] < start:
                at += 1
            if at < len(spans) and spans[at][0] < start + size:
                past = spans[at][1] + 1
                start += max(size, -((start - past) // size) * size)  # the next boundary behind what is taken
                continue
            yield type(self.network)((start, self.length))
            start += size


def cut(network: Network, cutting: Cutting, where: str) -> Cut:
    """The cut of a network; raises ``InputError`` naming the field."""
    prefix = "" if network.version == 4 else "IPv6"
    bits = network.max_prefixlen
    usual, least = (24, 28) if network.version == 4 else (64, 124)
    if network.prefixlen > least:
        message = f"{network} is too small to be cut into subnets"
        raise InputError(message, where=f"{where}: {prefix}Network", expected=f"at most /{least}")
    length = cutting.length or (usual if network.prefixlen <= usual - 2 else network.prefixlen + 2)
    if not network.prefixlen + 2 <= length <= bits - 2:
        raise InputError(
            f"{length}", where=f"{where}: {prefix}SubnetLen", expected=f"{network.prefixlen + 2} to {bits - 2}"
        )
    size = 1 << (bits - length)
    # the first subnet is left out unless SubnetMin names it: its first address is the network's own
    first = int(cutting.first) if cutting.first is not None else int(network.network_address) + size
    last = int(cutting.last) if cutting.last is not None else int(network.broadcast_address) + 1 - size
    for name, value, written in (("SubnetMin", first, cutting.first), ("SubnetMax", last, cutting.last)):
        inside = int(network.network_address) <= value <= int(network.broadcast_address)
        if not inside or value % size:
            expected = f"the first address of a /{length} inside {network}"
            raise InputError(f"{written}", where=f"{where}: {prefix}{name}", expected=expected)
    if first > last:
        raise InputError("is behind SubnetMax", where=f"{where}: {prefix}SubnetMin", expected="a range")
    return Cut(network, length, first, last)
