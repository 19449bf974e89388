"""The last report of a lease source, kept in a file, so that an agent can start while the source is away.

Problem: when an agent starts while the API server or etcd is away, the kernel's state is complete, but the agent does
not know the leases: damage cannot be repaired. Promise: ``CachedSource`` wraps a source. Until the source has reported
everything, the file's leases are reported, with ``synced`` false, so that nothing is removed because of them; leases
that the source has reported already replace them, node by node. The report of a synced source is written to the file
atomically, at most every ``every`` seconds. A file that is not complete, or of another source or network, is not used.
Next stage: the overlay.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model import reading
from hitless.model.documents import from_json
from hitless.model.families import Address, Family, Network
from hitless.model.leases import Lease, Leases
from hitless.sources.attributes import attributes_of, lease_from
from hitless.sources.lease_source import LeaseSource, News, NewsNotifier, Offer, Reach

__all__ = ["CachedSource", "CachedState", "read_state", "write_state"]

_VERSION = 1
_MOST = 64 << 20  # bytes: a hundred thousand nodes
_EVERY = 30.0
_FIELDS = frozenset(("version", "source", "config", "node", "subnets", "addresses", "leases"))


@dataclass(frozen=True, slots=True)
class CachedState:
    """``source``: where it is from, and ``config``: net-conf.json where that came from etcd."""

    source: str
    node: str
    subnets: Mapping[Family, Network]
    addresses: Mapping[Family, Address]
    leases: Mapping[str, Lease]
    config: str = field(default="", compare=False)


def read_state(path: Path) -> CachedState | None:
    """The file's state; ``None`` where there is no file. Raises ``InputError`` for one that is not complete."""
    try:
        text = files.read(path, most=_MOST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), expected="a state file") from error
    try:
        value = from_json(text, most=_MOST)
    except ValueError as error:
        raise InputError(f"no JSON ({error})", where=str(path), expected="a state file") from error
    if not isinstance(value, Mapping) or value.keys() != _FIELDS or value["version"] != _VERSION:
        raise InputError("is of another form", where=str(path), expected=f"a state file of version {_VERSION}")
    source, node, config = (_text(value, key, path) for key in ("source", "node", "config"))
    addresses = {
        family: reading.address(text, where=f"{path}: addresses", family=family)
        for family, text in _families(value["addresses"], path)
    }
    return CachedState(
        source, node, _subnets(value["subnets"], path), addresses, _leases(value["leases"], path), config
    )


