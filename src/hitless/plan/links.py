"""From two states of links and routes to the writes between them, in an order that interrupts nothing.

Problem: a device that is deleted and made again, a neighbour that is removed before its route, a route that is deleted
before its successor is there: each costs connections. Promise: additions come before removals; what can be changed in
place is changed; a device that cannot be is renamed, carries traffic until its successor is complete, and is removed
last (except where the kernel does not accept both at once). Nothing is removed before the source of the leases has
reported all of them, and only what has flannel's form is removed at all. A route of the kernel's own that conflicts is
left, and noted. Pure.
Next stage: ``hitless.kernel.links``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hitless.model.families import Network, in_any
from hitless.model.keyed import delta
from hitless.model.links import (
    BOOT,
    MAIN,
    Device,
    DeviceAddress,
    ForwardingEntry,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Verb,
    WireguardPeer,
    default_metric,
    is_overlay_device,
    network_of_one,
)

__all__ = ["Bounds", "LinkPlan", "is_wide", "plan_links"]

_NARROW = 64  # bits of an IPv6 network that cannot cover several nodes' subnets, which are of 64 bits and more
_KERNEL = 2  # RTPROT_KERNEL: comes with an address
_MAKE: tuple[type, ...] = (Device, DeviceAddress, ForwardingEntry, Neighbour, WireguardPeer, Route)
_BREAK: tuple[type, ...] = (Route, Neighbour, ForwardingEntry, WireguardPeer, DeviceAddress, Device)
ASIDE = "flold"
"""The name, with its number, of a device that is being replaced."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this node's overlay may take away.

    ``networks``: those of the pods. ``lengths``: of this node's subnets, which are those of all nodes. ``outer``: the
    interfaces of plain routes (host-gw, DirectRouting), where such may be ours. ``synced``: all leases are known.
    ``lingering``: devices that nothing uses any more, but peers may still send to: they stay, with what is on them.
    ``former``: plain routes that this agent wanted before.
    """

    networks: tuple[Network, ...]
    lengths: frozenset[int] = frozenset()
    outer: frozenset[str] = frozenset()
    synced: bool = False
    lingering: frozenset[str] = frozenset()
    former: frozenset[Route] = frozenset()


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """``changes`` in order, ``makes`` of them before the first removal; ``notes``: what prevents others."""

    changes: tuple[LinkChange, ...] = ()
    makes: int = 0
    notes: tuple[str, ...] = field(default=())


def plan_links(
    desired: LinkState, observed: LinkState, bounds: Bounds, *, keys: Collection[Key] | None = None,
    wide: Collection[Route] = (),
) -> LinkPlan:  # fmt: skip
    """The writes that lead from ``observed`` to ``desired``; with ``keys``: as far as these objects go, where ``wide``
    are the observed routes that are (``is_wide``), so that a few keys cost the same among thousands of objects."""
    notes: list[str] = []
    wanted, seen, devices = _devices(desired, observed, keys, notes)
    found = delta(wanted, seen, keys)
    makes = [LinkChange(Verb.ADD, one, None, "it is missing") for one in found.add if not _weak(one, seen)]
    for old, new in found.change:
        if isinstance(old, Device):
            continue  # they are in ``devices``
        if isinstance(new, Route) and new.kind == "blackhole":
            continue  # something leads to this node's pods
        if isinstance(old, Route) and old.protocol == _KERNEL:
            notes.append(f"{old} comes with an address of this node and is in the way of {new}")
            continue
        makes.append(LinkChange(Verb.CHANGE, new, old, _difference(old, new)))
    makes = list(_helped(makes, wide if keys is not None else [one for one in seen.values() if is_wide(one)]))
    makes = devices + _ordered((one for one in makes if not isinstance(one.object, Device)), _MAKE)
    removals = list(_removals(found.remove, wanted, seen, bounds)) if bounds.synced else []
    return LinkPlan((*makes, *_ordered(removals, _BREAK)), len(makes), tuple(notes))


def _helped(changes: Collection[LinkChange], wide: Collection[LinkObject]) -> Iterator[LinkChange]:
    """The kernel refuses an IPv6 route whose gateway is still reached by another device (ip6_route_check_nh_onlink): a
    route to the gateway alone is added before it, and removed after it."""
    for change in changes:
        new = change.object
        if not isinstance(new, Route) or not new.onlink or new.gateway is None or new.to.version == 4:
            yield change
            continue
        others = [one for one in (change.before, *wide) if isinstance(one, Route) and one.to.overlaps(new.to)]
        if all(one.device == new.device for one in others):
            yield change
            continue
        way = Route(network_of_one(new.gateway), new.device, metric=new.metric)
        reason = f"the kernel wants the gateway of {new.to} behind its device"
        yield LinkChange(Verb.ADD, way, None, reason)
        yield change
        yield LinkChange(Verb.REMOVE, way, way, reason)


def is_wide(one: LinkObject) -> bool:
    """Whether this is an IPv6 route that may cover several nodes' subnets."""
    return isinstance(one, Route) and one.to.prefixlen < _NARROW and one.to.version == 6


