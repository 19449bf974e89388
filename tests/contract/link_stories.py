"""What a kernel does with links, as writes and what is there after each: one suite for the fake and the real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hitless.agent.overlay.ports import LinksPort
from hitless.errors import HitlessError
from hitless.kernel.links.scope import Scope
from hitless.model.families import Network
from hitless.model.links import (
    BOOT,
    Device,
    DeviceAddress,
    ForwardingEntry,
    LinkChange,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Verb,
    Vxlan,
    is_overlay_device,
)

SCOPE = Scope((IPv4Network("10.42.0.0/16"), IPv6Network("fd42::/48")))
CONNECTED: Mapping[Network, str] = {IPv4Network("192.0.2.0/24"): "eth0", IPv6Network("fd00::/64"): "eth0"}
"""The node that both kernels are given: eth0 with 192.0.2.1/24 and fd00::1/64."""

V4 = Device(
    "flannel.1", "vxlan", 1450, "02:00:00:00:04:01", True, Vxlan(1, 8472, IPv4Address("192.0.2.1"), "eth0")
)  # fmt: skip
V6 = Device(
    "flannel-v6.1", "vxlan", 1430, "02:00:00:00:06:01", True, Vxlan(1, 8472, IPv6Address("fd00::1"), "eth0")
)  # fmt: skip
ROUTE = Route(IPv4Network("10.42.2.0/24"), "flannel.1", IPv4Address("10.42.2.0"), True)
PEER: tuple[LinkObject, ...] = (
    DeviceAddress("flannel.1", IPv4Address("10.42.1.0"), 32),
    ForwardingEntry("flannel.1", "02:00:00:00:04:02", IPv4Address("192.0.2.2")),
    Neighbour("flannel.1", IPv4Address("10.42.2.0"), "02:00:00:00:04:02"),
    ROUTE,
)
ROUTE6 = Route(IPv6Network("fd42:0:0:2::/64"), "flannel-v6.1", IPv6Address("fd42:0:0:2::"), True, metric=1024)
PEER6: tuple[LinkObject, ...] = (
    DeviceAddress("flannel-v6.1", IPv6Address("fd42:0:0:1::"), 128),
    ForwardingEntry("flannel-v6.1", "02:00:00:00:06:02", IPv6Address("fd00::2")),
    Neighbour("flannel-v6.1", IPv6Address("fd42:0:0:2::"), "02:00:00:00:06:02"),
    ROUTE6,
)
PLAIN = Route(IPv4Network("10.42.9.0/24"), "eth0", IPv4Address("192.0.2.9"))


def add(*values: LinkObject) -> list[LinkChange]:
    return [LinkChange(Verb.ADD, one) for one in values]


def change(before: LinkObject, **more: object) -> LinkChange:
    return LinkChange(Verb.CHANGE, replace(before, **more), before)  # type: ignore[arg-type]  # fields by name


def remove(value: LinkObject) -> LinkChange:
    return LinkChange(Verb.REMOVE, value, value)


BOTH = add(V4, V6, *PEER, *PEER6)
TWIN = replace(V4, name="flannel.2")
V6_TWIN = replace(V6, name="flannel-v6.2", vxlan=Vxlan(2, 8472, IPv6Address("fd00::1"), "eth0"))
WAY6 = Route(IPv6Network("fd42:0:0:2::/128"), "flannel-v6.2", metric=1024)
ASIDE = replace(V4, name="flold9")
STORIES: Mapping[str, list[LinkChange]] = {
    "two devices with a peer each": BOTH,
    "a device that is there": [*BOTH, *add(V4)],
    "one VNI and port twice": [*BOTH, *add(TWIN)],
    "another port beside it": [*BOTH, *add(replace(TWIN, vxlan=replace(V4.vxlan, port=4789)))],  # type: ignore[type-var]
    "an outer interface that is not there": add(replace(V4, vxlan=replace(V4.vxlan, link="eth7"))),  # type: ignore[type-var]
    "the port of a device that is there": [*BOTH, change(V4, vxlan=replace(V4.vxlan, port=4789))],  # type: ignore[type-var]
    "MTU and MAC": [*BOTH, change(V4, mtu=1400), change(V6, mac="02:00:00:00:06:77")],
    "local address and learning": [
        *BOTH,
        change(V4, vxlan=replace(V4.vxlan, local=IPv4Address("192.0.2.77"), learning=True)),  # type: ignore[type-var]
    ],
    "switched off and on": [*BOTH, change(V4, up=False), change(replace(V4, up=False), up=True)],
    "IPv6 switched off": [*BOTH, change(V6, up=False)],
    "a device goes": [*BOTH, remove(V4)],
    "a device is renamed, and another takes its name": [
        *BOTH,
        LinkChange(Verb.RENAME, ASIDE, V4),
        *add(replace(V4, vxlan=replace(V4.vxlan, port=4789)), *PEER),  # type: ignore[type-var]
        remove(ASIDE),
    ],
    "entries are replaced": [
        *BOTH,
        change(PEER[1], to=IPv4Address("192.0.2.88")),
        change(PEER[2], mac="02:00:00:00:04:88"),
        change(PEER[3], device="eth0", gateway=IPv4Address("192.0.2.2"), onlink=False),
    ],
    "entries go, one after the other, and one that is gone": [
        *BOTH, *(remove(one) for one in reversed(PEER)), remove(ROUTE),
    ],
    "another route than the one that is there is removed": [
        *BOTH, remove(replace(ROUTE, gateway=IPv4Address("10.42.2.9"))),
    ],
    "an IPv6 route whose gateway is behind another device": [
        *BOTH,
        *add(V6_TWIN),
        change(ROUTE6, device="flannel-v6.2"),
        *add(WAY6),
        change(ROUTE6, device="flannel-v6.2"),
        remove(WAY6),
    ],
    "a route on a device that is off": [*add(replace(V4, up=False)), *add(PEER[3])],
    "a plain route": add(PLAIN),
    "a plain route by a gateway that is nowhere": add(replace(PLAIN, gateway=IPv4Address("198.51.100.1"))),
    "a blackhole": add(Route(IPv4Network("10.42.1.0/24"), "", kind="blackhole")),
    "entries without a device": add(*PEER),
}  # fmt: skip


def seen(state: LinkState) -> dict[object, LinkObject]:
    """What a story is about: devices of flannel's names with what is on them, and routes; not what the kernel adds."""
    found: dict[object, LinkObject] = {}
    for one in state.objects.values():
        if isinstance(one, Device):
            if is_overlay_device(one.name):
                found[one.key] = replace(one, index=0, tx_checksum=None, gro=None)
        elif isinstance(one, Route):
            if one.protocol == BOOT:
                found[one.key] = one
        elif is_overlay_device(one.device) and not _kernels(one):
            found[one.key] = one
    return found


def _kernels(one: LinkObject) -> bool:
    address = one.address if isinstance(one, DeviceAddress | Neighbour) else None
    local = address is not None and (address.is_link_local or address.is_multicast)
    return local or (isinstance(one, ForwardingEntry) and one.to is None)


def play(kernel: LinksPort, story: list[LinkChange], check: Callable[[int, LinkState], None]) -> list[type | None]:
    """Write one change after the other; what each was refused with."""
    told: list[type | None] = []
    for number, one in enumerate(story):
        refused: HitlessError | None = kernel.apply([one]).get(0)
        told.append(type(refused) if refused is not None else None)
        check(number, kernel.observe(SCOPE))
    return told
