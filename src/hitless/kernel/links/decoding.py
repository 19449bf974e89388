"""rtnetlink messages to values.

Promise: what is not ours to understand (a tunnel behind a route, a second next hop) ends in ``other``, so that it never
equals something desired; a message about what nobody asks for is ``None``. Called thousands of times in a row: flat
code, and values are made only of what is of interest.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hitless.kernel.links import wire
from hitless.kernel.messages import attributes, to_text
from hitless.model.families import Network, within
from hitless.model.links import MAIN, Device, DeviceAddress, ForwardingEntry, Neighbour, Route, Vxlan, is_overlay_device
from hitless.model.reading import packed, packed_network

__all__ = ["Scope", "address", "device", "neighbour", "route"]

_U32, _BE16 = struct.Struct("=I"), struct.Struct(">H")
_STRANGE = {
    wire.RTA_MULTIPATH: "several next hops",
    wire.RTA_VIA: "a gateway of another family",
    wire.RTA_ENCAP: "an encapsulation",
    wire.RTA_NH_ID: "a next hop object",
    wire.RTA_METRICS: "metrics",
    wire.RTA_PREFSRC: "a preferred source",
    wire.RTA_SRC: "a source",
}
_STRANGE_VXLAN = {
    wire.VXLAN_GROUP: "a group",
    wire.VXLAN_GROUP6: "a group",
    wire.VXLAN_GPE: "GPE",
    wire.VXLAN_COLLECT_METADATA: "external",
    wire.VXLAN_PROXY: "proxy",
    wire.VXLAN_RSC: "rsc",
    wire.VXLAN_L2MISS: "l2miss",
    wire.VXLAN_L3MISS: "l3miss",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at: devices of flannel's names, and routes into these networks (a host route of a pod is not)."""

    networks: tuple[Network, ...] = ()

    def has(self, to: Network) -> bool:
        """Whether a route leads into one of the networks."""
        return any(within(to, one) for one in self.networks)


def device(payload: bytes, names: Mapping[int, str]) -> Device | None:
    """RTM_NEWLINK; ``names`` for the outer interface of a VXLAN device. In full for devices of flannel's names."""
    if len(payload) < wire.IFINFO.size:
        return None
    family, _, index, flags, _ = wire.IFINFO.unpack_from(payload)
    if family == wire.AF_BRIDGE:  # a bridge's word about its port
        return None
    told = attributes(payload, wire.IFINFO.size)
    info = attributes(told[wire.IFLA_LINKINFO]) if wire.IFLA_LINKINFO in told else {}
    kind, name = to_text(info.get(wire.INFO_KIND, b"")), to_text(told.get(wire.IFLA_IFNAME, b""))
    vxlan = None
    if kind == "vxlan" and is_overlay_device(name):
        vxlan = _vxlan(attributes(info.get(wire.INFO_DATA, b"")), names)
    mac, mtu = told.get(wire.IFLA_ADDRESS, b""), _number(told.get(wire.IFLA_MTU))
    return Device(name, kind, mtu, mac.hex(":"), bool(flags & wire.IFF_UP), vxlan, index=index)


def _vxlan(told: Mapping[int, bytes], names: Mapping[int, str]) -> Vxlan:
    local = told.get(wire.VXLAN_LOCAL) or told.get(wire.VXLAN_LOCAL6)
    link = _number(told.get(wire.VXLAN_LINK))
    # a switch has a byte, or it is there or not
    strange = {words for kind, words in _STRANGE_VXLAN.items() if kind in told and (not told[kind] or any(told[kind]))}
    return Vxlan(
        _number(told.get(wire.VXLAN_ID)),
        _BE16.unpack(told[wire.VXLAN_PORT])[0] if len(told.get(wire.VXLAN_PORT, b"")) == 2 else 0,
        packed(local) if local and any(local) else None,
        names.get(link, f"#{link}") if link else "",
        told.get(wire.VXLAN_LEARNING, b"\0") != b"\0",
        wire.VXLAN_GBP in told,
        ", ".join(sorted(strange)),
    )


