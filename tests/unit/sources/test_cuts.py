"""How networks are cut: flannel's defaults, its refusals, and what is free."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family, Network
from hitless.sources.cuts import Cutting, cut
from hitless.sources.netconf import parse_netconf


@pytest.mark.parametrize(
    ("network", "first", "last"),
    [
        ("10.42.0.0/16", "10.42.1.0/24", "10.42.255.0/24"),
        ("10.42.0.0/22", "10.42.1.0/24", "10.42.3.0/24"),
        ("10.42.0.0/24", "10.42.0.64/26", "10.42.0.192/26"),
        ("fd42::/48", "fd42:0:0:1::/64", "fd42:0:0:ffff::/64"),
        ("fd42::/63", "fd42:0:0:0:8000::/65", "fd42:0:0:1:8000::/65"),
    ],
)
def test_flannels_defaults(network: str, first: str, last: str) -> None:
    found = cut(ip_network(network), Cutting(), "net-conf.json")
    assert str(next(found.free([]))) == str(ip_network(first))
    assert found.fits(ip_network(last)) and found.last == int(ip_network(last).network_address)


@pytest.mark.parametrize(
    ("network", "cutting", "field"),
    [
        ("10.42.0.0/29", Cutting(), "Network"),
        ("10.42.0.0/16", Cutting(31), "SubnetLen"),
        ("10.42.0.0/16", Cutting(17), "SubnetLen"),
        ("10.42.0.0/16", Cutting(24, ip_address("10.43.0.0")), "SubnetMin"),
        ("10.42.0.0/16", Cutting(24, ip_address("10.42.1.1")), "SubnetMin"),
        ("10.42.0.0/16", Cutting(24, None, ip_address("10.42.9.128")), "SubnetMax"),
        ("10.42.0.0/16", Cutting(24, ip_address("10.42.9.0"), ip_address("10.42.8.0")), "SubnetMin"),
        ("fd42::/125", Cutting(), "IPv6Network"),
    ],
)
def test_what_flannel_refuses_is_refused_with_the_field(network: str, cutting: Cutting, field: str) -> None:
    with pytest.raises(InputError, match=f"net-conf.json: {field}"):
        cut(ip_network(network), cutting, "net-conf.json")


def test_the_file_says_how_and_then_nothing_is_without_effect() -> None:
    text = '{"Network":"10.42.0.0/16","SubnetLen":26,"SubnetMin":"10.42.16.0","Backend":{"Type":"vxlan","VNI":7}}'
    netconf = parse_netconf(text, cuts=True)
    assert netconf.unused == () and netconf.cuttings[Family.IPV4] == Cutting(26, ip_address("10.42.16.0"))
    assert netconf.backend["vni"] == 7
    assert len(parse_netconf(text).unused) == 2


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([22, 24, 26, 28])), max_size=12))
def test_what_is_free_overlaps_nothing_and_nothing_free_is_left_out(taken: list[tuple[int, int]]) -> None:
    found = cut(ip_network("10.42.0.0/20"), Cutting(24), "net-conf.json")
    spans = [ip_network((0x0A2A0000 + (at << 4 << 4), length), strict=False) for at, length in taken]
    free = list(islice(found.free(spans), 100))
    every = [ip_network((0x0A2A0000 + (at << 8), 24)) for at in range(1, 16)]
    assert free == [one for one in every if not any(meet(one, other) for other in spans)]


def meet(one: Network, other: Network) -> bool:
    return int(one[0]) <= int(other[-1]) and int(other[0]) <= int(one[-1])
