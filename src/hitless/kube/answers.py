"""Decodes an API server's responses: bytes to values, or ``ValueError``.

Problem: a load balancer or a login page at the server's address answers with status 200 too, and a body may be nested
to any depth. Promise: an object has a name, a list is a list, a deletion gives a ``Status`` or the object, the lines of
a watch have a bound and an end; anything else is a ``ValueError`` that says what was missing. Next stage: ``api``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import msgspec

from hitless.kube.objects import Kind, Object
from hitless.model.documents import decoded
from hitless.model.lines import Lines, TooLong

__all__ = ["LONGEST_LINE", "ListMeta", "Status", "WatchEvent", "done", "lines", "message", "one", "page", "read"]

LONGEST_LINE = 1 << 24
"""Bytes of one object in a watch; etcd takes 1.5 MB."""

_R = TypeVar("_R")
_T = TypeVar("_T", bound=Object)


class _Cause(msgspec.Struct):
    reason: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] | None = None


class Status(msgspec.Struct):
    """The server's reason for refusing a call, or for ending a watch."""

    message: str = ""
    code: int = 0
    details: _Details | None = None


class ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    kind: str = ""
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)
    items: list[msgspec.Raw] | msgspec.UnsetType | None = msgspec.UNSET


class WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


def read(raw: bytes | msgspec.Raw, kind: type[_R]) -> _R:
    """Raises ``ValueError``, as all decoders here."""
    return decoded(lambda: msgspec.json.decode(raw, type=kind))


def one(raw: bytes | msgspec.Raw, kind: Kind[_T]) -> _T:
    """One object; a document without a name is something else."""
    found = read(raw, kind.read)
    if not found.metadata.name:
        raise ValueError("an object without a name")
    return found


def page(raw: bytes, kind: Kind[_T]) -> tuple[list[_T], ListMeta]:
    """A page of a list, and where the next one is."""
    found = read(raw, _List)
    items = None if found.items is msgspec.UNSET else found.items
    if not found.kind.endswith("List") and (found.kind or found.items is msgspec.UNSET):
        raise ValueError(f"not a list of {kind.plural}" + (f" but a {found.kind[:40]!r}" if found.kind else ""))
    return [one(each, kind) for each in items or []], found.metadata


def done(raw: bytes) -> None:
    """Check the response to a deletion: the object or a ``Status``; a web page means that nothing was deleted."""
    if not read(raw, _List).kind:
        raise ValueError("not an answer of a Kubernetes API")


def message(body: bytes) -> str:
    """The server's message in a refusal: that of a ``Status``, else the text of a proxy or another server."""
    try:
        return read(body, Status).message
    except ValueError:
        return " ".join(body[:200].decode(errors="replace").split())


async def lines(pieces: AsyncIterator[bytes], *, until: float, now: Callable[[], float]) -> AsyncGenerator[bytes, None]:
    """The lines of a watch. JSON strings may hold U+0085, at which httpx's own line reader would cut.

    Ends after ``until`` although the server goes on: a server that sends a byte now and then has no end.
    """
    cutter = Lines(LONGEST_LINE)
    async for piece in pieces:
        try:
            whole = list(cutter.take(piece))
        except TooLong as error:
            raise ValueError(f"an object is longer than {LONGEST_LINE} bytes") from error
        for line in whole:
            yield line
        if now() > until:
            return
    if rest := cutter.rest():
        yield rest
