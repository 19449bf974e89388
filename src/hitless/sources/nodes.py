"""Leases from Kubernetes: podCIDRs and flannel's annotations of all Node objects, and of this node's own.

Problem: flannel writes its annotations once: if they are removed, new nodes never find this one. It ignores a podCIDR
that changes, and exits when the API server is away. Promise: all nodes are read as a stream, and only their leases are
kept. This node's annotations are corrected whenever they differ (less often when another writer keeps changing them,
which is reported), and NetworkUnavailable is set to False. While the API server is away the last report stays valid.
The rights of flannel's ClusterRole are enough: get pods; get, list and watch nodes; patch nodes/status. Two threads:
one reads, one decides.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from hitless.errors import ApiError, HitlessError, ours
from hitless.kube.client import Away, Client, PatchType
from hitless.kube.list_watch import Change, Gone, Put, by_name
from hitless.kube.objects import PODS, Condition, Kind, Object
from hitless.model.families import Address, Family, Network, within
from hitless.model.reading import whole_of
from hitless.sources.annotations import PREFIX, AnnotationNames, addresses_of, lease_of, pod_networks, wanted
from hitless.sources.lease_source import News, NewsNotifier, Offer
from hitless.sources.roster import Roster

__all__ = ["NodeLeases", "NodeLeasesOptions"]

_PAGE = 100  # nodes of a page: with fifty images each they are 3 MB
_WAITS = (0.5, 30.0)  # seconds between tries to write, doubled from the first to the last
_STRATEGIC: PatchType = "application/strategic-merge-patch+json"
_FIGHT, _FIGHT_TIME, _FIGHT_WAIT = 5, 60.0, 10.0  # after so many repairs in so many seconds the next one waits


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class _Status(msgspec.Struct, frozen=True):
    conditions: list[Condition] | None = None


class _Node(Object, frozen=True):
    """The fields of a node that leases need; the other 10 KB and more are not decoded."""

    spec: _Spec = _Spec()
    status: _Status = _Status()


_NODES = Kind("", "v1", "nodes", _Node, namespaced=False)


@dataclass(frozen=True, slots=True)
class NodeLeasesOptions:
    """``node``: its name, else that of ``pod`` (namespace, name). ``families`` that are served, with their networks;
    ``reserved``: addresses that no pod has; ``condition``: set NetworkUnavailable to False."""

    networks: Mapping[Family, Network]
    node: str = ""
    pod: tuple[str, str] = ("", "")
    prefix: str = PREFIX
    condition: bool = True
    reserved: frozenset[Address] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class _ListBegins:
    """The list is read from its beginning; ``node``: this node's name, empty while it is not known."""

    node: str


