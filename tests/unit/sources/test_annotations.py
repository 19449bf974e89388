"""flannel's annotations: real nodes' words, each family by itself, and our own byte for byte."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.model.families import Family
from hitless.model.leases import BackendType
from hitless.sources.annotations import PREFIX, AnnotationNames, addresses_of, lease_of, pod_networks, wanted
from hitless.sources.lease_source import Offer, Reach

NAMES = AnnotationNames()
SAMPLES = json.loads((Path(__file__).parent / "annotations.json").read_text())
BOTH = (Family.IPV4, Family.IPV6)
KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["name"]))
def test_nodes_as_they_are_found(sample: dict[str, object]) -> None:
    annotations = sample["annotations"]
    assert isinstance(annotations, dict)
    cidrs = sample["podCIDRs"]
    assert isinstance(cidrs, list)
    subnets, wrong = pod_networks(cidrs, None)
    families = tuple(Family(word) for word in sample.get("families", ["ipv4", "ipv6"]))  # type: ignore[attr-defined]
    lease, why = lease_of("n", annotations, subnets, NAMES, families)
    served = {family.value: str(one.public_ip) for family, one in lease.endpoints.items()} if lease is not None else {}
    assert served == sample["served"], why or wrong
    for word in sample.get("refused", []):  # type: ignore[attr-defined]
        assert word in f"{wrong}; {why}"
    assert sample.get("refused") or not why


VXLAN = {
    Family.IPV4: Reach(ip_address("192.0.2.1"), mac="12:c6:65:89:b4:e3", vni=1),
    Family.IPV6: Reach(ip_address("2001:db8::1"), mac="3e:58:c3:55:60:99", vni=1),
}


def test_vxlan_says_what_flannel_says() -> None:
    assert wanted(Offer(BackendType.VXLAN, VXLAN), {"other": "stays"}, NAMES) == (
        {
            f"{PREFIX}backend-data": '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}',
            f"{PREFIX}backend-type": "vxlan",
            f"{PREFIX}backend-v6-data": '{"VNI":1,"VtepMAC":"3e:58:c3:55:60:99"}',
            f"{PREFIX}kube-subnet-manager": "true",
            f"{PREFIX}public-ip": "192.0.2.1",
            f"{PREFIX}public-ipv6": "2001:db8::1",
        },
        (),
    )


def test_a_node_without_ipv4() -> None:
    six = {Family.IPV6: VXLAN[Family.IPV6]}
    assert set(wanted(Offer(BackendType.VXLAN, six), {}, NAMES)[0]) == {
        f"{PREFIX}{word}" for word in ("backend-v6-data", "backend-type", "kube-subnet-manager", "public-ipv6")
    }
    said, _ = wanted(Offer(BackendType.HOST_GW, {Family.IPV6: Reach(ip_address("2001:db8::1"))}), {}, NAMES)
    assert said[f"{PREFIX}backend-data"] == "null" and said[f"{PREFIX}public-ip"] == "0.0.0.0"
    assert said[f"{PREFIX}backend-v6-data"] == "null" and said[f"{PREFIX}public-ipv6"] == "2001:db8::1"


def test_wireguard_without_an_ipv6_underlay_has_no_ipv6_pair() -> None:
    reach = Reach(ip_address("192.0.2.1"), public_key=KEY, port=51820)
    said, _ = wanted(Offer(BackendType.WIREGUARD, {Family.IPV4: reach, Family.IPV6: reach}), {}, NAMES)
    assert said[f"{PREFIX}backend-data"] == '{"PublicKey":"' + KEY + '","Port":51820}'
    assert f"{PREFIX}backend-v6-data" not in said


def test_an_overwrite_is_what_peers_are_told() -> None:
    there = {f"{PREFIX}public-ip-overwrite": "203.0.113.7", f"{PREFIX}public-ipv6-overwrite": "nonsense"}
    said, wrong = wanted(Offer(BackendType.VXLAN, VXLAN), there, NAMES)
    assert said[f"{PREFIX}public-ip"] == "203.0.113.7" and said[f"{PREFIX}public-ipv6"] == "2001:db8::1"
    assert len(wrong) == 1 and "public-ipv6-overwrite" in wrong[0]


def test_what_stands_right_is_not_written_again() -> None:
    said, _ = wanted(Offer(BackendType.VXLAN, VXLAN), {}, NAMES)
    assert wanted(Offer(BackendType.VXLAN, VXLAN), said, NAMES) == ({}, ())
    del said[f"{PREFIX}kube-subnet-manager"]
    assert wanted(Offer(BackendType.VXLAN, VXLAN), said, NAMES)[0] == {f"{PREFIX}kube-subnet-manager": "true"}


def test_another_prefix() -> None:
    names = AnnotationNames("example.org/net-")
    said, _ = wanted(Offer(BackendType.VXLAN, VXLAN), {}, names)
    assert "example.org/net-kube-subnet-manager" in said
    lease, why = lease_of("n", said, {Family.IPV4: ip_network("10.42.1.0/24")}, names, [Family.IPV4])
    assert lease is not None and not why


def test_the_chosen_address() -> None:
    found, wrong = addresses_of(
        {f"{PREFIX}node-public-ip": "192.0.2.9", f"{PREFIX}node-public-ipv6": "192.0.2.9"}, NAMES
    )
    assert found == {Family.IPV4: ip_address("192.0.2.9")} and "node-public-ipv6" in wrong[0]


TEXTS = st.text(max_size=30) | st.sampled_from(
    ["true", "vxlan", "wireguard", "host-gw", "null", "{}", "192.0.2.1", "2001:db8::1", "0.0.0.0", "[" * 200,
     '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}', '{"VNI":1e999,"VtepMAC":7}', '{"PublicKey":"","Port":-1}']
)  # fmt: skip
WORDS = st.sampled_from(
    ["kube-subnet-manager", "backend-type", "backend-data", "backend-v6-data", "public-ip", "public-ipv6"]
)
CIDRS = st.lists(
    st.sampled_from(["10.42.1.0/24", "10.42.1.7/24", "fd42:0:0:1::/64", "x", "", "0.0.0.0/0"]) | st.text(), max_size=3
)


@given(st.dictionaries(WORDS.map(lambda word: PREFIX + word), TEXTS), CIDRS)
def test_whatever_a_node_says_ends_in_endpoints_or_in_reasons(annotations: dict[str, str], cidrs: list[str]) -> None:
    annotations.setdefault(f"{PREFIX}kube-subnet-manager", "true")
    subnets, wrong = pod_networks(cidrs, None)
    lease, why = lease_of("n", annotations, subnets, NAMES, BOTH)
    if annotations[f"{PREFIX}kube-subnet-manager"] != "true":
        assert lease is None and not why
    else:
        served = set(lease.endpoints) if lease is not None else set()
        assert served == set(BOTH) or why or wrong


@given(
    st.dictionaries(WORDS.map(lambda word: PREFIX + word), TEXTS),
    st.sampled_from(list(BackendType)),
    st.sets(st.sampled_from(list(Family)), min_size=1),
)
def test_what_is_wanted_is_enough_whatever_stood_there(
    there: dict[str, str], backend: BackendType, families: set[Family]
) -> None:
    reach = {
        family: Reach(
            VXLAN[family].public_ip,
            mac=VXLAN[family].mac if backend is BackendType.VXLAN else "",
            vni=1 if backend is BackendType.VXLAN else 0,
            public_key=KEY if backend is BackendType.WIREGUARD else "",
            port=51820 if backend is BackendType.WIREGUARD else 0,
        )
        for family in families
    }
    offer = Offer(backend, reach)
    after = there | wanted(offer, there, NAMES)[0]
    assert wanted(offer, after, NAMES)[0] == {}
    subnets = {Family.IPV4: ip_network("10.42.1.0/24"), Family.IPV6: ip_network("fd42:0:0:1::/64")}
    told = {family for family in families if backend is not BackendType.ALLOC or family is Family.IPV4}
    lease, _ = lease_of("n", after, {family: subnets[family] for family in told}, NAMES, families)
    assert not told or (
        lease is not None and lease.endpoints == offer.lease("n", {f: subnets[f] for f in told}).endpoints
    )
