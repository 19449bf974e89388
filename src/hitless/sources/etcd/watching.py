"""List and watch of etcd as a state machine without I/O: which request to send next, and what a response changes.

Problem: a list comes in pages of one revision, and a watch continues from that revision. The watch is refused when the
revision was compacted. After etcd was restored from a backup, a watch reports nothing: it waits for a revision that
will be assigned a second time. Promise: ``Following`` gives the next request and reads the response. Before it watches
again it reads one known key, whose revisions differ if the history is another one. Who applies each ``KeyPut`` and
``KeyDeleted`` has the same keys as etcd at every ``KeysSynced`` and after each change that follows. A response that is
not etcd's raises ``ValueError``. Next stage: ``source``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hitless.model.reading import number
from hitless.sources.etcd.keys import decoded, encoded, past

__all__ = ["Change", "Following", "KeyDeleted", "KeyPut", "KeysSynced"]

_PAGE = 1000  # keys of a page: a quarter of a megabyte
_PAGES = 1000


@dataclass(frozen=True, slots=True)
class KeyPut:
    """A key has this value; ``lease`` 0: it does not expire. ``created`` and ``modified`` are revisions."""

    key: str
    value: bytes
    lease: int
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class KeyDeleted:
    """A key was deleted."""

    key: str
    modified: int


@dataclass(frozen=True, slots=True)
class KeysSynced:
    """A list was read to its end: ``keys`` are all keys at ``revision``. It may come again."""

    keys: frozenset[str]
    revision: int


Change = KeyPut | KeyDeleted | KeysSynced


class Following:
    """List and watch of all keys below a prefix."""

    def __init__(self, prefix: str, *, page: int = _PAGE) -> None:
        self._prefix, self._page = prefix, page
        self._cluster = 0
        self._begin()

    def _begin(self) -> None:
        self._next = "list"
        self._revision = 0
        self._witness: tuple[str, int, int] | None = None  # a key, its create and mod revision
        self._from = self._prefix.encode()
        self._listed: set[str] = set()
        self._pages = 0

    def lists(self) -> bool:
        """Whether the next request is for the list."""
        return self._next == "list"

    def again(self) -> None:
        """Read the list from its beginning."""
        self._begin()

    def request(self) -> tuple[str, dict[str, Any]]:
        """Path and body of the next request."""
        end = encoded(past(self._prefix))
        if self._next == "check" and self._witness is None:
            self._begin()
        if self._next == "check" and self._witness is not None:
            return "kv/range", {"key": encoded(self._prefix + self._witness[0])}
        if self._next != "list":
            self._next = "check"  # a request after this one means that the watch was lost
            create = {
                "key": encoded(self._prefix),
                "range_end": end,
                "start_revision": str(self._revision + 1),
                "fragment": True,
            }
            return "watch", {"create_request": create}
        body: dict[str, Any] = {"key": encoded(self._from), "range_end": end, "limit": str(self._page)}
        if self._revision:
            body["revision"] = str(self._revision)
        return "kv/range", body

    def page(self, response: Mapping[str, Any]) -> Iterator[Change]:
        """The changes of one page of the list. Raises ``ValueError``."""
        if self._next == "check":
            return self._check(response)
        header = _object(response, "header")
        self._cluster = _number(header, "cluster_id")
        self._revision = self._revision or _number(header, "revision")
        if not self._revision:
            raise ValueError("an answer without a revision")
        self._pages += 1
        if self._pages > _PAGES:
            raise ValueError("a list without an end")
        changes: list[Change] = []
        last = self._from
        for kv in _objects(response, "kvs"):
            last = max(last, decoded(kv.get("key")))
            if (put := self._put(kv)) is not None:
                self._listed.add(put.key)
                self._note(put)
                changes.append(put)
        if response.get("more") is True and changes:
            self._from = last + b"\0"
        else:
            changes.append(KeysSynced(frozenset(self._listed), self._revision))
            self._next, self._listed = "watch", set()
        return iter(changes)

    def _check(self, response: Mapping[str, Any]) -> Iterator[Change]:
        """Go on watching if etcd's history is still the same: the known key has the known revisions."""
        assert self._witness is not None, "its key was requested"
        _, created, modified = self._witness
        found = next(_objects(response, "kvs"), {})
        same = _number(found, "create_revision") == created
        if same and (_number(found, "mod_revision") == modified or _number(found, "mod_revision") > self._revision):
            self._next = "watch"
        else:
            self._begin()
        return iter(())

    def _note(self, put: KeyPut) -> None:
        if self._witness is None or put.modified >= self._witness[2] or put.key == self._witness[0]:
            self._witness = (put.key, put.created, put.modified)

    def result(self, response: Mapping[str, Any]) -> Iterator[Change]:
        """The changes of one message of the watch; afterwards ``lists`` is true where the list must be read again."""
        header = _object(response, "header")
        revision, cluster = _number(header, "revision"), _number(header, "cluster_id")
        if response.get("canceled") is True or _number(response, "compact_revision"):
            self._begin()
            return iter(())
        if cluster != self._cluster or (response.get("created") is True and revision < self._revision):
            self._begin()  # another cluster, or this one was restored from a backup
            return iter(())
        changes: list[Change] = []
        for event in _objects(response, "events"):
            kv = _object(event, "kv")
            modified = _number(kv, "mod_revision")
            if event.get("type", "PUT") == "DELETE":
                key = self._name(kv)
                if key is not None:
                    changes.append(KeyDeleted(key, modified))
                    if self._witness is not None and self._witness[0] == key:
                        self._witness = None
            elif (put := self._put(kv)) is not None:
                changes.append(put)
                self._note(put)
        if changes and response.get("fragment") is not True:
            # a revision in fragments is not complete yet: if the watch breaks now, it must be sent again
            self._revision = max(self._revision, *(one.modified for one in changes if not isinstance(one, KeysSynced)))
        return iter(changes)

    def _put(self, kv: Mapping[str, Any]) -> KeyPut | None:
        key = self._name(kv)
        value = decoded(kv.get("value", ""))
        numbers = (_number(kv, "lease"), _number(kv, "create_revision"), _number(kv, "mod_revision"))
        return None if key is None else KeyPut(key, value, *numbers)

    def _name(self, kv: Mapping[str, Any]) -> str | None:
        """The key without the prefix; ``None`` for one that is not below it, or not UTF-8."""
        try:
            key = decoded(kv.get("key")).decode()
        except UnicodeDecodeError:
            return None
        return key.removeprefix(self._prefix) if key.startswith(self._prefix) else None


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    if not isinstance(found, Mapping):
        raise ValueError(f"an answer without {key}")
    return found


def _objects(value: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    found = value.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ValueError(f"{key} is not a list of objects")
    return iter(found)


def _number(value: Mapping[str, Any], key: str) -> int:
    """An integer: the gateway sends 64-bit ones as text, and omits zeros."""
    found = value.get(key, 0)
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise ValueError(f"{key} is not a number")
    if isinstance(found, str):
        # a cluster id has up to 20 digits, and is only compared
        parsed = number(found) if len(found) < 20 else hash(found)
        if parsed is None:
            raise ValueError(f"{key} is not a number")
        return parsed
    return found
