"""Leases from Kubernetes: the Node objects' podCIDRs and flannel's annotations, of everybody and of this node.

Problem: flannel writes its annotations once, so that a node whose annotations somebody removes is never found by
newcomers; it overlooks a podCIDR that changes, and ends when the API server is away. Promise: all nodes are read as a
stream, and of each only its lease is kept; this node's annotations are put right whenever they say something else
(a tug of war is slowed down, and said), and NetworkUnavailable is set to False where it is not. While the API server is
away everything stays as it was told. It needs what flannel's ClusterRole gives: get pods; get, list and watch nodes;
patch nodes/status. Two threads: one reads, one decides.
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
from hitless.sources.lease_source import News, Offer, Teller
from hitless.sources.roster import Roster

__all__ = ["NodeLeases", "NodeLeasesOptions"]

_PAGE = 100  # nodes of a page: with fifty images each they are 3 MB
_WAITS = (0.5, 30.0)  # seconds between tries to write, doubled from the first to the last
_STRATEGIC: PatchType = "application/strategic-merge-patch+json"
_TUG, _TUG_TIME, _TUG_WAIT = 5, 60.0, 10.0  # so many repairs in so many seconds, and the next one waits


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)


class _Status(msgspec.Struct, frozen=True):
    conditions: list[Condition] | None = None


class _Node(Object, frozen=True):
    """What leases need of a node: the rest of its 10 KB and more is passed over while it is read."""

    spec: _Spec = _Spec()
    status: _Status = _Status()


_NODES = Kind("", "v1", "nodes", _Node, namespaced=False)


@dataclass(frozen=True, slots=True)
class NodeLeasesOptions:
    """``node``: its name, else that of ``pod`` (namespace, name). ``families`` that are served, with their networks;
    ``reserved``: addresses that are no pod's; ``condition``: set NetworkUnavailable to False."""

    networks: Mapping[Family, Network]
    node: str = ""
    pod: tuple[str, str] = ("", "")
    prefix: str = PREFIX
    condition: bool = True
    reserved: frozenset[Address] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class _Begin:
    """The list is read from its beginning; this node's name is known (or not yet)."""

    node: str


