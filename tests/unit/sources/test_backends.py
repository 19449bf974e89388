"""The Backend of net-conf.json: what is served, what is refused and with which advice."""

from __future__ import annotations

import json

import pytest

from hitless.errors import InputError
from hitless.model.overlay import Alloc, HostGw, VxlanConfig
from hitless.sources.backends import backend_config
from hitless.sources.netconf import parse_netconf


def config(**backend: object) -> object:
    return backend_config(parse_netconf(json.dumps({"Network": "10.42.0.0/16", "Backend": backend})))


def test_what_is_served() -> None:
    assert config(Type="vxlan") == VxlanConfig()
    assert config(Type="VXLAN", vni=7, PORT=4789, DirectRouting=True, GRO=False) == VxlanConfig(
        vni=7, port=4789, direct_routing=True, gro=False
    )
    assert config(Type="host-gw") == HostGw() and config(Type="alloc") == Alloc()


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ({"Type": "udp"}, "vxlan"),
        ({"Type": "ipip"}, "DirectRouting"),
        ({"Type": "gce"}, "--overlay=false"),
        ({"Type": "wireguard"}, "not written by this version"),
        ({"Type": "wireguard", "Mode": "both"}, "separate"),
        ({"Type": "vxlan", "VNI": 1 << 24}, "VNI"),
        ({"Type": "vxlan", "VNI": "1"}, "without quotes"),
        ({"Type": "vxlan", "Port": 65536}, "Port"),
        ({"Type": "vxlan", "DirectRouting": "yes"}, "true or false"),
    ],
)
def test_what_is_refused_says_field_and_expectation(backend: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        config(**backend)
