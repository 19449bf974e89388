"""Witness packets of a pod network: the pods and addresses that they come from, the uplink, and the far ends.

Promise: ``find`` chooses them from one reading of the node, for the watch, the guard and the agent alike. Next stage:
``panels``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hitless.errors import InputError
from hitless.model.families import Address, Network, family_of
from hitless.model.headers import PacketHeader
from hitless.model.packets import ICMP, TCP, UDP, Packet
from hitless.observe.nodes import NodeView, Viewer
from hitless.observe.pods import LocalPod, pods, unused
from hitless.observe.uplinks import LookUp, Uplink, uplink
from hitless.semantics import witnesses

__all__ = ["Asking", "Witnesses", "checked_interface", "find", "looking_up", "matching"]


@dataclass(frozen=True, slots=True)
class Asking:
    """What to evaluate for a network, by options or by a profile. ``own``: the node's part of ``network``, ``inside``:
    networks of the cluster, without far ends, ``links``: patterns of pods' interfaces' names."""

    network: Network
    own: Network | None = None
    inside: tuple[Network, ...] = ()
    protocols: tuple[int, ...] = (TCP, UDP, ICMP)
    destinations: int = 2
    far_ends: tuple[Address, ...] = ()
    marks: tuple[int, ...] = (0,)
    links: tuple[str, ...] = ()
    uplink: str = ""


@dataclass(frozen=True, slots=True)
class Witnesses:
    """The pods that are there, unused addresses, the uplink, and packets to which each pod's source is added."""

    pods: tuple[LocalPod, ...]
    unused: tuple[LocalPod, ...]
    uplink: Uplink
    packets: tuple[Packet, ...]

    @property
    def known(self) -> bool:
        """Whether all interfaces are known."""
        return all(one.interface for one in self.pods or self.unused) and all(one.oif for one in self.packets)

    def of(self, pod: LocalPod) -> Iterator[Packet]:
        """The first packets of the flows, as this pod would send them."""
        return (replace(packet, src=pod.address, iif=pod.interface) for packet in self.packets)

    @property
    def headers(self) -> Iterator[PacketHeader]:
        """The headers of these packets and of the answers to them, without interfaces."""
        for pod in (*self.pods, *self.unused):
            for packet in self.of(pod):
                ports = (packet.sport, packet.dport) if packet.protocol in (TCP, UDP) else (None, None)
                version, source, destination = packet.src.version, packet.src.packed, packet.dst.packed
                yield PacketHeader(version, packet.protocol, source, destination, *ports)
                yield PacketHeader(version, packet.protocol, destination, source, *ports[::-1])

    @property
    def texts(self) -> list[str]:
        """The packets of the first pod, as texts."""
        first = next(iter(self.pods or self.unused))
        return [f"{packet.protocol} {packet.src} -> {packet.dst}" for packet in self.of(first)]

    @property
    def interfaces(self) -> list[str]:
        """The interfaces of the first packet; empty: not known."""
        first = next(iter(self.pods or self.unused))
        return [first.interface, next((packet.oif for packet in self.packets), "")]

    @property
    def far_ends(self) -> tuple[Address, ...]:
        """The addresses to which packets are sent."""
        return tuple(dict.fromkeys(packet.dst for packet in self.packets))


def find(asking: Asking, view: NodeView, look_up: LookUp) -> Witnesses:
    """The witnesses on this node."""
    network, own = asking.network, asking.own
    here = pods(view, network, own)
    others = unused(view, network, own, here)
    links = _links(view, network, asking.links)
    if not here:  # no pod's address is known, but a pod's own link shows that there is one
        here = tuple(LocalPod(others[0].address, name) for name in links.own)
    if not here and links.first:
        others = tuple(one if one.interface else one._replace(interface=links.first) for one in others)
    packets = _packets(asking, others[0].address)
    far_ends = tuple(dict.fromkeys(packet.dst for packet in packets))
    inside = (network, *asking.inside)
    family = family_of(network)
    way_out = uplink(
        view, family, far_ends, look_up, pod=next(iter(here or others)), inside=inside, named=asking.uplink
    )
    return Witnesses(here, others, way_out, tuple(replace(packet, oif=way_out.name) for packet in packets))


def _packets(asking: Asking, source: Address) -> list[Packet]:
    found: list[Packet] = []
    for mark in asking.marks:
        found += witnesses(
            asking.network,
            asking.own,
            inside=asking.inside,
            protocols=asking.protocols,
            destinations=asking.destinations,
            far_ends=asking.far_ends,
            mark=mark,
            source=source,
        )
    return found


@dataclass(frozen=True, slots=True)
class _Links:
    """Pods' interfaces by their names: each pod's ``own``, and the ``first`` of all (empty: there is none)."""

    own: tuple[str, ...]
    first: str


def _links(view: NodeView, network: Network, patterns: Sequence[str]) -> _Links:
    up = [link for link in view.links.values() if link.up]
    names = matching((link.name for link in up), patterns)
    shared = {route.device for route in view.routes.get(family_of(network), ()) if _wide(route.to, network)}
    ports = {link.name for link in up if link.master or link.kind == "bridge"}
    own = tuple(name for name in names if name not in shared and name not in ports)
    routed = [name for name in names if name in shared]
    return _Links(own, next(iter((*routed, *own, *names)), ""))


def _wide(to: Network, network: Network) -> bool:
    return 0 < to.prefixlen < to.max_prefixlen and to.overlaps(network)


def matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The interface names that fit a pattern (``+`` at the end: any continuation), in the order of the patterns."""
    known = list(names)
    found: dict[str, None] = {}
    for pattern in patterns:
        stem = pattern.removesuffix("+")
        for name in known:
            if name == pattern or (stem != pattern and name.startswith(stem)):
                found[name] = None
    return list(found)


def looking_up(viewer: Viewer, view: NodeView) -> LookUp:
    """Route look-ups in the kernel, for ``find``."""

    def look_up(far_end: Address, pod: LocalPod | None) -> str:
        if pod is None:
            return viewer.lookup(view, far_end)
        return viewer.lookup(view, far_end, pod.address, pod.interface) if pod.interface in view.links else ""

    return look_up


def checked_interface(name: str, where: str) -> str:
    """An interface's name as the user gave it; raises ``InputError``."""
    unfit = any(letter.isspace() or not letter.isprintable() or letter in "/:" for letter in name)
    if not 0 < len(name.encode("utf-8", "replace")) < 16 or unfit or name in (".", ".."):
        raise InputError(
            f"{name!r} is not an interface name", where=where, expected="up to 15 characters, such as eth0"
        )
    return name