def _weak(one: LinkObject, seen: Mapping[Key, LinkObject]) -> bool:
    """A blackhole for this node's own subnet is only for where nothing else leads there."""
    if not isinstance(one, Route) or one.kind != "blackhole":
        return False
    return any(isinstance(other, Route) and other.to == one.to for other in seen.values())


def _ordered(changes: Iterable[LinkChange], kinds: tuple[type, ...]) -> list[LinkChange]:
    return sorted(changes, key=lambda one: len(kinds) if _only_loses(one) else kinds.index(type(one.object)))


def _only_loses(change: LinkChange) -> bool:
    """A peer that is to have fewer subnets on its device: they are another device's when the routes have moved."""
    new, old = change.object, change.before
    if change.verb is not Verb.CHANGE or not isinstance(new, WireguardPeer) or not isinstance(old, WireguardPeer):
        return False
    return new.allowed < old.allowed


# --- devices


def _devices(
    desired: LinkState, observed: LinkState, keys: Collection[Key] | None, notes: list[str]
) -> tuple[Mapping[Key, LinkObject], Mapping[Key, LinkObject], list[LinkChange]]:
    """The states with unspecified attributes of devices filled in, and the changes of devices, with renaming."""
    if keys is not None:
        return desired.objects, observed.objects, []
    wanted: dict[Key, LinkObject] = dict(desired.objects)
    moved: dict[str, str | None] = {}
    changes: list[LinkChange] = []
    for device in desired.devices():
        old = observed.device(device.name)
        if old is None:
            changes.append(LinkChange(Verb.ADD, device, None, "it is missing"))
            continue
        if old.kind != device.kind:
            notes.append(f"a device of kind {old.kind or 'hardware'} bears the name {old.name}: rename or remove it")
            continue
        full = _filled(device, old)
        wanted[device.key] = full
        if full == old:
            continue
        lasting = _lasting(full, old)
        if not lasting:
            changes.append(LinkChange(Verb.CHANGE, full, old, _difference(old, full)))
            continue
        reason = f"{lasting} cannot be changed while it is there"
        if _side_by_side(full, old):
            aside = replace(old, name=f"{ASIDE}{old.index}")
            moved[old.name] = aside.name
            changes.append(LinkChange(Verb.RENAME, aside, old, reason))
        else:  # its successor cannot be made while it is there
            moved[old.name] = None
            changes.append(LinkChange(Verb.REMOVE, old, old, reason))
        changes.append(LinkChange(Verb.ADD, device, None, reason))
    return wanted, _moved(observed.objects, moved), changes


def _filled(device: Device, old: Device) -> Device:
    """Unspecified attributes stay as they are."""
    vxlan = device.vxlan
    if vxlan is not None and old.vxlan is not None and not vxlan.port:
        vxlan = replace(vxlan, port=old.vxlan.port)
    return replace(
        device,
        mac=device.mac or old.mac,
        mtu=device.mtu or old.mtu,
        vxlan=vxlan,
        tx_checksum=old.tx_checksum if device.tx_checksum is None else device.tx_checksum,
        gro=old.gro if device.gro is None else device.gro,
    )


def _lasting(device: Device, old: Device) -> str:
    """What differs and lasts as long as the device (drivers/net/vxlan: "Cannot change …"); empty: nothing."""
    new, was = device.vxlan, old.vxlan
    if new is None or was is None:
        return ""
    found = [name for name in ("vni", "port", "gbp", "other") if getattr(new, name) != getattr(was, name)]
    if new.local is not None and was.local is not None and new.local.version != was.local.version:
        found.append("local")
    return ", ".join(f"{name} {getattr(was, name)}" for name in found)


