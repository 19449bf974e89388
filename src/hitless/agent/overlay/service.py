"""Runs the overlay: connects the source of leases, this node's own lease, and the loop that writes to the kernel.

Problem: a node's lease needs the outer interface and the device's MAC, its subnet comes from the source, and peers come
and go all the time. Promise: a fixed order. The source reports; this node's offer is chosen once and published; once
there is a subnet, a snapshot is made for the overlay's loop and for the rules. While the source cannot be reached, its
last leases stay in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from hitless.agent.health import Health
from hitless.agent.overlay.configuration import ConfigurationWatch
from hitless.agent.overlay.identity import moved, offer
from hitless.agent.overlay.loop import OverlayLoop
from hitless.agent.overlay.outer import OuterInterfaces, outer_interfaces
from hitless.agent.overlay.outer_watch import OuterInterfaceWatch
from hitless.agent.overlay.source import configuration_reader
from hitless.agent.overlay.worker import Worker
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.desired.overlay import overlay_mtu
from hitless.errors import HitlessError, ours
from hitless.kernel.links import Links
from hitless.kernel.links.outside import AddressEvents
from hitless.kernel.links.scope import Scope
from hitless.kernel.links.wireguard import Secrets
from hitless.model.families import Address, Family, Network
from hitless.model.overlay import BackendConfig, Outer, OverlaySnapshot
from hitless.sources.lease_source import LeaseSource, News, Offer
from hitless.sources.netconf import NetConf
from hitless.sources.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Overlay"]

_LINGER = 60.0  # seconds for which a device of an earlier VNI, port or backend stays, as peers still send to it
_AGAIN = 2.0  # seconds until the next try, for example while there is no outer interface


class _Reader:
    """Calls ``wake`` once when the kernel has events."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._watched: int | None = None

    def watch(self, wake: Callable[[], None]) -> None:
        fd = self._links.listening
        if fd is None or self._watched is not None:
            return

        def readable() -> None:
            self.close()
            wake()

        self._watched = fd
        asyncio.get_running_loop().add_reader(fd, readable)

    def close(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None


class Overlay:
    """``on_subnets`` is called with this node's subnets and the pods' MTU whenever they change."""

    def __init__(
        self, options: Options, netconf: NetConf, backend: BackendConfig, source: LeaseSource,
        log: Log, metrics: Metrics, health: Health, clock: Callable[[], float],
        on_subnets: Callable[[Sequence[Network], int], None], secrets: Secrets | None = None, config: str = "",
    ) -> None:  # fmt: skip
        self._options, self._netconf, self._backend, self._source = options, netconf, backend, source
        self._log, self._metrics, self._health, self._on_subnets = log, metrics, health, on_subnets
        self._links = Links(secrets=secrets)
        self._public_key = secrets.public_key if secrets is not None else ""
        self._loop = OverlayLoop(
            Worker(self._links, clock, linger=_LINGER), _Reader(self._links), log, metrics, health,
            resync=options.resync, clock=clock, on_turned=self._publish,
        )  # fmt: skip
        self._offer: Offer | None = None
        self._families = tuple(netconf.networks)
        self._given: Mapping[Family, Address] = {}
        self._outer: Mapping[Family, Outer] = {}
        self._outer_watch = OuterInterfaceWatch(AddressEvents(), self._read_outer, self._moved)
        self._config = config
        self._news: News | None = None
        self._snapshot: OverlaySnapshot | None = None
        self._reported: tuple[tuple[Network, ...], int] | None = None
        self._trouble = ""
        self._missed = True  # a report of the source did not become a snapshot
        self._published = False

    async def run(self) -> None:
        """Work until cancelled; the kernel's state stays."""
        loop = asyncio.get_running_loop()
        self._health.overlay = ("overlay: waiting for leases",)

        def report(news: News) -> None:
            loop.call_soon_threadsafe(self._take_news, news)

        self._source.start(report)
        others = [asyncio.create_task(self._outer_watch.run()), asyncio.create_task(self._watch_configuration())]
        try:
            await self._loop.run()
        finally:
            for one in others:
                one.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._outer_watch.close()
            self._source.stop()
            self._links.close()

    def _take_news(self, news: News) -> None:
        """A report of the source; in the event loop."""
        self._news, missed, self._missed = news, self._missed, True
        self._metrics.set("hitless_overlay_synced", float(news.leases.synced and not news.trouble))
        self._metrics.set("hitless_overlay_leases_away", float(bool(news.trouble)))
        if news.trouble != self._trouble:
            if news.trouble:
                self._log.warning("leases", source=str(self._source), reason=news.trouble)
            else:
                self._log.info("leases", source=str(self._source), state="can be asked again")
            self._trouble = self._health.leases = news.trouble
            if news.trouble and self._snapshot is None:
                self._health.overlay = (f"overlay: waiting for leases: {news.trouble}",)
        try:
            self._follow(news, None if missed else news.changed)
        except HitlessError as error:
            self._later(error)
        except Exception as error:  # noqa: BLE001 - the callback's outermost handler
            self._later(ours(error, "following the leases"))

    def _later(self, error: HitlessError) -> None:
        self._log.error("overlay not planned", reason=str(error))
        self._health.overlay = (f"overlay: {error}",)
        asyncio.get_running_loop().call_later(_AGAIN, self._again)

    def _again(self) -> None:
        if self._missed and self._news is not None:
            self._take_news(self._news)

    def _publish(self) -> None:
        """Publish this node's lease, but not before its device can receive what peers send."""
        if self._offer is not None and not self._published:
            self._published = True
            self._source.publish(self._offer)

    async def _watch_configuration(self) -> None:
        read = configuration_reader(self._options)
        if read is None:
            return
        initial = self._config
        if not initial:
            try:
                first: str | None = await asyncio.to_thread(read)
                initial = first or ""
            except (HitlessError, OSError):
                return
        await ConfigurationWatch(read, initial, self._configured).run()

    def _configured(self, differs: bool) -> None:
        reason = f"{self._netconf.where} is another one than at this agent's start: restart the agents one by one"
        self._health.configuration = reason if differs else ""
        self._metrics.set("hitless_overlay_configuration_changed", float(differs))
        if differs:
            self._log.warning("leases", source=self._netconf.where, reason=reason)

    # --- this node's own address

    def _read_outer(self, before: Mapping[Family, tuple[Outer, ...]]) -> OuterInterfaces:
        return outer_interfaces(self._families, self._options.outer, self._given, before)

    def _moved(self, seen: OuterInterfaces) -> None:
        """The outer interface or this node's address has changed, or the interface is up again."""
        if self._adopt(seen):
            self._again()

    def _adopt(self, seen: OuterInterfaces) -> bool:
        """Use this interface and address from now on; whether another snapshot is needed."""
        if seen.trouble and seen.trouble != self._health.outer:
            self._log.error("outer interface", reason=seen.trouble)
        before, self._outer, self._health.outer = self._outer, seen.outer, seen.trouble
        self._loop.retry_now()  # writes may have been refused without it
        if seen.outer == before or self._offer is None:
            return False
        self._metrics.add("hitless_overlay_outer_changes_total")
        for family, one in seen.outer.items():
            if one != before.get(family):
                self._log.info(
                    "outer interface", family=family.value, interface=one.name, address=str(one.external), mtu=one.mtu
                )
        updated = moved(self._offer, seen.outer)
        if updated != self._offer:
            self._offer, self._published = updated, False
        self._missed = True
        return True

    def _choose(self, news: News) -> None:
        """Choose what this node publishes: at the start, and when an annotation names another address."""
        if self._offer is not None and news.addresses == self._given:
            return
        if self._offer is None and news.own is None and not news.leases.synced:
            return  # the source may hold its MAC
        self._given = dict(news.addresses)
        seen = self._read_outer({})
        self._outer_watch.begin(seen)
        if self._offer is not None:
            self._adopt(seen)
            return
        observed = self._links.observe(Scope(tuple(self._netconf.networks.values())))
        self._outer = seen.outer
        self._offer = offer(self._backend, self._families, seen.outer, news.own, observed, self._public_key)

    def _follow(self, news: News, changed: frozenset[str] | None) -> None:
        self._choose(news)
        if self._offer is None:
            return
        if not news.subnets:
            self._publish()  # the source answers with a subnet
            return
        own = self._offer.lease(news.node, news.subnets)
        snapshot = OverlaySnapshot(
            self._backend, self._netconf.networks, self._outer, own, news.leases, self._options.blackhole
        )
        self._snapshot = snapshot
        self._loop.desire(snapshot, changed)
        self._missed = False
        reported = tuple(news.subnets.values()), overlay_mtu(snapshot)
        if reported != self._reported:
            self._reported = reported
            self._on_subnets(*reported)
