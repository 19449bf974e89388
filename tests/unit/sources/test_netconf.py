"""net-conf.json is read whole and refused whole; subnet.env survives a round trip."""

from __future__ import annotations

import contextlib
import json
import tempfile
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family
from hitless.sources import parse_netconf, read_netconf, snapshot_from
from hitless.sources.subnets import read_subnet_file, render_subnet_file, write_subnet_file

GOOD: dict[str, Any] = {"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}


def parse(**changes: Any) -> object:
    return parse_netconf(json.dumps({**GOOD, **changes}))


def test_rke2s_file_is_understood() -> None:
    text = (
        '{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"2001:cafe:42::/56",'
        '"Backend":{"Type":"vxlan","MTU":1450}}'
    )
    conf = parse_netconf(text)
    assert conf.networks == {
        Family.IPV4: ip_network("10.42.0.0/16"),
        Family.IPV6: ip_network("2001:cafe:42::/56"),
    }
    assert conf.overlay == "vxlan" and conf.mtu == 1450 and not conf.nftables


def test_keys_are_matched_as_go_does_and_unknown_ones_are_left_alone() -> None:
    conf = parse_netconf('{"network": "10.42.0.0/16", "backend": {"type": "VXLAN"}, "Something": {"new": 1}}')
    assert conf.networks[Family.IPV4] == ip_network("10.42.0.0/16") and conf.overlay == "vxlan"


def test_ipv6_alone() -> None:
    conf = parse_netconf(
        '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd42::/48", "EnableNFTables": true}'
    )
    assert list(conf.networks) == [Family.IPV6] and conf.nftables


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ["not JSON"]),
        ("{", ["line 1", "not JSON"]),
        ("[]", ["list", "one JSON object"]),
        ("[" * 100000, ["not JSON"]),
        ("{}", ["Network", "missing", "EnableIPv4"]),
        ('{"Network": "10.42.0.0"}', ["Network", "10.42.0.0/16"]),
        ('{"Network": "10.42.0.0/33"}', ["Network", "is not a network"]),
        ('{"Network": "fd42::/48"}', ["Network", "other family"]),
        ('{"Network": "0.0.0.0/0"}', ["Network", "everything"]),
        ('{"Network": 5}', ["Network", "5"]),
        ('{"Network": "10.42.0.0/16", "EnableIPv6": true}', ["IPv6Network", "missing"]),
        ('{"EnableIPv4": false}', ["neither family"]),
        ('{"Network": "10.42.0.0/16", "EnableIPv6": "yes"}', ["EnableIPv6", "true or false"]),
        ('{"Network": "10.42.0.0/16", "Backend": "vxlan"}', ["Backend", "Type"]),
        ('{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlam"}}', ["Backend.Type", "vxlam", "vxlan"]),
        ('{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan", "MTU": -1}}', ["Backend.MTU"]),
        ('{"Network": "10.42.0.0/16", "SubnetLen": "24"}', ["SubnetLen", "'24'", "whole number"]),
        ('{"Network": "10.42.0.0/16", "SubnetLen": -1}', ["SubnetLen", "whole number"]),
        ('{"Network": "10.42.0.0/16", "SubnetLen": true}', ["SubnetLen", "whole number"]),
        ('{"Network": "10.42.0.0/16", "SubnetMin": "10.43.0"}', ["SubnetMin", "is not an address"]),
        ('{"Network": "10.42.0.0/16\\nCOMMIT"}', ["Network", "is not a network"]),
        ('{"Network": "10.42.0.0/255.255.0.0"}', ["Network", "is not a network"]),
        ('{"Network": "٣0.42.0.0/16"}', ["Network", "is not a network"]),
        ('{"EnableIPv6": true, "Network": "10.42.0.0/16", "IPv6Network": "fd42::%1/48"}', ["IPv6Network", "zone"]),
        (
            '{"EnableIPv6": true, "Network": "10.42.0.0/16", "IPv6Network": "fd42::%1\\nCOMMIT/48"}',
            ["is not a network"],
        ),
        ('{"Network": "10.42.0.0/16", "SubnetMax": "fd00::"}', ["SubnetMax"]),
    ],
)
def test_wrong_files_are_refused_with_file_field_and_expectation(text: str, named: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_netconf(text, where="/etc/net-conf.json")
    for word in (*named, "/etc/net-conf.json", "expected"):
        assert word in str(caught.value)


K3S = """{
  "Network": "%s", "EnableIPv6": %s, "EnableIPv4": %s, "IPv6Network": "%s",
  "Backend": {"Type": "vxlan"}
}"""


@pytest.mark.parametrize(
    ("text", "networks", "unused"),
    [
        (K3S % ("10.42.0.0/16", "false", "true", "::/0"), ["10.42.0.0/16"], ["IPv6Network: EnableIPv6 is off"]),
        (K3S % ("0.0.0.0/0", "true", "false", "fd42::/56"), ["fd42::/56"], ["Network: EnableIPv4 is off"]),
        (K3S % ("10.42.0.0/16", "false", "true", ""), ["10.42.0.0/16"], []),
        ('{"Network": "10.44.0.0/22", "SubnetLen": 23}', ["10.44.0.0/22"], ["SubnetLen: "]),
        ('{"Network": "10.44.0.0/24", "SubnetLen": 24}', ["10.44.0.0/24"], ["SubnetLen: "]),
        ('{"Network": "10.44.0.0/30"}', ["10.44.0.0/30"], []),
        ('{"Network": "10.42.7.9/16"}', ["10.42.0.0/16"], []),
        ('{"Network": "10.42.0.0/16", "SubnetLen": 0, "SubnetMin": null}', ["10.42.0.0/16"], []),
        (
            '{"Network": "10.42.0.0/16", "SubnetMin": "10.99.0.0", "SubnetMax": "10.42.3.7"}',
            ["10.42.0.0/16"],
            ["SubnetMin: ", "SubnetMax: "],
        ),
        (
            '{"Network": "10.42.0.0/16", "IPv6SubnetLen": "no", "IPv6SubnetMin": 7, "IPv6Network": ["no"]}',
            ["10.42.0.0/16"],
            ["IPv6Network: EnableIPv6", "IPv6SubnetLen: EnableIPv6", "IPv6SubnetMin: EnableIPv6"],
        ),
        (
            '{"Network": "10.42.0.0/16", "Backend": {"Type": "host-gw", "MTU": "no"}}',
            ["10.42.0.0/16"],
            ["Backend.MTU: the backend host-gw has none"],
        ),
    ],
)
def test_what_flanneld_takes_is_taken_and_what_has_no_effect_is_named(
    text: str, networks: list[str], unused: list[str]
) -> None:
    conf = parse_netconf(text)
    assert [str(network) for network in conf.networks.values()] == networks
    assert len(conf.unused) == len(unused)
    assert all(told.startswith(wanted) for told, wanted in zip(conf.unused, unused, strict=True))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json"):
        read_netconf(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"binary\.json"):
        read_netconf(tmp_path / "binary.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Network", "Backend", "Type", "EnableIPv6", "IPv6Network", "SubnetLen", "SubnetMin"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_only_our_error_escapes(data: object) -> None:
    with contextlib.suppress(InputError):
        parse_netconf(json.dumps(data))


def snapshot(*subnets: str, **changes: Any) -> object:
    conf = parse_netconf(json.dumps({**GOOD, **changes}))
    return snapshot_from(
        conf,
        [ip_network(one) for one in subnets],
        masquerade=True,
        random_fully=True,
        forward=True,
        origin="--node-subnet",
    )


@pytest.mark.parametrize(
    ("subnets", "named"),
    [
        ([], ["no ipv4 subnet"]),
        (["10.43.1.0/24"], ["outside the network", "10.42.0.0/16"]),
        (["10.42.1.0/24", "10.42.2.0/24"], ["two ipv4 subnets"]),
        (["10.0.0.0/8"], ["outside the network"]),
    ],
)
def test_a_subnet_that_does_not_fit_is_refused(subnets: list[str], named: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        snapshot(*subnets)
    for word in (*named, "--node-subnet"):
        assert word in str(caught.value)


def test_a_subnet_of_a_family_that_is_off_is_ignored() -> None:
    assert snapshot("10.42.1.0/24", "fd42:0:0:1::/64") == snapshot("10.42.1.0/24")


def test_the_subnet_file_is_flannels_and_is_written_only_when_it_changes(tmp_path: Path) -> None:
    conf = parse_netconf(json.dumps({**GOOD, "EnableIPv6": True, "IPv6Network": "fd42::/48"}))
    made = snapshot_from(
        conf, [ip_network("10.42.3.0/24"), ip_network("fd42:0:0:3::/64")],
        masquerade=True, random_fully=True, forward=True, origin="x",
    )  # fmt: skip
    text = render_subnet_file(made, 1450)
    assert text == (
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_IPV6_NETWORK=fd42::/48\n"
        "FLANNEL_IPV6_SUBNET=fd42:0:0:3::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    )
    path = tmp_path / "run" / "flannel" / "subnet.env"
    assert read_subnet_file(path) is None
    assert write_subnet_file(path, text)
    assert not write_subnet_file(path, text)
    found = read_subnet_file(path)
    assert found is not None and found.mtu == 1450
    assert found.subnets == (ip_network("10.42.3.0/24"), ip_network("fd42:0:0:3::/64"))


@given(st.text(max_size=60))
def test_a_broken_subnet_file_is_refused_with_its_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "subnet.env")
        path.write_text(text, encoding="utf-8")
        try:
            read_subnet_file(path)
        except InputError as error:
            assert str(path) in str(error)
