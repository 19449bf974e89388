"""Leases in a directory that all nodes see (--lease-dir): the lab, single machines, a shared file system.

Problem: an overlay needs to know its peers where there is neither Kubernetes nor etcd. Promise: one JSON file for each
node, ``NODE.json``, flannel's lease attributes with the subnets in front; it is replaced whole, so that a reader never
sees a half. A subnet is taken under a lock: the one that this node has, the one it was given, the one it had
(subnet.env), else the first free one of net-conf.json's range. Our file is written again when somebody removes or
changes it; nobody else's is touched. A file that says nonsense leaves its node out, and the others are served. A node
leaves by its file being removed. The directory is looked at ten times a second (one stat), read when it changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network, family_of
from hitless.model.leases import Lease
from hitless.sources.attributes import MOST, decoded, encoded
from hitless.sources.cuts import Cut
from hitless.sources.leasing import News, Offer, Teller
from hitless.sources.roster import Roster

__all__ = ["SharedDirectory", "SharedOptions"]

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,240}")
_EVERY = 0.1  # seconds between looks at the directory's time
_WHOLE = 5.0  # seconds between readings of everything: a file that is written in place changes no directory
_SETTLED = (
    0.1  # a directory's time is as coarse as the kernel's clock: a change just now may have a second one behind it
)
_MOST_FILES = 20_000
_SUBNET = {Family.IPV4: "Subnet", Family.IPV6: "IPv6Subnet"}


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """``given``: subnets that a flag names; ``previous``: of subnet.env; ``reserved``: addresses that are no pod's."""

    directory: Path
    node: str
    cuts: Mapping[Family, Cut]
    given: tuple[Network, ...] = ()
    previous: tuple[Network, ...] = ()
    reserved: frozenset[Address] = field(default_factory=frozenset)


