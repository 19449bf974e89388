"""flannel's JSON of one node: its texts byte for byte, and what is refused of strangers' ones."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.sources.attributes import backend_data, decoded, encoded, endpoint, mac_of
from hitless.sources.lease_source import Offer, Reach

FOUR, SIX = ip_network("10.42.1.0/24"), ip_network("fd42:0:0:1::/64")
KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="


def test_vxlans_data_is_flannels_text() -> None:
    reach = Reach(ip_address("192.168.64.3"), mac="12:c6:65:89:b4:e3", vni=1)
    assert backend_data(BackendType.VXLAN, reach) == '{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}'
    assert backend_data(BackendType.WIREGUARD, Reach(reach.public_ip, public_key=KEY, port=51820)) == (
        '{"PublicKey":"' + KEY + '","Port":51820}'
    )
    assert backend_data(BackendType.HOST_GW, reach) == "null" == backend_data(BackendType.VXLAN, None)


def test_an_etcd_value_is_flannels_text() -> None:
    offer = Offer(BackendType.VXLAN, {Family.IPV4: Reach(ip_address("192.168.64.3"), mac="12:c6:65:89:b4:e3", vni=1)})
    assert encoded(offer) == (
        '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",'
        '"BackendData":{"VNI":1,"VtepMAC":"12:c6:65:89:b4:e3"}}'
    )


@pytest.mark.parametrize("backend", list(BackendType))
def test_what_is_written_is_read_again(backend: BackendType) -> None:
    vxlan, wireguard = backend is BackendType.VXLAN, backend is BackendType.WIREGUARD
    reach = {
        family: Reach(
            ip_address(public),
            mac="12:c6:65:89:b4:e3" if vxlan else "",
            vni=7 if vxlan else 0,
            public_key=KEY if wireguard else "",
            port=51820 if wireguard else 0,
        )
        for family, public in ((Family.IPV4, "192.0.2.9"), (Family.IPV6, "2001:db8::9"))
    }
    offer, subnets = Offer(backend, reach), {Family.IPV4: FOUR, Family.IPV6: SIX}
    lease, why = decoded("n1", encoded(offer), subnets)
    assert lease == offer.lease("n1", subnets) and why == ()


def test_nonsense_in_one_family_leaves_the_other() -> None:
    text = json.dumps(
        {
            "PublicIP": "192.0.2.1",
            "PublicIPv6": "2001:db8::1",
            "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": "12:c6:65:89:b4:e3"},
            "BackendV6Data": {"VNI": 1, "VtepMAC": "33:33:00:00:00:01"},
        }
    )
    lease, why = decoded("n1", text, {Family.IPV4: FOUR, Family.IPV6: SIX})
    mac = "12:c6:65:89:b4:e3"
    assert lease == Lease("n1", BackendType.VXLAN, {Family.IPV4: Endpoint(FOUR, ip_address("192.0.2.1"), mac, 1)})
    assert len(why) == 1 and "ipv6" in why[0] and "multicast" in why[0]


def test_a_wireguard_peer_may_be_reached_by_the_other_family() -> None:
    data = {"PublicKey": KEY, "Port": 51820}
    value = {"PublicIP": "192.0.2.1", "PublicIPv6": None, "BackendType": "wireguard"}
    text = json.dumps(value | {"BackendData": data, "BackendV6Data": data})
    lease, why = decoded("n1", text, {Family.IPV4: FOUR, Family.IPV6: SIX})
    assert lease is not None and why == ()
    assert {str(one.public_ip) for one in lease.endpoints.values()} == {"192.0.2.1"}


@pytest.mark.parametrize(
    ("mac", "said"),
    [("12-C6-65-89-B4-E3", ""), ("12c6.6589.b4e3", ""), ("00:00:00:00:00:00", "zero"),
     ("01:00:5e:00:00:01", "multicast"),
     ("12:c6:65:89:b4", "not a MAC"), ("12:c6-65:89:b4:e3", "not a MAC"), (None, "not a MAC"), (7, "not a MAC"),
     ("12:c6:65:89:b4:e3:00:11", "not a MAC"), ("１2:c6:65:89:b4:e3", "not a MAC")],
)  # fmt: skip
def test_macs(mac: object, said: str) -> None:
    if not said:
        assert mac_of(mac, "n1") == "12:c6:65:89:b4:e3"
        return
    with pytest.raises(InputError, match=said):
        mac_of(mac, "n1")


@pytest.mark.parametrize("public", ["0.0.0.0", "224.0.0.1", "127.0.0.1"])
def test_an_address_that_no_node_has_is_refused(public: str) -> None:
    with pytest.raises(InputError, match="not a node address"):
        endpoint(BackendType.HOST_GW, Family.IPV4, FOUR, ip_address(public), None, "n1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["PublicIP", "PublicIPv6", "BackendType", "BackendData", "BackendV6Data"])
WORDS = st.fixed_dictionaries(
    {"VNI": JSON, "VtepMAC": JSON | st.just("12:c6:65:89:b4:e3"), "PublicKey": JSON | st.just(KEY)}
)
NEAR = (
    WORDS
    | st.sampled_from(["vxlan", "wireguard", "host-gw", "alloc", "udp", "192.0.2.1", "::1", "2001:db8::7", "0.0.0.0"])
    | st.fixed_dictionaries(
        {"VNI": JSON, "VtepMAC": JSON | st.just("12:c6:65:89:b4:e3"), "PublicKey": JSON | st.just(KEY)}
    )
)


@pytest.mark.slow
@given(st.dictionaries(FIELDS, NEAR | JSON).map(json.dumps) | st.text() | st.binary())
def test_whatever_stands_there_ends_in_a_lease_or_a_reason(text: str | bytes) -> None:
    try:
        lease, why = decoded("n1", text, {Family.IPV4: FOUR, Family.IPV6: SIX})
    except InputError:
        return
    assert lease is not None or why
    for one in lease.endpoints.values() if lease is not None else ():
        assert not (one.public_ip.is_unspecified or one.public_ip.is_multicast)
        assert "\n" not in one.mac + one.public_key