def _side_by_side(device: Device, old: Device) -> bool:
    """Whether the kernel takes both at once: a VNI at a port is one device's (drivers/net/vxlan: vxlan_vni_in_use)."""
    new, was = device.vxlan, old.vxlan
    if new is None or was is None:
        return True
    families = [one.local.version if one.local is not None else 0 for one in (new, was)]
    return (new.vni, new.port, families[0]) != (was.vni, was.port, families[1])


def _moved(objects: Mapping[Key, LinkObject], moved: Mapping[str, str | None]) -> Mapping[Key, LinkObject]:
    """The observed objects after devices were renamed (or, ``None``, removed)."""
    if not moved:
        return objects
    found: dict[Key, LinkObject] = {}
    for one in objects.values():
        name = one.name if isinstance(one, Device) else one.device
        other = moved.get(name, name)
        if other is None:
            continue
        if other != name:
            one = replace(one, name=other) if isinstance(one, Device) else replace(one, device=other)
        found[one.key] = one
    return found


def _difference(old: LinkObject, new: LinkObject) -> str:
    """In which fields two objects differ."""
    names = [name for name in type(new).__slots__ if name not in ("index", "alive", "key")]
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in names]
    return ", ".join(
        f"{name} is {was if was not in (None, '') else 'none'}" for name, was, now in pairs if was != now
    )  # fmt: skip


# --- removals


def _removals(
    extra: Iterable[LinkObject], wanted: Mapping[Key, LinkObject], seen: Mapping[Key, LinkObject], bounds: Bounds
) -> Iterator[LinkChange]:
    extra = tuple(extra)
    going = {one.name for one in extra if isinstance(one, Device) and _stale_device(one, seen, bounds)}
    for one in extra:
        if isinstance(one, Device):
            if one.name in going and one.name not in bounds.lingering:
                yield LinkChange(Verb.REMOVE, one, one, "nothing uses it any more")
        elif (one.device not in going or (isinstance(one, Route) and one.device in bounds.lingering)) and _ours(
            one, bounds
        ):
            yield LinkChange(Verb.REMOVE, one, one, "no node has it")


def _stale_device(device: Device, seen: Mapping[Key, LinkObject], bounds: Bounds) -> bool:
    """A device of flannel's form that served this node's pods: its address is in their network."""
    if not is_overlay_device(device.name) or device.kind not in ("vxlan", "wireguard"):
        return False
    if device.name.startswith(ASIDE):
        return True
    return any(
        isinstance(one, DeviceAddress) and one.device == device.name and _inside(one, bounds) for one in seen.values()
    )


def _inside(one: DeviceAddress, bounds: Bounds) -> bool:
    return one.length == one.address.max_prefixlen and in_any(one.address, bounds.networks)


def _ours(one: LinkObject, bounds: Bounds) -> bool:
    """Whether it has flannel's form, so that it may go."""
    match one:
        case Route():
            return _our_route(one, bounds)
        case DeviceAddress():
            return is_overlay_device(one.device) and _inside(one, bounds)
        case Neighbour():
            return one.permanent and in_any(one.address, bounds.networks)
        case ForwardingEntry():
            plain = one.permanent and one.to is not None and not one.other
            return plain and any(character not in "0:" for character in one.mac) and not int(one.mac[:2], 16) & 1
        case WireguardPeer():
            return True
    return False


def _our_route(one: Route, bounds: Bounds) -> bool:
    plain = one.kind == "unicast" and one.protocol == BOOT and one.table == MAIN and not one.other
    if not plain or one.metric != default_metric(one.to):
        return False
    if is_overlay_device(one.device):
        through = one.onlink and one.gateway == one.to.network_address
        alone = one.gateway is None and one.to.prefixlen == one.to.max_prefixlen  # of ``_helped``
        return through or alone or (one.gateway is None and one.to in bounds.networks)
    if one in bounds.former:
        return True
    return (
        one.device in bounds.outer
        and one.gateway is not None
        and not one.onlink
        and one.to.prefixlen in bounds.lengths
    )  # fmt: skip