class SharedDirectory:
    """A ``LeaseSource``."""

    def __init__(self, options: SharedOptions) -> None:
        if not _NAME.fullmatch(options.node):
            expected = "letters, digits, '.', '_' and '-'"
            raise InputError(f"{options.node!r} is no file's name", where="--node-name", expected=expected)
        self._options = options
        networks = {family: one.network for family, one in options.cuts.items()}
        self._roster = Roster(networks, options.node, options.reserved)
        self._teller = Teller()
        self._offer: Offer | None = None
        self._subnets: dict[Family, Network] = {}
        self._own: Lease | None = None
        self._known: dict[str, tuple[int, int, int]] = {}  # of each file: inode, size, time
        self._seen, self._read_at = -1, 0.0
        self._news = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def __str__(self) -> str:
        return f"directory {self._options.directory}"

    def start(self, tell: Callable[[News], None]) -> None:
        """Begin."""
        self._teller.to(tell)
        self._thread.start()

    def publish(self, offer: Offer) -> None:
        """Keep this published."""
        self._offer = offer
        self._news.set()

    def stop(self) -> None:
        """End; the files stay."""
        self._stopping = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        published, trouble = False, ""
        while not self._stopping:
            before = trouble
            looked, trouble = False, ""
            try:
                if self._news.is_set() or self._changed():
                    looked = True
                    self._news.clear()
                    self._read()
                    published = self._keep_ours()
                else:
                    trouble = before
            except (InputError, OSError) as error:
                trouble = _words(error)
            except Exception as error:  # noqa: BLE001 - the thread's border: what was told stays, and it is tried again
                trouble = f"{type(error).__name__}: {error}"
            if trouble:
                published, self._seen = False, -1
            if looked or trouble != before:
                self._say(published, trouble)
            self._news.wait(1.0 if trouble else _EVERY)

    def _say(self, published: bool, trouble: str) -> None:
        leases, changed = self._roster.leases()
        subnets = dict(self._subnets)
        self._teller.say(
            News(leases, changed, self._options.node, subnets, self._own, published=published, trouble=trouble)
        )

    def _changed(self) -> bool:
        """Whether the directory has to be read."""
        try:
            at = self._options.directory.stat().st_mtime_ns
        except FileNotFoundError:
            self._options.directory.mkdir(parents=True, exist_ok=True)
            at = self._options.directory.stat().st_mtime_ns
        now = time.monotonic()
        if at == self._seen and now - self._read_at < _WHOLE:
            return False
        fresh = abs(time.time_ns() - at) < _SETTLED * 1e9
        self._seen, self._read_at = -1 if fresh else at, now
        return True

    def _read(self) -> None:
        """Bring the roster up to what the files say."""
        names: set[str] = set()
        own = self._options.node
        with os.scandir(self._options.directory) as entries:
            for entry in entries:
                name = entry.name.removesuffix(".json")
                if name == entry.name or not _NAME.fullmatch(name) or len(names) >= _MOST_FILES:
                    continue
                try:
                    status = entry.stat()
                except FileNotFoundError:
                    continue
                names.add(name)
                mark = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._known.get(name) == mark:
                    continue
                try:
                    text = files.read(self._options.directory / entry.name, most=MOST)
                except FileNotFoundError:
                    names.discard(name)
                    continue
                except OSError as error:
                    self._roster.put(name, None, f"cannot be read: {error.strerror}")
                    continue
                self._known[name] = mark
                lease, why = _lease(name, text)
                if name == own:
                    self._own = lease
                if name != own or self._offer is None:
                    self._roster.put(name, lease, why)
        if own not in names and self._offer is not None:
            names.add(own)  # it is written again in a moment
        for gone in self._known.keys() - names:
            del self._known[gone]
        self._roster.keep_only(names)
        self._roster.synced = True

    def _keep_ours(self) -> bool:
        """Take a subnet, and see that our file says what we offer; true when it does."""
        offer = self._offer
        if offer is None:
            if not self._subnets and self._own is not None:
                self._subnets = self._still_good(self._own)
            return False
        self._roster.reserve(self._options.reserved | {reach.public_ip for reach in offer.reach.values()})
        path = self._options.directory / f"{self._options.node}.json"
        lock = files.own(self._options.directory / ".lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._read()  # what came while the lock was waited for
            self._subnets = self._choose(offer)
            text = _text(self._subnets, offer).encode()
            try:
                standing = files.read(path, most=MOST)
            except OSError:
                standing = b""
            if standing != text:
                files.replace(path, text, durable=False)
        finally:
            os.close(lock)
        lease = offer.lease(self._options.node, self._subnets)
        self._own = lease
        self._roster.put(self._options.node, lease)
        return True

    def _still_good(self, lease: Lease) -> dict[Family, Network]:
        """The subnets of a lease of ours that fit the configuration of today."""
        cuts, given = self._options.cuts, {family_of(one): one for one in self._options.given}
        found = {family: one.subnet for family, one in lease.endpoints.items() if family in cuts}
        return {family: subnet for family, subnet in found.items() if given.get(family, subnet) == subnet}

    def _choose(self, offer: Offer) -> dict[Family, Network]:
        """A subnet for each family; raises ``InputError`` where none can be had. Under the lock."""
        taken = [(name, one) for name, lease in self._others() for one in _subnets_of(lease)]
        chosen: dict[Family, Network] = {}
        kept = self._still_good(self._own) if self._own is not None else {}
        given = {family_of(one): one for one in self._options.given}
        before = {family_of(one): one for one in self._options.previous}
        for family, cut in self._options.cuts.items():
            if family in given:
                holder = next((name for name, one in taken if _overlap(one, given[family])), "")
                if holder:
                    words = f"{given[family]} is held by node {holder}"
                    raise InputError(words, where="--node-subnet", expected="a subnet that is free")
                chosen[family] = given[family]
                continue
            wanted = [
                one for one in (self._subnets.get(family), kept.get(family), before.get(family)) if one is not None
            ]
            free = (one for one in wanted if cut.fits(one) and not any(_overlap(one, other) for _, other in taken))
            found = next(free, None) or next(cut.free(one for _, one in taken), None)
            if found is None:
                words = f"no subnet of {cut.network} is free"
                raise InputError(words, where=str(self._options.directory), expected="a larger network, or fewer nodes")
            chosen[family] = found
        return chosen

    def _others(self) -> Iterable[tuple[str, Lease]]:
        return ((name, lease) for name, lease in self._roster.told() if name != self._options.node)


def _subnets_of(lease: Lease) -> list[Network]:
    return [endpoint.subnet for endpoint in lease.endpoints.values()]


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _lease(name: str, text: bytes) -> tuple[Lease | None, str]:
    """What a file says, and what is wrong with it."""
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
        lease, why, _ = decoded(name, text, subnets)
        return lease, "; ".join(why)
    except ValueError as error:
        return None, f"{name}.json: no JSON ({error})"
    except InputError as error:
        return None, str(error)


def _text(subnets: Mapping[Family, Network], offer: Offer) -> str:
    said = {_SUBNET[family]: str(subnets[family]) for family in Family if family in subnets}
    return json.dumps({**said, **json.loads(encoded(offer))}, indent=1) + "\n"


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'the directory'}: {error.strerror or error}"
    return str(error)
