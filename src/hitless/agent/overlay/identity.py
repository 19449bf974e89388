"""What this node publishes about itself: the MAC of its VXLAN device, or the public key of its WireGuard devices.

Problem: a node whose MAC changes at each start makes all its peers change their entries; a MAC that the kernel assigns
is lost with the device. Promise: the MAC in the source of leases is kept, else that of the existing device, else one is
created as flannel does (random, locally administered). Next stage: the source publishes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace

from hitless.model.families import Family
from hitless.model.leases import BackendType, Lease
from hitless.model.links import LinkState
from hitless.model.overlay import Alloc, BackendConfig, HostGw, Outer, VxlanConfig, WireguardConfig
from hitless.sources.lease_source import Offer, Reach

__all__ = ["backend_type", "is_unicast", "moved", "offer"]


def backend_type(backend: BackendConfig) -> BackendType:
    """flannel's name of the backend."""
    match backend:
        case VxlanConfig():
            return BackendType.VXLAN
        case HostGw():
            return BackendType.HOST_GW
        case WireguardConfig():
            return BackendType.WIREGUARD
        case Alloc():
            return BackendType.ALLOC


def is_unicast(mac: str) -> bool:
    """Whether a hardware address can be a device's."""
    return len(mac) == 17 and not int(mac[:2], 16) & 1 and any(character not in "0:" for character in mac)


def offer(
    backend: BackendConfig,
    families: Collection[Family],
    outer: Mapping[Family, Outer],
    stored: Lease | None,
    observed: LinkState,
    public_key: str = "",
) -> Offer:
    """What this node publishes. ``stored``: its lease as the source holds it, of an earlier start; ``public_key``: that
    of its WireGuard devices."""
    reach: dict[Family, Reach] = {}
    for family in families:
        public = outer[family].external
        match backend:
            case VxlanConfig(vni=vni):
                name = f"flannel.{vni}" if family is Family.IPV4 else f"flannel-v6.{vni}"
                reach[family] = Reach(public, _mac(family, name, stored, observed), vni)
            case WireguardConfig():
                second = family is Family.IPV6 and backend.mode == "separate"
                port = backend.port_v6 if second else backend.port
                reach[family] = Reach(public, public_key=public_key, port=port)
            case _:
                reach[family] = Reach(public)
    return Offer(backend_type(backend), reach)


def moved(offer: Offer, outer: Mapping[Family, Outer]) -> Offer:
    """The same node at another address: its MAC or key stays."""
    reach = {
        family: replace(one, public_ip=outer[family].external if family in outer else one.public_ip)
        for family, one in offer.reach.items()
    }
    return replace(offer, reach=reach)


def _mac(family: Family, name: str, stored: Lease | None, observed: LinkState) -> str:
    endpoint = stored.endpoints.get(family) if stored is not None else None
    if endpoint is not None and is_unicast(endpoint.mac):
        return endpoint.mac
    device = observed.device(name)
    if device is not None and device.kind == "vxlan" and is_unicast(device.mac):
        return device.mac
    made = bytearray(secrets.token_bytes(6))
    made[0] = made[0] & 0xFE | 0x02  # unicast, locally administered
    return made.hex(":")
