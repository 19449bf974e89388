"""rtnetlink messages to values.

Promise: what has no field in a value (a tunnel behind a route, a second next hop) is in its ``other``, so that it never
equals something desired. Thousands of messages are decoded in a row: a filter sees the header (of routes the attributes
too) before a value is made. A link whose name is not known is named by its number: ``#7``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hitless.kernel.messages import attributes, to_text
from hitless.kernel.rtnetlink import formats
from hitless.model.links import Device, DeviceAddress, ForwardingEntry, Neighbour, Route, Vxlan, is_overlay_device
from hitless.model.reading import packed, packed_network

__all__ = [
    "NeighbourFilter",
    "RouteFilter",
    "RouteMessage",
    "address",
    "device",
    "link_name",
    "neighbour",
    "route",
    "route_message",
]

_OIF, _GATEWAY = formats.RTA_OIF, formats.RTA_GATEWAY
_U32, _BE16 = struct.Struct("=I"), struct.Struct(">H")
_OTHER_OF_ROUTE = {
    formats.RTA_MULTIPATH: "several next hops",
    formats.RTA_VIA: "a gateway of another family",
    formats.RTA_ENCAP: "an encapsulation",
    formats.RTA_NH_ID: "a next hop object",
    formats.RTA_METRICS: "metrics",
    formats.RTA_PREFSRC: "a preferred source",
    formats.RTA_SRC: "a source",
}
_OTHER_OF_VXLAN = {
    formats.VXLAN_GROUP: "a group",
    formats.VXLAN_GROUP6: "a group",
    formats.VXLAN_GPE: "GPE",
    formats.VXLAN_COLLECT_METADATA: "external",
    formats.VXLAN_PROXY: "proxy",
    formats.VXLAN_RSC: "rsc",
    formats.VXLAN_L2MISS: "l2miss",
    formats.VXLAN_L3MISS: "l3miss",
}
_OTHER_OF_ENTRY = {
    formats.NDA_PORT: "another port",
    formats.NDA_VNI: "another VNI",
    formats.NDA_IFINDEX: "another interface",
    formats.NDA_NH_ID: "a next hop object",
}


def _number(value: bytes | None) -> int:
    return _U32.unpack(value)[0] if value is not None and len(value) == 4 else 0


def _name(names: Mapping[int, str], index: int) -> str:
    return (names.get(index) or f"#{index}") if index else ""


# --- links


def link_name(payload: bytes) -> tuple[int, str]:
    """The number and the name in RTM_NEWLINK; number 0: the message is cut short."""
    if len(payload) < formats.IFINFO.size:
        return 0, ""
    index: int = formats.IFINFO.unpack_from(payload)[2]
    return index, to_text(attributes(payload, formats.IFINFO.size).get(formats.IFLA_IFNAME, b""))


def device(payload: bytes, names: Mapping[int, str]) -> Device | None:
    """RTM_NEWLINK and RTM_DELLINK; VXLAN attributes only of devices of flannel's names. ``names`` are the names of the
    bridge, the VRF or the outer interface that the message refers to by number."""
    if len(payload) < formats.IFINFO.size:
        return None
    family, _, index, flags, _ = formats.IFINFO.unpack_from(payload)
    if family == formats.AF_BRIDGE:  # a bridge reports a port
        return None
    found = attributes(payload, formats.IFINFO.size)
    info = attributes(found[formats.IFLA_LINKINFO]) if formats.IFLA_LINKINFO in found else {}
    kind, name = to_text(info.get(formats.INFO_KIND, b"")), to_text(found.get(formats.IFLA_IFNAME, b""))
    vxlan = None
    if kind == "vxlan" and is_overlay_device(name):
        vxlan = _vxlan(attributes(info.get(formats.INFO_DATA, b"")), names)
    up = bool(flags & formats.IFF_UP)
    return Device(
        name,
        kind,
        _number(found.get(formats.IFLA_MTU)),
        found.get(formats.IFLA_ADDRESS, b"").hex(":"),
        up,
        vxlan,
        index=index,
        carrier=up and bool(flags & formats.IFF_LOWER_UP),
        master=_name(names, _number(found.get(formats.IFLA_MASTER))),
        group=_number(found.get(formats.IFLA_GROUP)),
    )


def _vxlan(found: Mapping[int, bytes], names: Mapping[int, str]) -> Vxlan:
    local = found.get(formats.VXLAN_LOCAL) or found.get(formats.VXLAN_LOCAL6)
    # a switch is one byte, or has no value and counts by being there
    other = {text for kind, text in _OTHER_OF_VXLAN.items() if kind in found and (not found[kind] or any(found[kind]))}
    return Vxlan(
        _number(found.get(formats.VXLAN_ID)),
        _BE16.unpack(found[formats.VXLAN_PORT])[0] if len(found.get(formats.VXLAN_PORT, b"")) == 2 else 0,
        packed(local) if local and any(local) else None,
        _name(names, _number(found.get(formats.VXLAN_LINK))),
        found.get(formats.VXLAN_LEARNING, b"\0") != b"\0",
        formats.VXLAN_GBP in found,
        ", ".join(sorted(other)),
    )


# --- addresses


def address(payload: bytes, names: Mapping[int, str]) -> DeviceAddress | None:
    """RTM_NEWADDR and RTM_DELADDR."""
    if len(payload) < formats.IFADDR.size:
        return None
    _, length, flags, scope, index = formats.IFADDR.unpack_from(payload)
    found = attributes(payload, formats.IFADDR.size)
    value = found.get(formats.IFA_LOCAL) or found.get(formats.IFA_ADDRESS)
    if not value:
        return None
    secondary = bool(flags & formats.IFA_F_SECONDARY)
    return DeviceAddress(_name(names, index), packed(value), length, scope=scope, secondary=secondary)


# --- routes


class RouteMessage(NamedTuple):
    """RTM_NEWROUTE and RTM_DELROUTE before a value is made of it: struct rtmsg, and the attributes. ``kind``:
    RTN_UNICAST and so on."""

    family: int
    length: int
    source_length: int
    tos: int
    low_table: int
    protocol: int
    scope: int
    kind: int
    flags: int
    found: Mapping[int, bytes]

    @property
    def table(self) -> int:
        """The number of the table, also where it is above 255."""
        return _number(self.found.get(formats.RTA_TABLE)) or self.low_table

    @property
    def oif(self) -> int:
        """The number of the interface; 0: several, or none."""
        value = self.found.get(_OIF)
        return _U32.unpack(value)[0] if value is not None and len(value) == 4 else 0

    @property
    def host(self) -> bool:
        """Whether it leads to a single address."""
        return self.length == (32 if self.family == formats.AF_INET else 128)

    @property
    def cached(self) -> bool:
        """What the kernel has learnt about one destination (a path MTU, a redirect); no entry of a table."""
        return bool(self.flags & formats.CLONED)

    @property
    def hidden_gateway(self) -> bool:
        """Whether there is, or may be, a gateway elsewhere than in RTA_GATEWAY."""
        found = self.found
        several = formats.RTA_MULTIPATH in found or formats.RTA_VIA in found
        # with net.ipv4.nexthop_compat_mode=0 nothing but the number of the next hop object is reported
        return several or (formats.RTA_NH_ID in found and formats.RTA_OIF not in found)

    @property
    def by_gateway(self) -> bool:
        """Whether it leads to a gateway, as far as is known."""
        return _GATEWAY in self.found or self.hidden_gateway


RouteFilter = Callable[[RouteMessage], bool]
"""Whether a value is to be made of it."""


def route_message(payload: bytes) -> RouteMessage | None:
    """The header and the attributes; ``None``: the message is cut short."""
    if len(payload) < formats.RTMSG.size:
        return None
    fields = *formats.RTMSG.unpack_from(payload), attributes(payload, formats.RTMSG.size)
    return tuple.__new__(RouteMessage, fields)  # half of the time of RouteMessage(...)


def route(message: RouteMessage, names: Mapping[int, str]) -> Route:
    """A route, of any table and kind."""
    found = message.found
    full = 4 if message.family == formats.AF_INET else 16
    gateway = found.get(formats.RTA_GATEWAY)
    other = "a TOS" if message.tos else ""
    if not _OTHER_OF_ROUTE.keys().isdisjoint(found):
        other = ", ".join([text for kind, text in _OTHER_OF_ROUTE.items() if kind in found] + [other] * bool(other))
    return Route(
        packed_network(found.get(formats.RTA_DST, bytes(full)), message.length),
        _name(names, message.oif),
        packed(gateway) if gateway else None,
        bool(message.flags & formats.RTNH_F_ONLINK),
        formats.ROUTE_KINDS.get(message.kind) or f"kind {message.kind}",
        message.scope,
        message.protocol,
        message.table,
        _number(found.get(formats.RTA_PRIORITY)),
        other,
        bool(other) and message.hidden_gateway,
    )


# --- neighbours and forwarding entries

NeighbourFilter = Callable[[int, int], bool]
"""Whether a value is to be made of an entry behind the link of this number, in this state (NUD_…)."""


def neighbour(
    payload: bytes, names: Mapping[int, str], wanted: NeighbourFilter, *, ages: bool = False
) -> Neighbour | ForwardingEntry | None:
    """RTM_NEWNEIGH and RTM_DELNEIGH; of forwarding tables the VXLAN device's own entries. ``ages``: with the age, which
    is a number more to keep for each."""
    if len(payload) < formats.NDMSG.size:
        return None
    family, index, state, flags, _ = formats.NDMSG.unpack_from(payload)
    if not wanted(index, state):
        return None
    found = attributes(payload, formats.NDMSG.size)
    mac, to = found.get(formats.NDA_LLADDR, b"").hex(":"), found.get(formats.NDA_DST)
    permanent, name = bool(state & formats.NUD_PERMANENT), _name(names, index)
    if family == formats.AF_BRIDGE:
        if not flags & formats.NTF_SELF or not mac:
            return None
        other = [text for kind, text in _OTHER_OF_ENTRY.items() if kind in found]
        return ForwardingEntry(name, mac, packed(to) if to else None, permanent, ", ".join(other))
    if not to:
        return None
    cache = found.get(formats.NDA_CACHEINFO, b"") if ages else b""
    age = formats.CACHEINFO.unpack_from(cache)[0] if len(cache) >= formats.CACHEINFO.size else 0
    return Neighbour(name, packed(to), mac, permanent, age)
