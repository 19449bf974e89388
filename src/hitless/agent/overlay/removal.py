"""The overlay's part of ``hitless agent cleanup``: devices, routes and files, where this agent kept an overlay.

Problem: flannel uses the same names, and without its devices a node is cut off from the pods of other nodes. Promise:
objects are removed only where the state file proves that this agent kept an overlay here, only if they have flannel's
form and belong to its networks, and plain routes only to the subnets and addresses in the file. The WireGuard key and
this node's lease stay for the next start.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel.links import Links
from hitless.kernel.links.scope import Scope
from hitless.model.families import Network
from hitless.model.links import Device, LinkChange, LinkState, Route, Verb, is_overlay_device
from hitless.plan.links import Bounds, plan_links
from hitless.sources.lease_cache import CachedState, read_state
from hitless.sources.options import Options
from hitless.sources.subnets import read_subnet_file

__all__ = ["Removal", "remove_overlay"]


@dataclass(frozen=True, slots=True)
class Removal:
    """``changes`` that were made, ``files`` that were removed; ``notes``: what was left, and why."""

    changes: tuple[LinkChange, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def remove_overlay(options: Options) -> Removal:
    """Remove it; removals that the kernel refuses are in the notes."""
    path = Path(options.state_file) if options.state_file else None
    try:
        state = read_state(path) if path is not None else None
    except InputError as error:
        return Removal(notes=(f"{error}: devices and routes between nodes stay",))
    with Links() as links:
        if state is None:
            return Removal(notes=_foreign_devices(links, options))
        networks = _networks(options, state)
        observed = links.observe(Scope(networks))
        bounds = Bounds(
            networks, frozenset(one.prefixlen for one in networks), synced=True, former=_plain(state, observed)
        )
        plan = plan_links(LinkState(), observed, bounds)
        holes = [
            LinkChange(Verb.REMOVE, one, one, "this node's subnet")
            for one in observed.objects.values()
            if isinstance(one, Route) and one.kind == "blackhole" and one.to in state.subnets.values()
        ]
        changes = (*plan.changes, *holes)
        refused = links.apply(changes)
    notes = [*plan.notes, *(f"{changes[at].object} is not removed: {error}" for at, error in refused.items())]
    done = tuple(one for at, one in enumerate(changes) if at not in refused)
    files = () if refused else _remove_files(options, notes)
    return Removal(done, files, tuple(notes))


def _networks(options: Options, state: CachedState) -> tuple[Network, ...]:
    """The pod networks of subnet.env, and all known subnets."""
    try:
        known = read_subnet_file(Path(options.subnet_file))
    except InputError:
        known = None
    found = dict.fromkeys(known.networks if known is not None else ())
    found |= dict.fromkeys(state.subnets.values())
    found |= dict.fromkeys(end.subnet for lease in state.leases.values() for end in lease.endpoints.values())
    return tuple(found)


def _plain(state: CachedState, observed: LinkState) -> frozenset[Route]:
    """Routes to nodes of the state file that use the node's address as gateway."""
    ends = [end for lease in state.leases.values() for end in lease.endpoints.values()]
    known = {(end.subnet, end.public_ip) for end in ends}
    return frozenset(
        one for one in observed.objects.values() if isinstance(one, Route) and (one.to, one.gateway) in known
    )


def _foreign_devices(links: Links, options: Options) -> tuple[str, ...]:
    """Devices that may be flanneld's."""
    why = f"no state file ({options.state_file or '--state-file is empty'}) says that this agent made it; ip link del"
    devices = links.observe(Scope()).devices()
    return tuple(f"{one} stays: {why} {one.name}" for one in devices if _is_overlay(one))


def _is_overlay(device: Device) -> bool:
    return is_overlay_device(device.name) and device.kind in ("vxlan", "wireguard")


def _remove_files(options: Options, notes: list[str]) -> tuple[str, ...]:
    gone: list[str] = []
    for name in (options.subnet_file, options.state_file):
        try:
            with suppress(FileNotFoundError):
                Path(name).unlink()
                gone.append(name)
        except OSError as error:
            notes.append(f"{name} stays: {error.strerror or error}")
    return tuple(gone)
