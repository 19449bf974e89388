"""Leases of a peer that no node may use, for every source of leases: the peer is refused with the reason, and the
others are served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.leases.followers import Follower

from hitless.sources.annotations import PREFIX

VXLAN = '{"VNI":1,"VtepMAC":"02:00:00:00:00:2a"}'
OWN_SUBNET, OWN_ADDRESS, OWN_MAC = "10.42.1.0/24", "192.0.2.1", "02:00:00:00:00:01"
API_SERVER = "10.42.250.7"
"""An API server whose address is inside the pods' network."""


@dataclass(frozen=True)
class PeerLease:
    """A lease as a peer publishes it; ``why`` is in the reason of its refusal."""

    why: str
    subnet: str = "10.42.42.0/24"
    backend: str = "vxlan"
    data: str = VXLAN
    public: str = "192.0.2.42"

    def annotations(self) -> dict[str, str]:
        values = {"kube-subnet-manager": "true", "backend-type": self.backend, "public-ip": self.public}
        return {f"{PREFIX}{key}": text for key, text in (values | {"backend-data": self.data}).items()}

    def attributes(self) -> str:
        """The value in etcd; invalid data makes all of it invalid JSON."""
        head = json.dumps({"PublicIP": self.public, "PublicIPv6": None, "BackendType": self.backend})
        return f'{head[:-1]}, "BackendData": {self.data}}}'

    def file(self) -> str:
        return f'{{"Subnet": {json.dumps(self.subnet)}, {self.attributes()[1:]}'


GOOD = PeerLease("", "10.42.41.0/24", data='{"VNI":1,"VtepMAC":"02:00:00:00:00:29"}', public="192.0.2.41")
LAST = PeerLease("", "10.42.43.0/24", data='{"VNI":1,"VtepMAC":"02:00:00:00:00:2b"}', public="192.0.2.43")

BAD = {
    "no JSON": PeerLease("no JSON", data="{VNI"),
    "a list": PeerLease("is not an object", data="[1]"),
    "null": PeerLease("is not an object", data="null"),
    "deep JSON": PeerLease("no JSON", data="[" * 5000),
    "huge numbers": PeerLease("VNI", data='{"VNI":1e999,"VtepMAC":"02:00:00:00:00:2a"}'),
    "a VNI that is too large": PeerLease("VNI", data='{"VNI":16777216,"VtepMAC":"02:00:00:00:00:2a"}'),
    "a foreign backend": PeerLease("is not served", backend="udp"),
    "no backend": PeerLease("is not served", backend=""),
    "a multicast MAC": PeerLease("multicast", data='{"VNI":1,"VtepMAC":"01:00:5e:00:00:2a"}'),
    "a zero MAC": PeerLease("zero", data='{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}'),
    "a MAC that is none": PeerLease("is not a MAC", data='{"VNI":1,"VtepMAC":"02:00:00:00:00"}'),
    "no MAC": PeerLease("is not a MAC", data='{"VNI":1}'),
    "our MAC": PeerLease("is that of", data=f'{{"VNI":1,"VtepMAC":"{OWN_MAC}"}}'),
    "a peer's MAC": PeerLease("is that of", data=GOOD.data),
    "our subnet": PeerLease("overlaps", subnet=OWN_SUBNET),
    "a subnet over ours": PeerLease("overlaps", subnet="10.42.0.0/23"),
    "a peer's subnet": PeerLease("overlaps", subnet=GOOD.subnet),
    "a part of a peer's subnet": PeerLease("overlaps", subnet="10.42.41.128/25"),
    "all of the network": PeerLease("", subnet="10.42.0.0/16"),
    "outside of the network": PeerLease("outside the network", subnet="10.43.42.0/24"),
    "the API server's subnet": PeerLease("covers", subnet="10.42.250.0/24"),
    "our address": PeerLease("is this node's", public=OWN_ADDRESS),
    "a pod's address": PeerLease("inside the pods' network", public="10.42.41.7"),
    "no address": PeerLease("", public=""),
    "a zero address": PeerLease("is not a node address", public="0.0.0.0"),
    "a multicast address": PeerLease("is not a node address", public="224.0.0.1"),
    "a loopback address": PeerLease("is not a node address", public="127.0.0.1"),
    "an address of the other family": PeerLease("", public="2001:db8::1"),
    "text for an address": PeerLease("", public="localhost"),
    "a key that is none": PeerLease(
        "is not a WireGuard key", backend="wireguard", data='{"PublicKey":"AAAA","Port":51820}'
    ),
    "a port that is too large": PeerLease("Port", backend="wireguard", data='{"PublicKey":"","Port":70000}'),
}
"""In Kubernetes a node without backend is one that flannel does not manage yet, and that is an error too."""


def check(me: Follower, lease: PeerLease, publish: Callable[[str, PeerLease], str]) -> None:
    """``publish`` writes a peer's lease, and returns its name at the source."""
    me.until(lambda news: news.published)
    first, last = publish("first", GOOD), publish("last", LAST)
    me.until(lambda news: {first, last} <= news.leases.by_node.keys())
    bad = publish("bad", lease)
    news = me.until(lambda news: bad in news.leases.refused or bad in news.leases.by_node)
    assert bad not in news.leases.by_node and {first, last} <= news.leases.by_node.keys()
    assert lease.why in news.leases.refused[bad]
    assert "\n" not in news.leases.refused[bad] and len(news.leases.refused[bad]) < 1000
    good = publish("bad", PeerLease(""))
    news = me.until(lambda news: good in news.leases.by_node)
    assert {first, good, last} <= news.leases.by_node.keys() and not news.leases.refused
