"""Leases in a directory that all nodes see (--lease-dir): the lab, single machines, a shared file system.

Problem: an overlay needs to know its peers where there is neither Kubernetes nor etcd. Promise: one JSON file for each
node, ``NODE.json``: flannel's lease attributes, with the subnets in front. It is replaced atomically. A subnet is taken
under a lock: the one that this node has, the one of --node-subnet, the one of subnet.env, else the first free one of
net-conf.json's range. Our file is written again when it is removed or changed; other nodes' files are never touched. A
file with an invalid value leaves out its node alone. Removing its file removes a node. Of thousands of files only the
changed ones are read (``kernel.folders``), and all of them now and then.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.kernel.folders import Changed, FolderWatch
from hitless.model import reading
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network, family_of, overlap
from hitless.model.leases import Lease
from hitless.sources.attributes import MOST, attributes_of, lease_from
from hitless.sources.cuts import Cut
from hitless.sources.lease_source import News, NewsNotifier, Offer
from hitless.sources.roster import Roster

__all__ = ["LeaseDirectory", "LeaseDirectoryOptions"]

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,240}")
_AGAIN = 1.0  # seconds, where the directory cannot be used
_MOST_FILES = 20_000
_ALL = Changed(whole=True)
_SUBNET = {Family.IPV4: "Subnet", Family.IPV6: "IPv6Subnet"}


@dataclass(frozen=True, slots=True)
class LeaseDirectoryOptions:
    """``given``: subnets that a flag names; ``previous``: of subnet.env; ``reserved``: addresses that no pod has."""

    directory: Path
    node: str
    cuts: Mapping[Family, Cut]
    given: tuple[Network, ...] = ()
    previous: tuple[Network, ...] = ()
    reserved: frozenset[Address] = field(default_factory=frozenset)


class LeaseDirectory:
    """A ``LeaseSource``."""

    def __init__(self, options: LeaseDirectoryOptions) -> None:
        if not _NAME.fullmatch(options.node):
            expected = "letters, digits, '.', '_' and '-'"
            raise InputError(f"{options.node!r} is not a file name", where="--node-name", expected=expected)
        self._options = options
        networks = {family: one.network for family, one in options.cuts.items()}
        self._roster = Roster(networks, options.node, options.reserved)
        self._notifier = NewsNotifier()
        self._offer: Offer | None = None
        self._subnets: dict[Family, Network] = {}
        self._own: Lease | None = None
        self._known: dict[str, int] = {}  # a hash of each file's inode, size and time
        self._watch: FolderWatch | None = None
        self._offered = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __str__(self) -> str:
        return f"directory {self._options.directory}"

    def start(self, receive: Callable[[News], None]) -> None:
        """As ``LeaseSource``."""
        self._notifier.connect(receive)
        self._thread.start()

    def publish(self, offer: Offer) -> None:
        """As ``LeaseSource``."""
        self._offer = offer
        self._offered.set()
        self._wake()

    def stop(self) -> None:
        """End the thread; the files stay."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _wake(self) -> None:
        if (watch := self._watch) is not None:
            watch.wake()

    def _run(self) -> None:
        while not self._stopping:
            try:
                with FolderWatch(self._options.directory) as watch:
                    self._watch = watch
                    self._follow(watch)
            except OSError as error:  # no descriptor is left
                self._report(published=False, trouble=_message(error))
                time.sleep(_AGAIN)

    def _follow(self, watch: FolderWatch) -> None:
        """Until ``stop``."""
        published, trouble = False, ""
        while not self._stopping:
            before = trouble
            read = False
            try:
                read, published = self._refresh(watch, published)
                trouble = "" if read else before
            except (InputError, OSError) as error:
                trouble = _message(error)
            except Exception as error:  # noqa: BLE001 - the thread's outermost level: the last report stays valid, and it is tried again
                trouble = f"{type(error).__name__}: {error}"
            if trouble:
                published = False
                watch.again()
            if read or trouble != before:
                self._report(published, trouble)
            watch.wait(_AGAIN if trouble else None)

    def _refresh(self, watch: FolderWatch, published: bool) -> tuple[bool, bool]:
        """Read what changed; whether anything did, and whether our file has what we offer."""
        offered = self._offered.is_set()
        self._offered.clear()  # before the offer is read
        changed = watch.changed()
        if not (changed.whole or changed.names or offered):
            return False, published
        begun = time.monotonic()
        news = self._read(changed)
        if changed.whole:
            watch.took(time.monotonic() - begun)
        if offered or not published or self._concerns_us(news):
            published = self._keep_ours()
        return True, published

    def _concerns_us(self, news: Collection[str]) -> bool:
        """Whether our own file is among these, or one that claims our subnet."""
        if self._options.node in news:
            return True
        mine = self._subnets.values()
        claimed = (one for name in news if (lease := self._roster.claim(name)) for one in _subnets_of(lease))
        return any(overlap(one, other) for one in claimed for other in mine)

    def _report(self, published: bool, trouble: str) -> None:
        leases, changed = self._roster.leases()
        subnets = dict(self._subnets)
        self._notifier.send(
            News(leases, changed, self._options.node, subnets, self._own, published=published, trouble=trouble)
        )

    def _read(self, changed: Changed = _ALL) -> set[str]:
        """Update the roster from the files; the nodes whose file changed."""
        names, own = changed.names, self._options.node
        if changed.whole:
            with os.scandir(self._options.directory) as entries:
                names = frozenset(entry.name for entry in entries)
        there: set[str] = set()
        news: set[str] = set()
        for file in names:
            name = _node_of(file)
            if not name or (name not in self._known and len(self._known) >= _MOST_FILES):
                continue
            try:
                if self._read_one(name):
                    news.add(name)
                there.add(name)
            except FileNotFoundError:
                continue
        expected = self._known.keys() if changed.whole else self._known.keys() & {_node_of(one) for one in names}
        for gone in expected - there:
            del self._known[gone]
            news.add(gone)
            if gone != own or self._offer is None:  # ours is written again in a moment
                self._roster.remove(gone)
        if own not in self._known and self._offer is not None:
            news.add(own)
        self._roster.synced = True
        return news

    def _read_one(self, name: str) -> bool:
        """Read a node's file; whether it changed. Raises ``FileNotFoundError``."""
        path = f"{self._options.directory}/{name}.json"
        status = os.stat(path)  # noqa: PTH116 - a Path takes as long again, for each of thousands
        mark = hash((status.st_ino, status.st_size, status.st_mtime_ns))
        if self._known.get(name) == mark:
            return False
        own = name == self._options.node
        try:
            text = files.read(Path(path), most=MOST)
        except FileNotFoundError:
            raise
        except OSError as error:
            self._known[name] = 0
            self._roster.put(name, None, f"cannot be read: {error.strerror}")
            return True
        self._known[name] = mark
        lease, why = _lease(name, text)
        if own:
            self._own = lease
        if not own or self._offer is None:
            self._roster.put(name, lease, why)
        return True

    def _keep_ours(self) -> bool:
        """Take a subnet, and write our file where it differs from the offer; false while there is no offer."""
        offer = self._offer
        if offer is None:
            if not self._subnets and self._own is not None:
                self._subnets = self._still_fitting(self._own)
            return False
        self._roster.reserve(self._options.reserved | {reach.public_ip for reach in offer.reach.values()})
        path = self._options.directory / f"{self._options.node}.json"
        lock = files.own(self._options.directory / ".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()  # what changed while we waited for the lock
            self._subnets = self._choose(offer)
            text = _text(self._subnets, offer).encode()
            try:
                current = files.read(path, most=MOST)
            except OSError:
                current = b""
            if current != text:
                files.replace(path, text, durable=False)
        finally:
            os.close(lock)
        lease = offer.lease(self._options.node, self._subnets)
        self._own = lease
        self._roster.put(self._options.node, lease)
        return True

    def _still_fitting(self, lease: Lease) -> dict[Family, Network]:
        """The subnets of our own lease that still fit the configuration."""
        cuts, given = self._options.cuts, {family_of(one): one for one in self._options.given}
        found = {family: one.subnet for family, one in lease.endpoints.items() if family in cuts}
        return {family: subnet for family, subnet in found.items() if given.get(family, subnet) == subnet}

    def _choose(self, offer: Offer) -> dict[Family, Network]:
        """A subnet for each family; raises ``InputError`` where none can be had. Under the lock."""
        taken = [(name, one) for name, lease in self._others() for one in _subnets_of(lease)]
        chosen: dict[Family, Network] = {}
        kept = self._still_fitting(self._own) if self._own is not None else {}
        given = {family_of(one): one for one in self._options.given}
        before = {family_of(one): one for one in self._options.previous}
        for family, cut in self._options.cuts.items():
            if family in given:
                holder = next((name for name, one in taken if overlap(one, given[family])), "")
                if holder:
                    message = f"{given[family]} is held by node {holder}"
                    raise InputError(message, where="--node-subnet", expected="a subnet that is free")
                chosen[family] = given[family]
                continue
            wanted = [
                one for one in (self._subnets.get(family), kept.get(family), before.get(family)) if one is not None
            ]
            free = (one for one in wanted if cut.fits(one) and not any(overlap(one, other) for _, other in taken))
            found = next(free, None) or next(cut.free(one for _, one in taken), None)
            if found is None:
                message = f"no subnet of {cut.network} is free"
                raise InputError(
                    message, where=str(self._options.directory), expected="a larger network, or fewer nodes"
                )
            chosen[family] = found
        return chosen

    def _others(self) -> Iterable[tuple[str, Lease]]:
        return ((name, lease) for name, lease in self._roster.claims() if name != self._options.node)


def _node_of(file: str) -> str:
    """The node of a file name; empty for other files."""
    name = file.removesuffix(".json")
    return name if name != file and _NAME.fullmatch(name) else ""


def _subnets_of(lease: Lease) -> list[Network]:
    return [endpoint.subnet for endpoint in lease.endpoints.values()]


def _lease(name: str, text: bytes) -> tuple[Lease | None, str]:
    """The lease that a file holds, and what is wrong with it."""
    try:
        value = from_json(text, most=MOST)
        if not isinstance(value, Mapping):
            raise InputError("no JSON object", where=f"{name}.json", expected="flannel's lease attributes")
        subnets = {
            family: reading.network(value[key], where=f"{name}.json: {key}", family=family)
            for family, key in _SUBNET.items()
            if value.get(key) is not None
        }
        if not subnets:
            raise InputError("no subnet", where=f"{name}.json", expected="Subnet or IPv6Subnet")
        lease, why = lease_from(name, value, subnets)
        return lease, "; ".join(why)
    except ValueError as error:
        return None, f"{name}.json: no JSON ({error})"
    except InputError as error:
        return None, str(error)


def _text(subnets: Mapping[Family, Network], offer: Offer) -> str:
    fields = {_SUBNET[family]: str(subnets[family]) for family in Family if family in subnets}
    return json.dumps({**fields, **attributes_of(offer)}, indent=1) + "\n"


def _message(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the directory'}: {error.strerror or error}"
    return str(error)
