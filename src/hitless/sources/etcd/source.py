"""Leases from etcd: those of peers by one list and one watch, this node's by a few transactions.

Problem: flannel requests the TTL of every peer one after another, exits when its own key is deleted or a race is lost,
and never notices that etcd was restored from a backup. Promise: no request for a single peer; this node's subnet is
reported to the overlay only when etcd's revisions show that no other node had it before; our key is created again or
corrected when it is removed or changed, and its lease is renewed ``margin`` seconds before it expires. While etcd is
away the last report stays valid (``News.trouble`` has the reason). Two threads: one reads, one decides.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hitless.errors import ApiError, HitlessError, InputError, ours
from hitless.model.families import Address, Family, Network, family_of
from hitless.sources.attributes import decoded, encoded
from hitless.sources.cuts import Cut
from hitless.sources.etcd.client import Etcd
from hitless.sources.etcd.key_choice import HeldKey, choose, held_by, mine, overlap
from hitless.sources.etcd.keys import subnets_of
from hitless.sources.etcd.registry import Registry
from hitless.sources.etcd.subnet_reader import EtcdAway, EtcdReachable, SubnetReader
from hitless.sources.etcd.watching import Change, KeyDeleted, KeyPut, KeysSynced
from hitless.sources.lease_source import News, NewsNotifier, Offer
from hitless.sources.options import EtcdOptions
from hitless.sources.roster import Roster

__all__ = ["EtcdLeases", "EtcdLeasesOptions"]

_TTL = 86_400  # seconds; flannel's


@dataclass(frozen=True, slots=True)
class EtcdLeasesOptions:
    """``given``: subnets that a flag names; ``previous``: of subnet.env; ``reserved``: addresses that no pod has;
    ``public``: this node's own, by which its lease of an earlier start is found before the first offer."""

    etcd: EtcdOptions
    cuts: Mapping[Family, Cut]
    given: tuple[Network, ...] = ()
    previous: tuple[Network, ...] = ()
    reserved: frozenset[Address] = field(default_factory=frozenset)
    public: tuple[Address, ...] = ()
    ttl: int = _TTL