def write_state(path: Path, state: CachedState) -> None:
    """Replace the file by this state, atomically; raises ``OSError``."""
    leases = {
        name: {"subnets": _subnet_texts(lease), "attributes": attributes_of(_offer(lease))}
        for name, lease in state.leases.items()
    }
    document = {
        "version": _VERSION,
        "source": state.source,
        "config": state.config,
        "node": state.node,
        "subnets": {family.value: str(one) for family, one in state.subnets.items()},
        "addresses": {family.value: str(one) for family, one in state.addresses.items()},
        "leases": leases,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.replace(path, json.dumps(document, separators=(",", ":")).encode(), mode=0o600)


def _subnet_texts(lease: Lease) -> dict[str, str]:
    return {family.value: str(one.subnet) for family, one in lease.endpoints.items()}


def _offer(lease: Lease) -> Offer:
    reach = {
        family: Reach(one.public_ip, one.mac, one.vni, one.public_key, one.port)
        for family, one in lease.endpoints.items()
    }
    return Offer(lease.backend, reach)


def _text(value: Mapping[str, object], key: str, path: Path) -> str:
    found = value[key]
    if not isinstance(found, str):
        raise InputError(reading.shown(found), where=f"{path}: {key}", expected="a text")
    return found


def _families(value: object, path: Path) -> list[tuple[Family, object]]:
    if not isinstance(value, Mapping) or not value.keys() <= {family.value for family in Family}:
        raise InputError(reading.shown(value), where=str(path), expected="an object of families")
    return [(Family(name), one) for name, one in value.items()]


def _subnets(value: object, path: Path) -> dict[Family, Network]:
    return {
        family: reading.network(text, where=f"{path}: subnets", family=family)
        for family, text in _families(value, path)
    }


def _leases(value: object, path: Path) -> dict[str, Lease]:
    if not isinstance(value, Mapping):
        raise InputError("leases is not an object", where=str(path), expected="a state file")
    found: dict[str, Lease] = {}
    for name, one in value.items():
        if not isinstance(one, Mapping) or one.keys() != {"subnets", "attributes"}:
            raise InputError(f"the lease of {reading.shown(name)} is none", where=str(path), expected="a state file")
        lease, why = lease_from(name, one["attributes"], _subnets(one["subnets"], path))
        if lease is None or why:
            raise InputError(f"the lease of {reading.shown(name)}: {'; '.join(why)}", where=str(path))
        found[name] = lease
    return found


class CachedSource:
    """A ``LeaseSource`` in front of another one. ``path`` ``None``: nothing is written. ``state``: the file's.
    ``failed`` gets the reason when the file cannot be written."""

    def __init__(
        self,
        source: LeaseSource,
        path: Path | None,
        state: CachedState | None,
        failed: Callable[[str], None],
        *,
        config: str = "",
        every: float = _EVERY,
    ) -> None:
        self._source, self._path, self._failed, self._config, self._every = source, path, failed, config, every
        self._state = state if state is not None and state.source == str(source) else None
        self._notifier = NewsNotifier()
        self._lock = threading.Lock()
        self._due: News | None = None  # to be written
        self._written = state
        self._at = -every
        self._timer: threading.Timer | None = None

    def __str__(self) -> str:
        return str(self._source)

    def start(self, receive: Callable[[News], None]) -> None:
        """Begin: the file's leases are reported first."""
        self._notifier.connect(receive)
        if self._state is not None:
            self._notifier.send(
                self._merged(News(trouble=f"{self._source} has not answered yet: its last leases are used"))
            )
        self._source.start(self._receive)

    def publish(self, offer: Offer) -> None:
        """As ``LeaseSource``."""
        self._source.publish(offer)

    def stop(self) -> None:
        """End, and write what is not written yet."""
        self._source.stop()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        self._save()

    def _receive(self, news: News) -> None:
        if news.leases.synced:
            if self._state is not None:
                self._state, news = None, replace(news, changed=None)  # nodes that only the file had are removed now
            self._schedule(news)
        self._notifier.send(self._merged(news))

    def _merged(self, news: News) -> News:
        """The news, completed from the file while the source has not reported everything."""
        state = self._state
        if state is None:
            return news
        leases = Leases({**state.leases, **news.leases.by_node}, news.leases.refused)
        own = news.own or state.leases.get(news.node or state.node)
        return replace(
            news,
            leases=leases,
            changed=None,
            node=news.node or state.node,
            subnets=news.subnets or state.subnets,
            own=own,
            addresses=news.addresses or (state.addresses if news.own is None else {}),
        )

    def _schedule(self, news: News) -> None:
        """Write at once, or ``every`` seconds after the last time."""
        if not news.subnets or self._path is None:
            return  # nothing was offered yet, or there is no file
        with self._lock:
            self._due = news
            if self._timer is not None:
                return
            wait = max(0.0, self._at + self._every - time.monotonic())
            self._timer = threading.Timer(wait, self._save)
            self._timer.daemon = True
            self._timer.start()

    def _save(self) -> None:
        with self._lock:
            news, self._due, self._timer, self._at = self._due, None, None, time.monotonic()
            if news is None or self._path is None:
                return
            state = CachedState(
                str(self._source), news.node, news.subnets, news.addresses, news.leases.by_node, self._config
            )
            if state == self._written:
                return
            try:
                write_state(self._path, state)
                self._written = state
            except OSError as error:
                self._failed(f"{self._path} cannot be written: {error.strerror or error}")