def address(payload: bytes, names: Mapping[int, str]) -> DeviceAddress | None:
    """RTM_NEWADDR."""
    if len(payload) < wire.IFADDR.size:
        return None
    _, length, _, _, index = wire.IFADDR.unpack_from(payload)
    told = attributes(payload, wire.IFADDR.size)
    value = told.get(wire.IFA_LOCAL) or told.get(wire.IFA_ADDRESS)
    return DeviceAddress(names.get(index, f"#{index}"), packed(value), length) if value else None


def route(payload: bytes, names: Mapping[int, str], scope: Scope) -> Route | None:
    """RTM_NEWROUTE and RTM_DELROUTE: an entry of the main table that leads into the scope."""
    if len(payload) < wire.RTMSG.size:
        return None
    family, length, _, tos, table, protocol, reach, kind, flags = wire.RTMSG.unpack_from(payload)
    full = 32 if family == 2 else 128
    if table != MAIN or flags & wire.CLONED:
        return None
    told = attributes(payload, wire.RTMSG.size)
    oif = _number(told.get(wire.RTA_OIF))
    name = names.get(oif, f"#{oif}") if oif else ""
    if length == full and not is_overlay_device(name):
        return None  # a pod's own
    to = packed_network(told.get(wire.RTA_DST, bytes(full // 8)), length)
    if not scope.has(to):
        return None
    gateway = told.get(wire.RTA_GATEWAY)
    strange = [words for what, words in _STRANGE.items() if what in told] + (["a TOS"] if tos else [])
    return Route(
        to,
        name,
        packed(gateway) if gateway else None,
        bool(flags & wire.RTNH_F_ONLINK),
        wire.ROUTE_KINDS.get(kind, f"kind {kind}"),
        reach,
        protocol,
        MAIN,
        _number(told.get(wire.RTA_PRIORITY)),
        ", ".join(strange),
    )


def neighbour(payload: bytes, names: Mapping[int, str]) -> Neighbour | ForwardingEntry | None:
    """RTM_NEWNEIGH and RTM_DELNEIGH of a device of flannel's name."""
    if len(payload) < wire.NDMSG.size:
        return None
    family, index, state, flags, _ = wire.NDMSG.unpack_from(payload)
    name = names.get(index, "")
    if not is_overlay_device(name):
        return None
    told = attributes(payload, wire.NDMSG.size)
    mac, to = told.get(wire.NDA_LLADDR, b"").hex(":"), told.get(wire.NDA_DST)
    permanent = bool(state & wire.NUD_PERMANENT)
    if family == wire.AF_BRIDGE:
        if not flags & wire.NTF_SELF or not mac:
            return None
        strange = [words for what, words in _STRANGE_ENTRY.items() if what in told]
        return ForwardingEntry(name, mac, packed(to) if to else None, permanent, ", ".join(strange))
    return Neighbour(name, packed(to), mac, permanent) if to else None


_STRANGE_ENTRY = {
    wire.NDA_PORT: "another port",
    wire.NDA_VNI: "another VNI",
    wire.NDA_IFINDEX: "another interface",
    wire.NDA_NH_ID: "a next hop object",
}


def _number(value: bytes | None) -> int:
    return _U32.unpack(value)[0] if value is not None and len(value) == 4 else 0


def names_of(devices: Sequence[Device]) -> dict[int, str]:
    """The devices' names by their numbers."""
    return {one.index: one.name for one in devices}


def is_underlay(payload: bytes) -> bool:
    """Whether a message is about a route of the main table that is no single host's: other nodes may be behind it."""
    if len(payload) < wire.RTMSG.size:
        return False
    family, length, _, _, table, _, _, _, flags = wire.RTMSG.unpack_from(payload)
    return table == MAIN and not flags & wire.CLONED and length < (32 if family == 2 else 128)
