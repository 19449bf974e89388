"""All that the overlay does to the kernel, in one thread. A turn: read events, compute differences, write, check.

Problem: a change of one peer among 5,000 must cost what one peer costs, and damage must be noticed at once; yet events
alone are not reliable. Promise: ``turn`` brings the mirror up to date, or reads everything where that is necessary;
plans the touched objects, or all of them; writes; and reads the kernel's events again, so that what it reports as left
is really left. It removes nothing before the source has reported all leases, and nothing that a failed write still
needs. The loop decides when to run it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hitless.agent.overlay.desired import DesiredObjects
from hitless.agent.overlay.mirror import LinkMirror
from hitless.agent.overlay.ports import LinksPort
from hitless.desired.overlay import Ground, device_names
from hitless.errors import EventsLostError, HitlessError, ours
from hitless.kernel.links.scope import Scope
from hitless.model.families import Address, Family
from hitless.model.leases import BackendType
from hitless.model.links import (
    Device,
    DeviceAddress,
    ForwardingEntry,
    Key,
    LinkChange,
    LinkState,
    Neighbour,
    Route,
    Verb,
    is_overlay_device,
)
from hitless.model.overlay import HostGw, OverlaySnapshot, VxlanConfig, WireguardConfig
from hitless.plan.links import Bounds, LinkPlan, plan_links

__all__ = ["Turn", "Worker"]

_PASSES = 3  # writes and checks in one turn: a device that goes takes its objects with it while they are written


@dataclass(frozen=True, slots=True)
class Turn:
    """``whole``: everything was read. ``done``: changes that were written. ``refused``: changes that the kernel
    refused. ``left``: changes still to be made. ``damage``: another program caused the writes, not a lease. Times are
    monotonic seconds; ``peers``: nodes that are served; ``lost``: the kernel dropped events."""

    begun: float
    ended: float
    whole: bool = False
    done: tuple[LinkChange, ...] = ()
    refused: tuple[tuple[LinkChange, HitlessError], ...] = ()
    left: tuple[LinkChange, ...] = ()
    notes: tuple[str, ...] = ()
    damage: bool = False
    peers: int = 0
    lost: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    writers: frozenset[int] = frozenset()


class Worker:
    """One thread at a time."""

    def __init__(self, port: LinksPort, clock: Callable[[], float], *, linger: float = 0.0) -> None:
        self._port, self._clock, self._linger = port, clock, linger
        self._unused: dict[str, float] = {}  # devices, since when
        self._mirror, self._wanted = LinkMirror(), DesiredObjects()
        self._snapshot: OverlaySnapshot | None = None
        self._ground = Ground()
        self._direct: dict[Address, str] = {}
        self._pending: set[Key] = set()  # to be compared
        self._changed: set[str] | None = None  # nodes; None: all
        self._compared = self._settled = False

    def desire(self, snapshot: OverlaySnapshot, changed: Collection[str] | None) -> None:
        """From now on this is the desired state; ``changed``: the only nodes whose lease differs from before."""
        known = self._snapshot
        if known is None or changed is None or self._changed is None:
            self._changed = None
        else:
            self._changed.update(changed)
        if known is not None and known.leases.synced != snapshot.leases.synced:
            self._compared = False
        self._snapshot = snapshot

    def turn(self, *, whole: bool = False) -> Turn:
        """Bring the kernel to the desired state, as far as it accepts the changes."""
        snapshot, begun = self._snapshot, self._clock()
        assert snapshot is not None
        by_lease = self._changed is None or bool(self._changed)
        done: list[LinkChange] = []
        refused: tuple[tuple[LinkChange, HitlessError], ...] = ()
        lost = read = touched = False
        plan = LinkPlan()
        for left_passes in range(_PASSES, -1, -1):
            lost = self._collect(snapshot) or lost
            touched = touched or bool(self._mirror.touched) or self._mirror.whole
            whole = whole or self._mirror.whole or not self._compared
            if whole:
                self._mirror.replace(self._port.observe(_scope(snapshot), self._mirror.objects), self._wanted.objects)
            plan = self._plan(snapshot, whole)
            read, whole, self._compared = read or whole, False, True
            if not plan.changes or not left_passes:
                break
            written, refused = self._apply(plan)
            for change in written:
                self._mirror.wrote(change)
            done += written
            self._pending |= {one.object.key for one in plan.changes}
        if plan.changes:
            self._compared = False
        still = {one.object.key for one in plan.changes}
        writers, self._mirror.writers = frozenset(self._mirror.writers), set()
        return Turn(
            begun, self._clock(), read, tuple(done), tuple(one for one in refused if one[0].object.key in still),
            plan.changes, plan.notes, touched and not by_lease, len(self._wanted.by_node), lost,
            dict(self._wanted.refused), writers,
        )  # fmt: skip

    def preview(self) -> tuple[LinkPlan, Mapping[str, str]]:
        """The first plan of a turn, and the peers that would be left out; nothing is written."""
        assert self._snapshot is not None
        self._mirror.replace(self._port.observe(_scope(self._snapshot)))
        return self._plan(self._snapshot, whole=True), dict(self._wanted.refused)

    def _plan(self, snapshot: OverlaySnapshot, whole: bool) -> LinkPlan:
        """The changes to be made, for all objects or for the touched ones."""
        self._pending |= self._mirror.take()
        keys = self._compute(snapshot, whole)
        if keys is not None and any(key[0] == "device" for key in keys):
            keys = None  # what becomes of a device concerns everything on it
        if not self._settled:
            self._settled = True
            self._mirror.settle(self._wanted.objects)
        observed = LinkState(self._mirror.objects)
        if whole:
            self._wanted.forget(self._mirror.objects)
        lingering = self._lingering(snapshot) if keys is None else frozenset()
        bounds = _bounds(snapshot, lingering, frozenset(self._wanted.former))
        return plan_links(self._wanted.state, observed, bounds, keys=keys, wide=self._mirror.wide.values())

    def _lingering(self, snapshot: OverlaySnapshot) -> frozenset[str]:
        """Devices that became unused a short time ago: peers that do not know it yet still send to them."""
        if isinstance(snapshot.backend, WireguardConfig):
            return frozenset()  # a device of another backend receives unencrypted packets
        now, names = self._clock(), {key[1] for key in self._mirror.objects if key[0] == "device"}
        unused = {
            str(name) for name in names if is_overlay_device(str(name)) and ("device", name) not in self._wanted.objects
        }
        self._unused = {name: self._unused.get(name, now) for name in unused}
        return frozenset(name for name, since in self._unused.items() if now - since < self._linger)

    def _collect(self, snapshot: OverlaySnapshot) -> bool:
        try:
            self._mirror.update(self._port.events(_scope(snapshot)), self._wanted.objects)
        except EventsLostError:
            self._mirror.whole = self._mirror.underlay = True
            return True
        return False

    # --- what is desired

    def _compute(self, snapshot: OverlaySnapshot, whole: bool) -> set[Key] | None:
        """Bring the desired state up to date; the keys to compare, ``None`` for all."""
        changed, self._changed = self._changed, set()
        if self._mirror.underlay and _uses_plain_routes(snapshot):
            self._direct, changed = {}, None
        self._mirror.underlay = False
        if not whole and changed is not None:
            self._look_up(snapshot, changed)
            self._ground = Ground(self._direct, self._ground.kept)
            keys = self._wanted.update(snapshot, self._ground, changed)
            if keys is not None:
                found, self._pending = keys | self._pending, set()
                return found
        self._look_up(snapshot, snapshot.leases.by_node)
        ground = Ground(dict(self._direct), _kept(snapshot, LinkState(self._mirror.objects)))
        if changed is None or changed or ground != self._ground:
            self._ground = ground
            self._wanted.whole(snapshot, ground)
        self._pending = set()
        return None

    def _look_up(self, snapshot: OverlaySnapshot, nodes: Collection[str]) -> None:
        """Find out which of these peers are reached without a gateway, where that matters."""
        leases = [lease for node in nodes if (lease := snapshot.leases.by_node.get(node)) is not None]
        if not _uses_plain_routes(snapshot):
            leases = [lease for lease in leases if lease.backend is BackendType.HOST_GW]
        wanted = {one.public_ip for lease in leases for one in lease.endpoints.values()} - self._direct.keys()
        self._direct.update(self._port.direct(wanted))

    # --- writing

    def _apply(self, plan: LinkPlan) -> tuple[tuple[LinkChange, ...], tuple[tuple[LinkChange, HitlessError], ...]]:
        makes, breaks = plan.changes[: plan.makes], plan.changes[plan.makes :]
        devices = [one for one in makes if isinstance(one.object, Device)]
        refused = self._write(devices)
        missing = {one.object.name for one, _ in refused if isinstance(one.object, Device)}
        rest = [one for one in makes if not isinstance(one.object, Device) and one.object.device not in missing]
        refused += self._write(rest)
        kept = _needed(refused, self._mirror.objects)
        spared = [
            one for one in breaks if one.object.key not in kept and not (refused and isinstance(one.object, Device))
        ]
        if missing:  # what was to take over is not there
            spared = []
        refused += self._write(spared)
        failed = {id(one) for one, _ in refused}
        done = tuple(one for one in (*devices, *rest, *spared) if id(one) not in failed)
        return done, tuple(refused)

    def _write(self, changes: Sequence[LinkChange]) -> list[tuple[LinkChange, HitlessError]]:
        if not changes:
            return []
        try:
            return [(changes[at], error) for at, error in self._port.apply(changes).items()]
        except HitlessError as error:
            self._mirror.whole = True  # how far it went is not known
            return [(changes[0], ours(error, "writing links and routes"))]


def _scope(snapshot: OverlaySnapshot) -> Scope:
    return Scope(tuple(snapshot.networks.values()))


def _uses_plain_routes(snapshot: OverlaySnapshot) -> bool:
    backend = snapshot.backend
    return isinstance(backend, HostGw) or (isinstance(backend, VxlanConfig) and backend.direct_routing)


def _bounds(snapshot: OverlaySnapshot, lingering: frozenset[str], former: frozenset[Route]) -> Bounds:
    # plain routes of an earlier backend send unencrypted packets; where every peer has its own route, they can go
    plain = _uses_plain_routes(snapshot) or isinstance(snapshot.backend, WireguardConfig)
    outer = {one.name for one in snapshot.outer.values()} if plain else set()
    lengths = frozenset(one.subnet.prefixlen for one in snapshot.own.endpoints.values())
    return Bounds(
        tuple(snapshot.networks.values()), lengths, frozenset(outer), snapshot.leases.synced, lingering, former
    )


def _kept(
    snapshot: OverlaySnapshot, observed: LinkState
) -> dict[tuple[Family, int], tuple[Device, tuple[DeviceAddress, ...]]]:
    """VXLAN devices of an earlier configuration that have an address in the pods' network."""
    names = device_names(snapshot).values()
    found: dict[tuple[Family, int], tuple[Device, tuple[DeviceAddress, ...]]] = {}
    for device in observed.devices():
        if device.vxlan is None or device.name in names or device.name.startswith("flold"):
            continue
        if not is_overlay_device(device.name) or not device.up:
            continue
        family = Family.IPV6 if device.name.startswith("flannel-v6") else Family.IPV4
        network = snapshot.networks.get(family)
        addresses = tuple(
            one
            for one in observed.objects.values()
            if isinstance(one, DeviceAddress) and one.device == device.name and network and one.address in network
        )
        if addresses:
            found[family, device.vxlan.vni] = device, addresses
    return found


def _needed(refused: Sequence[tuple[LinkChange, HitlessError]], objects: Mapping[Key, object]) -> set[Key]:
    """The neighbours and forwarding entries of routes that could not be replaced."""
    found: set[Key] = set()
    for change, _ in refused:
        old = change.before
        if not isinstance(old, Route) or change.verb is Verb.REMOVE or old.gateway is None:
            continue
        neighbour = objects.get(Neighbour(old.device, old.gateway, "").key)
        if isinstance(neighbour, Neighbour):
            found.add(neighbour.key)
            found.add(ForwardingEntry(old.device, neighbour.mac, None).key)
    return found