class NodeLeases:
    """A ``LeaseSource``."""

    def __init__(self, options: NodeLeasesOptions, client: Client) -> None:
        self._options, self._client = options, client
        self._names = AnnotationNames(options.prefix)
        self._roster = Roster(options.networks, options.node, options.reserved)
        self._notifier = NewsNotifier()
        self._inbox: queue.Queue[Change[_Node] | Away | _ListBegins | None] = queue.Queue(1000)
        self._seen: dict[str, int] = {}  # a hash of each node's fields that matter
        self._listed: set[str] = set()
        self._mine: _Node | None = None
        self._subnets: dict[Family, Network] = {}
        self._node = options.node
        self._offer: Offer | None = None
        self._published = False
        self._away, self._trouble, self._own_trouble = "", "", ""
        self._retry, self._failures = 0.0, 0
        self._repairs: deque[float] = deque(maxlen=_FIGHT)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="nodes watch", daemon=True),
            threading.Thread(target=self._run, name="leases", daemon=True),
        ]

    def __str__(self) -> str:
        return f"nodes of {self._client.server}"

    def start(self, receive: Callable[[News], None]) -> None:
        """As ``LeaseSource``."""
        self._notifier.connect(receive)
        for thread in self._threads:
            thread.start()

    def publish(self, offer: Offer) -> None:
        """As ``LeaseSource``."""
        self._offer = offer
        self._wake()

    def stop(self) -> None:
        """End the threads; the annotations stay."""
        self._stopping.set()
        self._client.close()
        self._wake()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(5.0)

    def _wake(self) -> None:
        try:
            self._inbox.put_nowait(None)
        except queue.Full:
            return  # a full queue wakes the thread, too

    # --- the thread that reads

    def _follow(self) -> None:
        name = self._find_name()
        while not self._stopping.is_set():
            self._enqueue(_ListBegins(name))
            try:
                if name:  # our own node first: a list of thousands may take seconds
                    self._enqueue(Put(name, self._client.get(_NODES, name)))
            except ApiError as error:
                self._enqueue(Away(error, 0.0))
            for change in self._client.follow(_NODES, key=by_name, page=_PAGE):
                self._enqueue(change)
                if isinstance(change, Away) and change.restored:
                    break
                if self._stopping.is_set():
                    return

    def _enqueue(self, item: Change[_Node] | Away | _ListBegins) -> None:
        while not self._stopping.is_set():
            try:
                self._inbox.put(item, timeout=1.0)
                return
            except queue.Full:
                continue

    def _find_name(self) -> str:
        """This node's name: the configured one, else spec.nodeName of our own pod."""
        wait = _WAITS[0]
        while not self._options.node and not self._stopping.is_set():
            namespace, name = self._options.pod
            try:
                node = self._client.get(PODS, name, namespace).spec.node_name
                if node:
                    return node
                problem = ApiError(f"pod {namespace}/{name} has no spec.nodeName")
            except ApiError as error:
                problem = error
            self._enqueue(Away(problem, wait))
            self._stopping.wait(wait)
            wait = min(wait * 2, _WAITS[1])
        return self._options.node

    # --- the thread that decides

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take()
            if self._stopping.is_set():
                return
            offer, now = self._offer, time.monotonic()
            if offer is not None and self._mine is not None and now >= self._retry:
                try:
                    self._keep(offer, self._mine, now)
                except HitlessError as error:
                    self._failed(error)
                except Exception as error:  # noqa: BLE001 - the thread's outermost level: it is reported, and tried again
                    self._failed(ours(error, "keeping the annotations"))
            self._report()

    def _failed(self, error: HitlessError) -> None:
        self._trouble, self._published = str(error), False
        self._retry = time.monotonic() + min(_WAITS[1], _WAITS[0] * 2.0 ** min(self._failures, 16)) * random.uniform(
            0.5, 1.0
        )
        self._failures += 1

    def _take(self) -> None:
        """Wait for the queue, and handle all that is in it."""
        try:
            item = self._inbox.get(timeout=max(0.0, self._retry - time.monotonic()) if self._retry else None)
        except queue.Empty:
            return
        while True:
            if item is not None:
                self._handle(item)
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _handle(self, item: Change[_Node] | Away | _ListBegins) -> None:
        if isinstance(item, Away):
            self._away = str(item.error)
            return
        if isinstance(item, _ListBegins):
            self._node, self._mine = item.node, None
            self._roster.belongs(item.node)
            self._listed.clear()
            return
        self._away = ""
        if isinstance(item, Put):
            self._put(item.value)
        elif isinstance(item, Gone):
            self._gone(item.key)
        else:
            for name in self._seen.keys() - self._listed:
                self._gone(name)
            self._roster.synced = True

    def _put(self, node: _Node) -> None:
        name, annotations = node.metadata.name, node.metadata.annotations or {}
        self._listed.add(name)
        if name == self._node:
            if _older(node, self._mine):
                return  # from a list that was read before our write
            self._mine = node
        spec = node.spec
        values = tuple(annotations.get(name) for name in self._annotations_read())
        mark = hash((node.metadata.uid, values, spec.pod_cidr, tuple(spec.pod_cidrs or ())))
        if self._seen.get(name) == mark:
            return  # mostly a heartbeat
        self._seen[name] = mark
        subnets, wrong = pod_networks(spec.pod_cidrs, spec.pod_cidr)
        families: Collection[Family] = self._options.networks
        lease, why = lease_of(name, annotations, subnets, self._names, families)
        managed = annotations.get(self._names.managed) == "true"
        self._roster.put(name, lease, "; ".join(filter(None, (wrong if managed else "", why))))
        if name == self._node:
            self._own_subnets(subnets, wrong)

    def _annotations_read(self) -> tuple[str, ...]:
        names = self._names
        per_family = (names.data, names.public)
        return (names.managed, names.type, *(name(family) for name in per_family for family in Family))

    def _own_subnets(self, subnets: Mapping[Family, Network], wrong: str) -> None:
        """Use this node's podCIDRs where they are valid; else the earlier ones stay, and the reason is reported."""
        self._own_trouble = wrong
        found: dict[Family, Network] = {}
        for family, network in self._options.networks.items():
            subnet = subnets.get(family)
            if subnet is None:
                self._own_trouble = self._own_trouble or f"this node has no {family.value} podCIDR"
            elif not within(subnet, network):
                self._own_trouble = f"this node's podCIDR {subnet} is outside the network {network}"
            else:
                found[family] = subnet
        if len(found) == len(self._options.networks):
            self._subnets = found

    def _gone(self, name: str) -> None:
        self._seen.pop(name, None)
        self._listed.discard(name)
        self._roster.remove(name)
        if name == self._node:  # the object was deleted: its subnets stay until the kubelet creates it again
            self._mine, self._published = None, False
            self._own_trouble = f"the object of node {name} is gone"

    def _keep(self, offer: Offer, mine: _Node, now: float) -> None:
        """Patch our annotations and condition where they differ from the offer. Raises ``ApiError``."""
        self._roster.reserve(self._options.reserved | {reach.public_ip for reach in offer.reach.values()})
        annotations = mine.metadata.annotations or {}
        differing, wrong = wanted(offer, annotations, self._names)
        patch: dict[str, object] = {}
        if differing:
            patch["metadata"] = {"annotations": differing}
        if self._options.condition and not _network_is_available(mine):
            patch["status"] = {"conditions": [_condition()]}
        if patch:
            self._repairs.append(now)
            if len(self._repairs) == _FIGHT and now - self._repairs[0] < _FIGHT_TIME:
                self._retry = now + _FIGHT_WAIT  # the next repair waits
                wrong = (*wrong, "somebody changes this node's annotations or condition again and again")
            else:
                self._retry = 0.0
            self._mine = self._client.patch(_NODES, mine.metadata.name, "", patch, _STRATEGIC, "status")
            self._put(self._mine)
        else:
            self._retry = 0.0
        self._published, self._failures = True, 0
        self._trouble = "; ".join(wrong)

    def _report(self) -> None:
        leases, changed = self._roster.leases()
        annotations = (self._mine.metadata.annotations or {}) if self._mine is not None else {}
        chosen, wrong = addresses_of(annotations, self._names)
        trouble = self._away or self._trouble or self._own_trouble or "; ".join(wrong)
        own = self._roster.claim(self._node)
        news = News(leases, changed, self._node, dict(self._subnets), own, chosen, self._published, trouble)
        self._notifier.send(news)


def _older(one: _Node, than: _Node | None) -> bool:
    """Whether one is an earlier version of the same object."""
    if than is None or one.metadata.uid != than.metadata.uid:
        return False
    versions = [whole_of(each.metadata.resource_version) for each in (one, than)]
    return versions[0] is not None and versions[1] is not None and versions[0] < versions[1]


def _network_is_available(node: _Node) -> bool:
    found = next((one for one in node.status.conditions or () if one.type == "NetworkUnavailable"), None)
    return found is not None and found.status == "False"


def _condition() -> dict[str, str]:
    """flannel's condition (its pkg/subnet/kube/kube.go, CompleteLease)."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "NetworkUnavailable",
        "status": "False",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
