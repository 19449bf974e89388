"""The ``Backend`` of net-conf.json: which overlay, and its fields, by flannel's names and defaults.

Problem: a wrong VNI or port must not reach the kernel, and a backend that is not served must say what to use instead.
Promise: every field that the backend knows is checked for its kind and range, ``InputError`` names file, field and what
was expected; unknown fields are ignored, as flannel does. Next stage: ``hitless.desired.overlay``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.curve25519 import is_key
from hitless.model.overlay import Alloc, BackendConfig, HostGw, VxlanConfig, WireguardConfig
from hitless.sources.netconf import NetConf

__all__ = ["backend_config"]

_INSTEAD = {
    "udp": "vxlan: udp (flannel's default where Backend is missing) copies each packet through a process",
    "ipip": "vxlan with DirectRouting, or host-gw: the same plain routes, without a tunnel where nodes share a network",
    "ipsec": "wireguard",
}
_MODES = ("separate", "auto", "ipv4", "ipv6")


def backend_config(netconf: NetConf) -> BackendConfig:
    """The overlay that net-conf.json configures."""
    fields = _Fields(netconf.backend, f"{netconf.where}: Backend")
    match netconf.overlay:
        case "vxlan":
            return VxlanConfig(
                vni=fields.number("VNI", 1, 1, (1 << 24) - 1),
                port=fields.number("Port", 8472, 0, 65535) or 8472,
                mtu=netconf.mtu or 0,
                gbp=fields.switch("GBP"),
                learning=fields.switch("Learning"),
                direct_routing=fields.switch("DirectRouting"),
                tx_checksum=fields.choice("TxChecksumOffload"),
                gro=fields.choice("GRO"),
            )
        case "host-gw":
            return HostGw()
        case "wireguard":
            mode = fields.text("Mode", "separate").lower()
            if mode not in _MODES:
                raise InputError(reading.shown(mode), where=fields.name("Mode"), expected=", ".join(_MODES))
            return WireguardConfig(
                port=fields.number("ListenPort", 51820, 1, 65535),
                port_v6=fields.number("ListenPortV6", 51821, 1, 65535),
                mode=mode,
                mtu=netconf.mtu or 0,
                preshared_key=fields.key("PSK"),
                keepalive=fields.number("PersistentKeepaliveInterval", 0, 0, 65535),
            )
        case "alloc":
            return Alloc()
    raise InputError(
        f"{netconf.overlay} is not served as an overlay here",
        where=fields.name("Type"),
        expected=_INSTEAD.get(netconf.overlay, "vxlan, host-gw, wireguard or alloc"),
        remedy="or run the agent for the rules alone, beside flanneld: --overlay=false",
    )


class _Fields:
    """Fields by flannel's names, which Go matches without regard to case."""

    def __init__(self, values: Mapping[str, object], where: str) -> None:
        self._values, self._where = values, where

    def name(self, field: str) -> str:
        return f"{self._where}.{field}"

    def number(self, field: str, default: int, least: int, most: int) -> int:
        value = self._values.get(field.lower())
        if value is None:
            return default
        if isinstance(value, str):  # Go's decoder takes a JSON number only
            expected = f"a whole number from {least} to {most}, without quotes"
            raise InputError(reading.shown(value), where=self.name(field), expected=expected)
        found = reading.whole(value, where=self.name(field), most=most) if value else default
        return reading.whole(found, where=self.name(field), least=least, most=most)

    def switch(self, field: str) -> bool:
        return bool(self.choice(field))

    def choice(self, field: str) -> bool | None:
        value = self._values.get(field.lower())
        if value is not None and not isinstance(value, bool):
            raise InputError(reading.shown(value), where=self.name(field), expected="true or false")
        return value

    def text(self, field: str, default: str) -> str:
        value = self._values.get(field.lower())
        if value is not None and not isinstance(value, str):
            raise InputError(reading.shown(value), where=self.name(field), expected="a text")
        return value or default

    def key(self, field: str) -> str:
        """A key in base64, or nothing. It is a secret: no error shows it."""
        value = self.text(field, "")
        if value and not is_key(value):
            raise InputError("is not a key", where=self.name(field), expected="32 bytes in base64, as wg genpsk prints")
        return value
