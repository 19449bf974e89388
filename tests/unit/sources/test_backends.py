"""The Backend of net-conf.json: what is served, what is refused and with which advice."""

from __future__ import annotations

import base64
import json

import pytest

from hitless.errors import InputError
from hitless.model.overlay import Alloc, HostGw, VxlanConfig, WireguardConfig
from hitless.sources.backends import backend_config
from hitless.sources.netconf import parse_netconf

KEY = base64.b64encode(bytes(range(32))).decode()


def config(**backend: object) -> object:
    return backend_config(parse_netconf(json.dumps({"Network": "10.42.0.0/16", "Backend": backend})))


def test_what_is_served() -> None:
    assert config(Type="vxlan") == VxlanConfig()
    assert config(Type="VXLAN", vni=7, PORT=4789, DirectRouting=True, GRO=False) == VxlanConfig(
        vni=7, port=4789, direct_routing=True, gro=False
    )
    assert config(Type="wireguard", Mode="auto", ListenPort=7, PSK=KEY, PersistentKeepaliveInterval=25) == (
        WireguardConfig(7, 51821, "auto", 0, KEY, 25)
    )
    assert config(Type="host-gw") == HostGw() and config(Type="alloc") == Alloc()


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ({"Type": "udp"}, "vxlan"),
        ({"Type": "ipip"}, "DirectRouting"),
        ({"Type": "gce"}, "--overlay=false"),
        ({"Type": "wireguard", "PSK": "secret"}, "PSK: is not a key"),
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


def test_a_preshared_key_is_shown_by_no_error_and_no_value() -> None:
    with pytest.raises(InputError) as refused:
        config(Type="wireguard", PSK="secret")
    assert "secret" not in str(refused.value)
    assert KEY not in repr(config(Type="wireguard", PSK=KEY))
