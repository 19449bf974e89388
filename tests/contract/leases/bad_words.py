"""Words of a peer that no node may follow, for every source of leases: it is left out, named with the reason, and its
neighbours are served."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.leases.followers import Follower

from hitless.sources.annotations import PREFIX

VXLAN = '{"VNI":1,"VtepMAC":"02:00:00:00:00:2a"}'
OWN_SUBNET, OWN_ADDRESS, OWN_MAC = "10.42.1.0/24", "192.0.2.1", "02:00:00:00:00:01"
API_SERVER = "10.42.250.7"
"""An API server that somebody reaches inside the pods' network."""


@dataclass(frozen=True)
class Word:
    """What a peer says; ``why`` is in the reason."""

    why: str
    subnet: str = "10.42.42.0/24"
    backend: str = "vxlan"
    data: str = VXLAN
    public: str = "192.0.2.42"

    def annotations(self) -> dict[str, str]:
        said = {"kube-subnet-manager": "true", "backend-type": self.backend, "public-ip": self.public}
        return {f"{PREFIX}{key}": text for key, text in (said | {"backend-data": self.data}).items()}

    def attributes(self) -> str:
        """etcd's value; what is no JSON by itself makes the whole none."""
        head = json.dumps({"PublicIP": self.public, "PublicIPv6": None, "BackendType": self.backend})
        return f'{head[:-1]}, "BackendData": {self.data}}}'

    def file(self) -> str:
        return f'{{"Subnet": {json.dumps(self.subnet)}, {self.attributes()[1:]}'


GOOD = Word("", "10.42.41.0/24", data='{"VNI":1,"VtepMAC":"02:00:00:00:00:29"}', public="192.0.2.41")
LAST = Word("", "10.42.43.0/24", data='{"VNI":1,"VtepMAC":"02:00:00:00:00:2b"}', public="192.0.2.43")

BAD = {
    "no JSON": Word("no JSON", data="{VNI"),
    "a list": Word("is not an object", data="[1]"),
    "null": Word("is not an object", data="null"),
    "deep JSON": Word("no JSON", data="[" * 5000),
    "huge numbers": Word("VNI", data='{"VNI":1e999,"VtepMAC":"02:00:00:00:00:2a"}'),
    "a VNI that is too large": Word("VNI", data='{"VNI":16777216,"VtepMAC":"02:00:00:00:00:2a"}'),
    "a foreign backend": Word("is not served", backend="udp"),
    "no backend": Word("is not served", backend=""),
    "a multicast MAC": Word("multicast", data='{"VNI":1,"VtepMAC":"01:00:5e:00:00:2a"}'),
    "a zero MAC": Word("zero", data='{"VNI":1,"VtepMAC":"00:00:00:00:00:00"}'),
    "a MAC that is none": Word("is not a MAC", data='{"VNI":1,"VtepMAC":"02:00:00:00:00"}'),
    "no MAC": Word("is not a MAC", data='{"VNI":1}'),
    "our MAC": Word("is that of", data=f'{{"VNI":1,"VtepMAC":"{OWN_MAC}"}}'),
    "a peer's MAC": Word("is that of", data=GOOD.data),
    "our subnet": Word("overlaps", subnet=OWN_SUBNET),
    "a subnet over ours": Word("overlaps", subnet="10.42.0.0/23"),
    "a peer's subnet": Word("overlaps", subnet=GOOD.subnet),
    "a part of a peer's subnet": Word("overlaps", subnet="10.42.41.128/25"),
    "all of the network": Word("", subnet="10.42.0.0/16"),
    "outside of the network": Word("outside the network", subnet="10.43.42.0/24"),
    "the API server's subnet": Word("covers", subnet="10.42.250.0/24"),
    "our address": Word("is this node's", public=OWN_ADDRESS),
    "a pod's address": Word("inside the pods' network", public="10.42.41.7"),
    "no address": Word("", public=""),
    "a zero address": Word("is not a node address", public="0.0.0.0"),
    "a multicast address": Word("is not a node address", public="224.0.0.1"),
    "a loopback address": Word("is not a node address", public="127.0.0.1"),
    "an address of the other family": Word("", public="2001:db8::1"),
    "text for an address": Word("", public="localhost"),
    "a key that is none": Word("is not a WireGuard key", backend="wireguard", data='{"PublicKey":"AAAA","Port":51820}'),
    "a port that is too large": Word("Port", backend="wireguard", data='{"PublicKey":"","Port":70000}'),
}
"""In Kubernetes a node without backend is one that flannel does not manage yet, and that is an error too."""


def check(me: Follower, word: Word, say: Callable[[str, Word], str]) -> None:
    """``say`` makes a peer say something, and returns the name that the source has for it."""
    me.until(lambda news: news.published)
    first, last = say("first", GOOD), say("last", LAST)
    me.until(lambda news: {first, last} <= news.leases.by_node.keys())
    bad = say("bad", word)
    news = me.until(lambda news: bad in news.leases.refused or bad in news.leases.by_node)
    assert bad not in news.leases.by_node and {first, last} <= news.leases.by_node.keys()
    assert word.why in news.leases.refused[bad]
    assert "\n" not in news.leases.refused[bad] and len(news.leases.refused[bad]) < 1000
    good = say("bad", Word(""))
    news = me.until(lambda news: good in news.leases.by_node)
    assert {first, good, last} <= news.leases.by_node.keys() and not news.leases.refused