class NodeLeases:
    """A ``LeaseSource``."""

    def __init__(self, options: NodeLeasesOptions, client: Client) -> None:
        self._options, self._client = options, client
        self._names = AnnotationNames(options.prefix)
        self._roster = Roster(options.networks, options.node, options.reserved)
        self._teller = Teller()
        self._inbox: queue.Queue[Change[_Node] | Away | _Begin | None] = queue.Queue(1000)
        self._seen: dict[str, int] = {}  # a mark of each node's word
        self._listed: set[str] = set()
        self._mine: _Node | None = None
        self._subnets: dict[Family, Network] = {}
        self._node = options.node
        self._offer: Offer | None = None
        self._published = False
        self._away, self._trouble, self._said = "", "", ""
        self._retry, self._failures = 0.0, 0
        self._repairs: deque[float] = deque(maxlen=_TUG)
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, name="nodes watch", daemon=True),
            threading.Thread(target=self._run, name="leases", daemon=True),
        ]

    def __str__(self) -> str:
        return f"nodes of {self._client.server}"

    def start(self, tell: Callable[[News], None]) -> None:
        """Begin."""
        self._teller.to(tell)
        for thread in self._threads:
            thread.start()

    def publish(self, offer: Offer) -> None:
        """Keep this published."""
        self._offer = offer
        self._wake()

    def stop(self) -> None:
        """End; the annotations stay."""
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
            return  # then there is enough to wake up for

    # --- the thread that reads

    def _follow(self) -> None:
        name = self._find_name()
        while not self._stopping.is_set():
            self._tell(_Begin(name))
            try:
                if name:  # our own word first: the list of thousands may take seconds
                    self._tell(Put(name, self._client.get(_NODES, name)))
            except ApiError as error:
                self._tell(Away(error, 0.0))
            for change in self._client.follow(_NODES, key=by_name, page=_PAGE):
                self._tell(change)
                if isinstance(change, Away) and change.error.status == 504 and "resource version" in str(change.error):
                    break  # the server was put back to an earlier state: its list has to be read again
                if self._stopping.is_set():
                    return

    def _tell(self, item: Change[_Node] | Away | _Begin) -> None:
        while not self._stopping.is_set():
            try:
                self._inbox.put(item, timeout=1.0)
                return
            except queue.Full:
                continue

    def _find_name(self) -> str:
        """This node's name: as told, else of the pod that we are."""
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
            self._tell(Away(problem, wait))
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
                except Exception as error:  # noqa: BLE001 - the thread's border: it is tried again, and told
                    self._failed(ours(error, "keeping the annotations"))
            self._say()

    def _failed(self, error: HitlessError) -> None:
        self._trouble, self._published = str(error), False
        self._retry = time.monotonic() + min(_WAITS[1], _WAITS[0] * 2.0 ** min(self._failures, 16)) * random.uniform(
            0.5, 1.0
        )
        self._failures += 1

    def _take(self) -> None:
        """Wait for news, and take all that is there."""
        try:
            item = self._inbox.get(timeout=max(0.0, self._retry - time.monotonic()) if self._retry else None)
        except queue.Empty:
            return
        while True:
            if item is not None:
                self._one(item)
            try:
                item = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _one(self, item: Change[_Node] | Away | _Begin) -> None:
        if isinstance(item, Away):
            self._away = str(item.error)
            return
        if isinstance(item, _Begin):
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
                return  # of a list that was read before we wrote
            self._mine = node
        spec = node.spec
        words = tuple(annotations.get(word) for word in self._read_words())
        mark = hash((node.metadata.uid, words, spec.pod_cidr, tuple(spec.pod_cidrs or ())))
        if self._seen.get(name) == mark:
            return  # a heartbeat, mostly
        self._seen[name] = mark
        subnets, wrong = pod_networks(spec.pod_cidrs, spec.pod_cidr)
        families: Collection[Family] = self._options.networks
        lease, why = lease_of(name, annotations, subnets, self._names, families)
        managed = annotations.get(self._names.managed) == "true"
        self._roster.put(name, lease, "; ".join(filter(None, (wrong if managed else "", why))))
        if name == self._node:
            self._own_subnets(subnets, wrong)

    def _read_words(self) -> tuple[str, ...]:
        names = self._names
        per_family = (names.data, names.public)
        return (names.managed, names.type, *(word(family) for word in per_family for family in Family))

    def _own_subnets(self, subnets: Mapping[Family, Network], wrong: str) -> None:
        """Take up this node's podCIDRs where they can be used; else those of before stay, and the reason is said."""
        self._said = wrong
        found: dict[Family, Network] = {}
        for family, network in self._options.networks.items():
            subnet = subnets.get(family)
            if subnet is None:
                self._said = self._said or f"this node has no {family.value} podCIDR"
            elif not within(subnet, network):
                self._said = f"this node's podCIDR {subnet} is outside the network {network}"
            else:
                found[family] = subnet
        if len(found) == len(self._options.networks):
            self._subnets = found

    def _gone(self, name: str) -> None:
        self._seen.pop(name, None)
        self._listed.discard(name)
        self._roster.remove(name)
        if name == self._node:  # somebody deleted the object: what it said stays, until the kubelet makes it again
            self._mine, self._published = None, False
            self._said = f"the object of node {name} is gone"

    def _keep(self, offer: Offer, mine: _Node, now: float) -> None:
        """See that our annotations say what we offer. Raises ``ApiError``."""
        self._roster.reserve(self._options.reserved | {reach.public_ip for reach in offer.reach.values()})
        annotations = mine.metadata.annotations or {}
        said, wrong = wanted(offer, annotations, self._names)
        patch: dict[str, object] = {}
        if said:
            patch["metadata"] = {"annotations": said}
        if self._options.condition and not _network_is_available(mine):
            patch["status"] = {"conditions": [_condition()]}
        if patch:
            self._repairs.append(now)
            if len(self._repairs) == _TUG and now - self._repairs[0] < _TUG_TIME:
                self._retry = now + _TUG_WAIT  # before it is done again
                wrong = (*wrong, "somebody changes this node's annotations or condition again and again")
            else:
                self._retry = 0.0
            self._mine = self._client.patch(_NODES, mine.metadata.name, "", patch, _STRATEGIC, "status")
            self._put(self._mine)
        else:
            self._retry = 0.0
        self._published, self._failures = True, 0
        self._trouble = "; ".join(wrong)

    def _say(self) -> None:
        leases, changed = self._roster.leases()
        annotations = (self._mine.metadata.annotations or {}) if self._mine is not None else {}
        chosen, wrong = addresses_of(annotations, self._names)
        trouble = self._away or self._trouble or self._said or "; ".join(wrong)
        own = self._roster.word(self._node)
        news = News(leases, changed, self._node, dict(self._subnets), own, chosen, self._published, trouble)
        self._teller.say(news)


def _older(one: _Node, than: _Node | None) -> bool:
    """Whether an object is of a time before another one's."""
    if than is None or one.metadata.uid != than.metadata.uid:
        return False
    versions = [whole_of(each.metadata.resource_version) for each in (one, than)]
    return versions[0] is not None and versions[1] is not None and versions[0] < versions[1]


def _network_is_available(node: _Node) -> bool:
    found = next((one for one in node.status.conditions or () if one.type == "NetworkUnavailable"), None)
    return found is not None and found.status == "False"


def _condition() -> dict[str, str]:
    """flannel's words (its pkg/subnet/kube/kube.go, CompleteLease)."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "NetworkUnavailable",
        "status": "False",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
        "reason": "FlannelIsUp",
        "message": "Flannel is running on this node",
    }