class EtcdLeases:
    """A ``LeaseSource``. The name of a node is the last part of its key."""

    def __init__(self, options: EtcdLeasesOptions, etcd: Etcd | None = None) -> None:
        self._options = options
        self.etcd = etcd or Etcd(options.etcd)
        self._registry = Registry(self.etcd, options.etcd.prefix)
        self._roster = Roster({family: cut.network for family, cut in options.cuts.items()}, "", options.reserved)
        self._notifier = NewsNotifier()
        self._inbox: queue.Queue[Change | EtcdAway | EtcdReachable | None] = queue.Queue()
        self._held: dict[str, HeldKey] = {}
        self._offer: Offer | None = None
        self._key = ""  # ours, once it was requested
        self._known = False  # our key came in the watch: all earlier changes are known
        self._requested, self._fresh = "", False  # a key that may have been created; ours was created in this run
        self._subnets: dict[Family, Network] = {}
        self._lost: set[str] = set()
        self._renew_due: float | None = None
        self._away, self._trouble, self._retry, self._failures = "", "", 0.0, 0
        self._stopping = threading.Event()
        reader = SubnetReader(self.etcd, self._registry.subnets, self._inbox.put, self._stopping)
        self._threads = [
            threading.Thread(target=reader.run, name="etcd watch", daemon=True),
            threading.Thread(target=self._run, name="leases", daemon=True),
        ]

    def __str__(self) -> str:
        return str(self.etcd)

    def start(self, receive: Callable[[News], None]) -> None:
        """As ``LeaseSource``."""
        self._notifier.connect(receive)
        for thread in self._threads:
            thread.start()

    def publish(self, offer: Offer) -> None:
        """As ``LeaseSource``."""
        self._offer = offer
        self._inbox.put(None)

    def stop(self) -> None:
        """End the threads; the lease stays until it expires."""
        self._stopping.set()
        self._inbox.put(None)
        self.etcd.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(5.0)

    # --- the thread that decides

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take()
            if self._stopping.is_set():
                return
            now = time.monotonic()
            if self._roster.synced and self._offer is not None and now >= self._retry:
                try:
                    self._keep(self._offer, now)
                    self._trouble, self._failures, self._retry = "", 0, 0.0
                except HitlessError as error:
                    self._failed(error)
                except Exception as error:  # noqa: BLE001 - the thread's outermost level: it is reported, and tried again
                    self._failed(ours(error, "keeping the lease in etcd"))
            self._report()

    def _failed(self, error: HitlessError) -> None:
        self._trouble = str(error)
        wait = min(60.0, 0.1 * 2.0 ** min(self._failures, 16)) * random.uniform(0.5, 1.0)
        self._failures += 1
        self._retry = time.monotonic() + wait

    def _take(self) -> None:
        """Wait for the queue, and handle all that is in it."""
        due = self._retry or self._renew_due
        wait = max(0.0, due - time.monotonic()) if due else None
        try:
            item = self._inbox.get(timeout=wait)
        except queue.Empty:
            return
        while True:
            if item is not None:
                self._handle(item)
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _handle(self, item: Change | EtcdAway | EtcdReachable) -> None:
        if isinstance(item, EtcdAway):
            self._away = item.why
            return
        self._away = ""
        if isinstance(item, KeyPut):
            self._put(item)
        elif isinstance(item, KeyDeleted):
            held = self._held.get(item.key)
            if held is not None and held.modified <= item.modified:
                self._gone(item.key)
        elif isinstance(item, KeysSynced):
            for key in self._held.keys() - item.keys:
                self._gone(key)
            self._roster.synced = True
            self._lost.clear()

    def _put(self, put: KeyPut) -> None:
        subnets = subnets_of(put.key)
        if not subnets:
            self._roster.put(put.key, None, "the key names no subnet")
            return
        self._held[put.key] = held_by(put.value, put.lease, put.created, put.modified)
        self._lost.discard(put.key)
        try:
            lease, why = decoded(put.key, put.value, subnets)
            self._roster.put(put.key, lease, "; ".join(why))
        except InputError as error:
            self._roster.put(put.key, None, str(error))
        if put.key == self._key:
            self._known, self._subnets = True, subnets

    def _gone(self, key: str) -> None:
        del self._held[key]
        self._roster.remove(key)
        if key == self._key:
            self._renew_due = None

    def _keep(self, offer: Offer, now: float) -> None:
        """Create, correct or renew our key, as needed. Raises ``ApiError``, ``InputError``."""
        if self._fresh and self._known and (held := self._held.get(self._key)) is not None:
            self._fresh = False
            if self._lost_race(held):
                self._registry.delete(self._key, held.modified)
                self._give_up_key()
        text = encoded(offer)
        if not self._key:
            self._adopt(offer)
        if not self._key:
            self._create(self._requested or self._choose(), text)
            return
        self._roster.reserve(self._options.reserved | {reach.public_ip for reach in offer.reach.values()})
        self._roster.belongs(self._key)
        own = self._held.get(self._key)
        if own is None:
            if self._known:  # it was removed, or expired while it could not be renewed
                self._known = False
                self._create(self._key, text)
        elif own.mark != hash(text.encode()):
            self._registry.change(self._key, text, own.modified)  # if it was changed meanwhile, the watch reports that
        elif own.lease:
            self._renew(own.lease, now)

    def _renew(self, lease: int, now: float) -> None:
        if self._renew_due is None:
            self._renew_due = self._due(self._registry.remaining(lease), now)
        if now >= self._renew_due:
            left = self._registry.renew(lease)
            if left <= 0:
                raise ApiError("the lease in etcd is over")  # its key is deleted with it, and created again
            self._renew_due = self._due(left, now)

    def _choose(self) -> str:
        options = self._options
        return choose(self._held, options.cuts, options.given, options.previous, self._lost, random.choice)

    def _due(self, left: float, now: float) -> float:
        """When a lease that has so many seconds left is renewed."""
        return now + max(0.0, left - min(self._options.etcd.margin, self._options.ttl / 2, max(left, 0) / 2 + 1))

    def _adopt(self, offer: Offer) -> None:
        """Use the key that has our address; delete those that do not fit the configuration any more."""
        reach = offer.reach.get(Family.IPV4) or offer.reach.get(Family.IPV6)
        for key in mine(self._held, reach.public_ip) if reach is not None else ():
            subnets, cuts = subnets_of(key), self._options.cuts
            if subnets.keys() == cuts.keys() and all(self._fits(family, one) for family, one in subnets.items()):
                self._key, self._known, self._subnets = key, True, subnets
                self._renew_due, self._requested = None, ""
                return
            self._registry.delete(key, self._held[key].modified)

    def _fits(self, family: Family, subnet: Network) -> bool:
        """Whether it is the subnet of --node-subnet, or without that flag one of the configured range."""
        given = next((one for one in self._options.given if family_of(one) is family), None)
        return given == subnet if given is not None else self._options.cuts[family].fits(subnet)

    def _create(self, key: str, text: str) -> None:
        self._requested = key  # if the response is lost, the same key is requested again
        lease = self._registry.grant(self._options.ttl)
        won = self._registry.create(key, text, lease)
        self._requested = ""
        if won:
            self._key, self._renew_due, self._fresh = key, None, True
            return
        self._registry.revoke(lease)
        self._give_up_key()
        self._lost.add(key)
        raise ApiError(f"another node was quicker to take {key} in etcd")

    def _give_up_key(self) -> None:
        self._key, self._known = "", False
        self._renew_due = None
        self._roster.belongs("")

    def _lost_race(self, held: HeldKey) -> bool:
        """Whether a node with an overlapping subnet created its key before ours."""
        subnets = subnets_of(self._key)
        for key, other in self._held.items():
            if other.created < held.created:
                theirs = subnets_of(key)
                if any(family in theirs and overlap(one, theirs[family]) for family, one in subnets.items()):
                    return True
        return False

    def _report(self) -> None:
        leases, changed = self._roster.leases()
        held, offer = self._held.get(self._key), self._offer
        published = held is not None and offer is not None and held.mark == hash(encoded(offer).encode())
        own = self._roster.claim(self._key or self._earlier_key())
        trouble = self._away or self._trouble
        subnets = dict(self._subnets)
        self._notifier.send(News(leases, changed, self._key, subnets, own, published=published, trouble=trouble))

    def _earlier_key(self) -> str:
        """Before the first offer: the key that has our address."""
        if self._offer is not None or not self._options.public:
            return ""
        return next(iter(mine(self._held, self._options.public[0])), "")
