"""What a start of the overlay would change now, for ``hitless agent plan``; nothing is changed.

Promise: the source of leases is read as at a start, but nothing is published, and the state file is not written. If the
source does not answer in time, its last known leases are used, and the reason is noted. A MAC, key or subnet that a
start would create is left open.
"""

from __future__ import annotations

import queue
import time
from dataclasses import dataclass
from pathlib import Path

from hitless.agent.overlay.identity import offer
from hitless.agent.overlay.outer import outer_interfaces
from hitless.agent.overlay.source import lease_source
from hitless.agent.overlay.worker import Worker
from hitless.errors import InputError
from hitless.kernel.links import Links
from hitless.kernel.links.scope import Scope
from hitless.model.families import Network, family_of
from hitless.model.leases import Leases
from hitless.model.links import LinkChange
from hitless.model.overlay import OverlaySnapshot
from hitless.sources.backends import backend_config
from hitless.sources.lease_cache import CachedState
from hitless.sources.lease_source import LeaseSource, News
from hitless.sources.netconf import NetConf
from hitless.sources.options import Options

__all__ = ["Preview", "overlay_preview"]

_PATIENCE = 30.0  # seconds until the source has reported all leases


@dataclass(frozen=True, slots=True)
class Preview:
    """``changes`` in their order; ``notes``: obstacles, peers that are left out, sources that did not answer;
    ``subnets``: this node's."""

    changes: tuple[LinkChange, ...]
    notes: tuple[str, ...] = ()
    subnets: tuple[Network, ...] = ()


def overlay_preview(
    options: Options, netconf: NetConf, state: CachedState | None, patience: float = _PATIENCE
) -> Preview | None:
    """``None``: no source of leases is named. Raises ``InputError``, ``HitlessError``."""
    notes: list[str] = []
    source = lease_source(options, netconf, state, notes.append, keep=False)
    if source is None:
        return None
    if options.lease_dir and not Path(options.lease_dir).is_dir():
        news = News(Leases(synced=True))  # a start would create it
    else:
        news = _ask(source, patience)
    if news.trouble:
        notes.append(f"leases: {news.trouble}")
    if not news.leases.synced:
        notes.append(f"not all leases are known after {patience:g} s: nothing would be removed")
    return _preview(options, netconf, news, notes)


def _ask(source: LeaseSource, patience: float) -> News:
    """The leases as soon as the source has reported all of them, or the last ones before the time is over."""
    inbox: queue.Queue[News] = queue.Queue()
    news = News()
    source.start(inbox.put)
    try:
        end = time.monotonic() + patience
        while not news.leases.synced and (left := end - time.monotonic()) > 0:
            try:
                news = inbox.get(timeout=left)
            except queue.Empty:
                break
    finally:
        source.stop()
    return news


def _preview(options: Options, netconf: NetConf, news: News, notes: list[str]) -> Preview:
    given = {family_of(one): one for one in options.node_subnets}
    own_endpoints = news.own.endpoints if news.own is not None else {}
    subnets = {**{family: end.subnet for family, end in own_endpoints.items()}, **given, **news.subnets}
    subnets = {family: subnets[family] for family in netconf.networks if family in subnets}
    if len(subnets) < len(netconf.networks):
        raise InputError(
            "this node's subnet is not known yet: a start would take one",
            where="the source of leases", expected="--node-subnet to see what would be done with it",
        )  # fmt: skip
    backend = backend_config(netconf)
    with Links() as links:
        observed = links.observe(Scope(tuple(netconf.networks.values())))
        outer = outer_interfaces(tuple(netconf.networks), options.outer, news.addresses).outer
        device = observed.device("flannel-wg")
        key = device.wireguard.public_key if device is not None and device.wireguard is not None else ""
        published = offer(backend, tuple(netconf.networks), outer, news.own, observed, key)
        node = news.node or options.node_name
        own = published.lease(node, subnets)
        worker = Worker(links, time.monotonic)
        worker.desire(OverlaySnapshot(backend, netconf.networks, outer, own, news.leases, options.blackhole), None)
        plan, left_out = worker.preview()
    notes += [*plan.notes, *(f"peer {name} is left out: {why}" for name, why in left_out.items())]
    return Preview(plan.changes, tuple(notes), tuple(subnets.values()))
