"""Values to rtnetlink requests.

Promise: one change is one request, ``(type, flags, payload)``; what is replaced is replaced in one step, so that there
is no moment without it; a removal names the whole object, so that another one in its place is not removed. Values refer
to devices by name, the kernel by number: ``index`` gives the number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from hitless.errors import InputError
from hitless.kernel.messages import attribute, be16, nested, text, u32
from hitless.kernel.netlink import CREATE, EXCL, REPLACE
from hitless.kernel.rtnetlink import formats
from hitless.model.families import Family, family_of
from hitless.model.links import (
    Device,
    DeviceAddress,
    ForwardingEntry,
    LinkObject,
    Neighbour,
    Route,
    Vxlan,
)

__all__ = ["add", "change_device", "remove", "rename"]

Request = tuple[int, int, bytes]
Index = Callable[[str], int]
_U8 = struct.Struct("=B")


def add(value: LinkObject, index: Index) -> Request:
    """Add the object; an entry replaces what has the same key."""
    match value:
        case Device():
            return formats.NEWLINK, CREATE | EXCL, _new_device(value, index)
        case DeviceAddress():
            return formats.NEWADDR, CREATE | REPLACE, _address(value, index)
        case Route():
            return formats.NEWROUTE, CREATE | REPLACE, _route(value, index)
        case Neighbour() | ForwardingEntry():
            return formats.NEWNEIGH, CREATE | REPLACE, _neighbour(value, index)
    raise InputError(f"{value} is not written by rtnetlink")


def remove(value: LinkObject, index: Index) -> Request:
    """Remove exactly this object."""
    match value:
        case Device():
            return formats.DELLINK, 0, formats.IFINFO.pack(0, 0, index(value.name), 0, 0)
        case DeviceAddress():
            return formats.DELADDR, 0, _address(value, index)
        case Route():
            return formats.DELROUTE, 0, _route(value, index, scope=formats.RT_SCOPE_NOWHERE)
        case Neighbour() | ForwardingEntry():
            return formats.DELNEIGH, 0, _neighbour(value, index)
    raise InputError(f"{value} is not written by rtnetlink")


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def _new_device(value: Device, index: Index) -> bytes:
    """As flannel makes it (its pkg/backend/vxlan/device.go), but for the state: it is switched on when it is ready."""
    parts = [
        formats.IFINFO.pack(0, 0, 0, formats.IFF_UP if value.up else 0, formats.IFF_UP),
        text(formats.IFLA_IFNAME, value.name),
    ]
    if value.mtu:
        parts.append(u32(formats.IFLA_MTU, value.mtu))
    if value.mac:
        parts.append(attribute(formats.IFLA_ADDRESS, _mac(value.mac)))
    info = [attribute(formats.INFO_KIND, value.kind.encode())]
    if value.vxlan is not None:
        info.append(nested(formats.INFO_DATA, *_vxlan(value.vxlan, index)))
    parts.append(nested(formats.IFLA_LINKINFO, *info))
    return b"".join(parts)


def _vxlan(value: Vxlan, index: Index) -> list[bytes]:
    parts = [u32(formats.VXLAN_ID, value.vni)]
    if value.link:
        parts.append(u32(formats.VXLAN_LINK, index(value.link)))
    if value.local is not None:
        parts.append(_local(value))
    parts.append(attribute(formats.VXLAN_LEARNING, _U8.pack(value.learning)))
    if value.port:
        parts.append(be16(formats.VXLAN_PORT, value.port))
    if value.gbp:
        parts.append(attribute(formats.VXLAN_GBP, b""))
    return parts


def _local(value: Vxlan) -> bytes:
    assert value.local is not None
    kind = formats.VXLAN_LOCAL if family_of(value.local) is Family.IPV4 else formats.VXLAN_LOCAL6
    return attribute(kind, value.local.packed)


def change_device(before: Device, value: Device, index: Index) -> Request:
    """What can be changed while the device carries traffic: state, MTU, MAC; of a VXLAN local, link, learning."""
    # flags without a mask would replace all flags of the device
    mask = formats.IFF_UP if value.up != before.up else 0
    parts = [formats.IFINFO.pack(0, 0, index(value.name), formats.IFF_UP & mask if value.up else 0, mask)]
    if value.mtu and value.mtu != before.mtu:
        parts.append(u32(formats.IFLA_MTU, value.mtu))
    if value.mac and value.mac != before.mac:
        parts.append(attribute(formats.IFLA_ADDRESS, _mac(value.mac)))
    if value.vxlan is not None and value.vxlan != before.vxlan:
        info = [
            attribute(formats.INFO_KIND, b"vxlan"),
            nested(formats.INFO_DATA, *_changed(before.vxlan, value.vxlan, index)),
        ]
        parts.append(nested(formats.IFLA_LINKINFO, *info))
    return formats.NEWLINK, 0, b"".join(parts)


def _changed(before: Vxlan | None, value: Vxlan, index: Index) -> list[bytes]:
    parts = [u32(formats.VXLAN_ID, value.vni)]
    if value.local is not None and (before is None or value.local != before.local):
        parts.append(_local(value))
    if value.link and (before is None or value.link != before.link):
        parts.append(u32(formats.VXLAN_LINK, index(value.link)))
    if before is not None and value.port != before.port:
        parts.append(be16(formats.VXLAN_PORT, value.port))  # the kernel refuses it with a reason
    if before is None or value.learning != before.learning:
        parts.append(attribute(formats.VXLAN_LEARNING, _U8.pack(value.learning)))
    return parts


def rename(before: Device, value: Device, index: Index) -> Request:
    """Rename a device that stays in use (kernels before 6.2 refuse that while it is up)."""
    return (
        formats.SETLINK,
        0,
        formats.IFINFO.pack(0, 0, index(before.name), 0, 0) + text(formats.IFLA_IFNAME, value.name),
    )


def _address(value: DeviceAddress, index: Index) -> bytes:
    family = family_of(value.address)
    flags = formats.IFA_F_NODAD if family is Family.IPV6 else 0  # no other machine can have the address
    head = formats.IFADDR.pack(formats.family_number(family), value.length, flags, 0, index(value.device))
    packed = value.address.packed
    return head + attribute(formats.IFA_LOCAL, packed) + attribute(formats.IFA_ADDRESS, packed)


def _route(value: Route, index: Index, *, scope: int | None = None) -> bytes:
    to = value.to
    head = formats.RTMSG.pack(
        formats.family_number(family_of(to)),
        to.prefixlen,
        0,
        0,
        value.table,
        value.protocol,
        value.scope if scope is None else scope,
        formats.ROUTE_NUMBERS.get(value.kind, formats.UNICAST),
        formats.RTNH_F_ONLINK if value.onlink else 0,
    )
    parts = [head, attribute(formats.RTA_DST, to.network_address.packed)]
    if value.gateway is not None:
        parts.append(attribute(formats.RTA_GATEWAY, value.gateway.packed))
    if value.device and value.kind == "unicast":
        parts.append(u32(formats.RTA_OIF, index(value.device)))
    if value.metric:
        parts.append(u32(formats.RTA_PRIORITY, value.metric))
    return b"".join(parts)


def _neighbour(value: Neighbour | ForwardingEntry, index: Index) -> bytes:
    mac = _mac(value.mac)
    if isinstance(value, ForwardingEntry):
        head = formats.NDMSG.pack(formats.AF_BRIDGE, index(value.device), formats.NUD_PERMANENT, formats.NTF_SELF, 0)
        to = attribute(formats.NDA_DST, value.to.packed) if value.to is not None else b""
    else:
        family = formats.family_number(family_of(value.address))
        head = formats.NDMSG.pack(family, index(value.device), formats.NUD_PERMANENT, 0, formats.UNICAST)
        to = attribute(formats.NDA_DST, value.address.packed)
    return head + (attribute(formats.NDA_LLADDR, mac) if mac else b"") + to
