"""List, then watch: which request to send next, and what each response changes.

Problem: a list comes in pages that may grow old while they are read, a watch ends every few seconds, goes on after a
version, and is refused (410) when that version is too old; then the list must be read again, and objects that are not
in it were deleted meanwhile. Both clients need this. Promise: ``ListWatch`` gives the next request and takes the
responses; it does no I/O and has no clock. A caller that applies each ``Put`` and ``Gone`` has the server's state at
every ``Synced`` and after each later change, whatever was lost in between. Lists and lines have bounds.
Next stage: ``api``, ``client``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from hitless.errors import ApiError
from hitless.kube import answers
from hitless.kube.objects import Kind, Object

__all__ = ["Change", "EndlessList", "Gone", "ListWatch", "Put", "Question", "Synced", "by_name", "by_uid"]

_T = TypeVar("_T", bound=Object)
_T_co = TypeVar("_T_co", bound=Object, covariant=True)

_PAGES = 1000  # in pages of 500 these are 500,000 objects: Kubernetes is made for 150,000 pods
_AGED = 5  # times that a list is begun anew because its pages grew too old


@dataclass(frozen=True, slots=True)
class Question:
    """The next request: a page of a list or, with ``watch``, a stream of lines. ``parameters`` are the URL's."""

    parameters: Mapping[str, str]
    watch: bool


@dataclass(frozen=True, slots=True)
class Put(Generic[_T_co]):
    """The object exists, with this content."""

    key: str
    value: _T_co


@dataclass(frozen=True, slots=True)
class Gone:
    """The object was deleted."""

    key: str


@dataclass(frozen=True, slots=True)
class Synced:
    """A list was read to its end: the objects that were put and not deleted are those of the server. Comes again after
    each new list."""


Change = Put[_T_co] | Gone | Synced


def by_uid(one: Object) -> str:
    """An object that was deleted and created again under its name is another one."""
    return one.metadata.uid


def by_name(one: Object) -> str:
    """``namespace/name``, or the name of what has no namespace."""
    return f"{one.metadata.namespace}/{one.metadata.name}" if one.metadata.namespace else one.metadata.name


class EndlessList(ApiError):
    """The list does not end: this is not an API server."""


class ListWatch(Generic[_T]):
    """One list and its watch. ``page`` is the size of a page, ``seconds`` the length of one watch, which is up to
    ``spread`` longer: thousands of clients that began at once do not come back at once."""

    def __init__(
        self,
        kind: Kind[_T],
        *,
        labels: str = "",
        fields: str = "",
        key: Callable[[Object], str] = by_uid,
        page: int = 500,
        seconds: int = 20,
        spread: int = 0,
    ) -> None:
        self._kind = kind
        self._key = key
        self._selectors = ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})
        self._page = page
        self._seconds, self._spread = seconds, spread
        self._known: set[str] = set()
        self._listed: set[str] = set()
        self._aged = 0
        self._fruitless = False
        self._begin()

    def _begin(self) -> None:
        """Read the list from its beginning."""
        self._version, self._watches = "", False
        self._continue, self._pages = "", 0
        self._listed.clear()

    def question(self) -> Question:
        """The next request."""
        if self._watches:
            parameters = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": self._version,
                "timeoutSeconds": str(self._seconds + random.randint(0, self._spread)),
            }
        else:
            parameters = {"limit": str(self._page)} | ({"continue": self._continue} if self._continue else {})
        return Question(parameters | self._selectors, self._watches)

    def page(self, body: bytes) -> Iterator[Change[_T]]:
        """What a page of the list changes.

        Raises ``ValueError`` when it is not a page, ``EndlessList`` when the list does not end.
        """
        objects, meta = answers.page(body, self._kind)
        self._pages += 1
        if meta.continue_ and meta.continue_ == self._continue:
            raise EndlessList("the same page again and again")
        if meta.continue_ and self._pages >= _PAGES:
            raise EndlessList(f"a list without an end ({_PAGES} pages)")
        self._continue = meta.continue_
        keys = [self._key(one) for one in objects]
        self._known.update(keys)
        self._listed.update(keys)
        changes: list[Change[_T]] = [Put(key, one) for key, one in zip(keys, objects, strict=True)]
        if not meta.continue_:
            changes += [Gone(key) for key in self._known - self._listed]
            changes.append(Synced())
            self._known, self._listed = self._listed, set()
            self._version, self._watches, self._aged = meta.resource_version, True, 0
        return iter(changes)

    def line(self, line: bytes) -> Change[_T] | None:
        """What a line of the watch changes. Raises ``ValueError`` when it is not an event, ``ApiError`` for a
        refusal."""
        event = answers.read(line, answers.WatchEvent)
        if event.type == "ERROR":
            status = answers.read(event.object, answers.Status)
            raise ApiError(f"WATCH {self._kind.plural}: {status.message}", status=status.code)
        one = answers.read(event.object, self._kind.read)
        self._version = one.metadata.resource_version or self._version
        self._fruitless = False
        if event.type == "BOOKMARK":
            return None
        key = self._key(one)
        if event.type == "DELETED":
            self._known.discard(key)
            return Gone(key)
        self._known.add(key)
        return Put(key, one)

    def refused(self, error: ApiError) -> bool:
        """Whether the next request may follow this refusal at once; if not, the caller decides.

        It may after a version or a page that is too old (410): the list is read again. Where the server calls every
        new list too old, the caller has to wait in between.
        """
        if error.status != 410:
            return False
        if self._watches:
            again, self._fruitless = not self._fruitless, True
            self._begin()
            return again
        if not self._continue or self._aged >= _AGED:
            return False
        self._aged += 1
        self._begin()
        return True
