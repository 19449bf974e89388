"""Which leases are served: every node's claim, checked for collisions with the others.

Problem: two nodes may claim one subnet, a copied machine has another one's MAC, a peer may claim our own subnet or
address. Served unchecked, the last one to publish takes the others' traffic. Promise: a claim is served family by
family, unless it collides with this node or with a node that was there before. A refused node is reported with the
reason, and served as soon as the other one goes. A change costs nearly the same for any number of nodes. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping

from hitless.model.families import Address, Family, Network, within
from hitless.model.leases import Endpoint, Lease, Leases
from hitless.sources.lease_map import LeaseMap

__all__ = ["Roster"]

_Span = tuple[int, int, str]  # first address, last address, node


class Roster:
    """``own``: this node's name; its claim takes precedence. ``networks``: the cluster's, which must contain every
    subnet. ``reserved``: addresses that no peer's subnet may contain (this node's, the API server's)."""

    def __init__(self, networks: Mapping[Family, Network], own: str = "", reserved: Iterable[Address] = ()) -> None:
        self._networks, self.own, self.synced = dict(networks), own, False
        self._reserved = frozenset(reserved)
        self._claims: dict[str, tuple[Lease | None, str]] = {}
        self._served: dict[str, Lease] = {}
        self._refused: dict[str, str] = {}
        self._waiting: set[str] = set()  # refused because of another node
        self._spans: dict[Family, list[_Span]] = {family: [] for family in Family}
        self._holders: dict[Family, dict[str, tuple[str, ...]]] = {family: {} for family in Family}  # of MACs and keys
        self._touched: set[str] = set()
        self._map = LeaseMap()
        self._last = Leases(self._map)

    def reserve(self, addresses: Iterable[Address]) -> None:
        """No peer's subnet may contain these; where they changed, all claims are checked again."""
        if (reserved := frozenset(addresses)) != self._reserved:
            self._reserved = reserved
            for name in self._claims:
                self._withdraw(name)
            for name in sorted(self._claims, key=lambda one: one != self.own):
                self._admit(name)

    def belongs(self, name: str) -> None:
        """Set this node's own name; empty: it has none."""
        if name == self.own:
            return
        before, self.own = self.own, name
        for one in (before, name):
            if one in self._claims:
                self._place(one, *self._claims[one])

    def put(self, name: str, lease: Lease | None, why: str = "") -> None:
        """A node's claim: its lease, and why it has none, or not for every family."""
        if self._claims.get(name) != (lease, why):
            self._place(name, lease, why)

    def _place(self, name: str, lease: Lease | None, why: str) -> None:
        self._withdraw(name)
        self._claims[name] = (lease, why)
        ousted = self._rivals(lease) if name == self.own and lease is not None else set()
        for other in ousted:
            self._withdraw(other)
        self._admit(name)
        for other in ousted | self._waiting - {name}:
            self._withdraw(other)
            self._admit(other)

    def remove(self, name: str) -> None:
        """A node's claim was deleted."""
        if name in self._claims:
            self._withdraw(name)
            del self._claims[name]
            for other in list(self._waiting):
                self._withdraw(other)
                self._admit(other)

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove all others: the names of a complete list."""
        for name in self._claims.keys() - set(names):
            self.remove(name)

    def claims(self) -> Iterator[tuple[str, Lease]]:
        """All claims, served or not."""
        return ((name, lease) for name, (lease, _) in self._claims.items() if lease is not None)

    def claim(self, name: str) -> Lease | None:
        """A node's claim, served or not."""
        return self._claims.get(name, (None, ""))[0]

    def leases(self) -> tuple[Leases, frozenset[str]]:
        """The served leases, the refused nodes with the reason, and the nodes whose lease changed since the last call.

        Each result stays as it is: the next change is made in a copy.
        """
        last, before = self._last, self._map
        news = {name: lease for name in self._touched if before.get(name) != (lease := self._served.get(name))}
        self._touched.clear()
        if news:
            self._map = before.changed(news)
        if news or last.synced != self.synced or last.refused != self._refused:
            self._last = Leases(self._map, dict(self._refused), self.synced)
        return self._last, frozenset(news)

    def _withdraw(self, name: str) -> None:
        self._refused.pop(name, None)
        self._waiting.discard(name)
        lease = self._served.pop(name, None)
        if lease is None:
            return
        self._touched.add(name)
        for family, endpoint in lease.endpoints.items():
            spans, span = self._spans[family], _span(endpoint.subnet, name)
            del spans[bisect_left(spans, span)]
            for mark in _marks(endpoint):
                holders = self._holders[family]
                holders[mark] = tuple(one for one in holders[mark] if one != name)
                if not holders[mark]:
                    del holders[mark]

    def _admit(self, name: str) -> None:
        lease, why = self._claims[name]
        reasons = [why] if why else []
        good: dict[Family, Endpoint] = {}
        for family, endpoint in lease.endpoints.items() if lease is not None else ():
            lasting, passing = self._objections(name, family, endpoint)
            if lasting or passing:
                reasons.append(f"{family.value}: {lasting or passing}")
            else:
                good[family] = endpoint
            if passing and not lasting:
                self._waiting.add(name)
        if reasons:
            self._refused[name] = "; ".join(reasons)
        if lease is None or not good:
            return
        for family, endpoint in good.items():
            insort(self._spans[family], _span(endpoint.subnet, name))
            for mark in _marks(endpoint):
                self._holders[family][mark] = (*self._holders[family].get(mark, ()), name)
        self._served[name] = lease if len(good) == len(lease.endpoints) else Lease(name, lease.backend, good)
        self._touched.add(name)

    def _objections(self, name: str, family: Family, endpoint: Endpoint) -> tuple[str, str]:
        """Why an endpoint is not served: because of its own values, or because of another node."""
        subnet, network = endpoint.subnet, self._networks.get(family)
        if network is None:
            return "", ""  # a family that is not enabled: the plan leaves it out
        if not within(subnet, network):
            return f"the subnet {subnet} is outside the network {network}", ""
        if name == self.own:
            return "", ""
        covered = next((one for one in self._reserved if one in subnet), None)
        if covered is not None:
            return f"the subnet {subnet} covers {covered}, which is not a pod's", ""
        public = endpoint.public_ip
        inside = self._networks.get(Family.IPV4 if public.version == 4 else Family.IPV6)
        if inside is not None and public in inside:
            return f"its address {public} is inside the pods' network {inside}", ""
        mine = self._served.get(self.own)
        if mine is not None and any(public == one.public_ip for one in mine.endpoints.values()):
            return "", f"its address {public} is this node's"
        for other in self._over(family, subnet):
            return "", f"the subnet {subnet} overlaps that of {other}"
        for mark in _marks(endpoint):
            for other in self._holders[family].get(mark, ()):
                if other == self.own or self._served[other].endpoints[family].public_ip != public:
                    kind = "MAC" if endpoint.mac else "public key"
                    return "", f"the {kind} {mark} is that of {other}"
        return "", ""

    def _over(self, family: Family, subnet: Network) -> list[str]:
        """The nodes that hold a part of a subnet. Served subnets never overlap: only the neighbouring ones matter."""
        spans = self._spans[family]
        first, last, _ = _span(subnet, "")
        at = bisect_left(spans, (first, -1, ""))
        found = [spans[at - 1][2]] if at and spans[at - 1][1] >= first else []
        while at < len(spans) and spans[at][0] <= last:
            found.append(spans[at][2])
            at += 1
        return found

    def _rivals(self, lease: Lease) -> set[str]:
        """The served nodes that collide with this node's own lease."""
        found: set[str] = set()
        ours = {endpoint.public_ip for endpoint in lease.endpoints.values()}
        for family, endpoint in lease.endpoints.items():
            found.update(self._over(family, endpoint.subnet))
            for mark in _marks(endpoint):
                found.update(self._holders[family].get(mark, ()))
        for name, other in self._served.items():
            if any(endpoint.public_ip in ours for endpoint in other.endpoints.values()):
                found.add(name)
        return found - {self.own}


def _span(subnet: Network, name: str) -> _Span:
    # broadcast_address would create two more address objects, which the network then caches
    first = int(subnet.network_address)
    return first, first | (1 << (subnet.max_prefixlen - subnet.prefixlen)) - 1, name


def _marks(endpoint: Endpoint) -> list[str]:
    return [mark for mark in (endpoint.mac, endpoint.public_key) if mark]
