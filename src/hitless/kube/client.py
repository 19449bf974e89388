"""The client of daemons: one server, the standard library, typed objects.

Problem: a client library needs more memory than a daemon may use. Promise: ``get``, ``create`` and ``patch`` are one
request each, with a bound on time and size, and raise ``ApiError`` for every failure (``status`` 0: no response);
``follow`` lists and watches without end (``list_watch``), reports when the server is unreachable, and waits
longer each time. Proxies, server names, impersonation and certificates of the context are used or refused
(``transport``). After a 401 the kubeconfig is read again, because certificates and tokens are renewed on disk. For
threads: nothing here is asynchronous, and ``close`` ends a ``follow`` in another thread. Next stages:
``hitless.sources``, the guard's Events.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import msgspec

from hitless.errors import ApiError, HitlessError
from hitless.kube import answers, server_messages
from hitless.kube.contexts import Connection
from hitless.kube.list_watch import Change, ListWatch, by_uid
from hitless.kube.objects import Kind, Object
from hitless.kube.transport import Answer, Transport
from hitless.model.lines import Lines, TooLong

__all__ = ["Away", "Client", "PatchType"]

_T = TypeVar("_T", bound=Object)

PatchType = Literal["application/strategic-merge-patch+json", "application/merge-patch+json"]

_WHOLE = 30.0  # seconds for a whole answer
_MOST = 8 << 20  # bytes of one object, or of a page
_PAGE = 50  # objects of a page: 50 nodes with many images have less than 2 MB
_WATCH_S = (300, 300)  # seconds of one watch, and up to how many more: as Go's clients do
_SLACK_S = 15.0
_SILENCE_S = 150.0  # seconds without a byte: a server that sends bookmarks does so every minute
_WAITS = (0.5, 30.0)  # seconds between tries, doubled from the first to the last


@dataclass(frozen=True, slots=True)
class Away:
    """The server is unreachable or refuses: why, and the seconds until the next try."""

    error: ApiError
    wait: float

    @property
    def restored(self) -> bool:
        """Whether the server has not reached a version that it gave out before (``Too large resource version``): its
        data were put back to an earlier state, and its list has to be read again."""
        return server_messages.version_too_large(self.error)


class Client:
    """Calls on one API server. ``again`` reads the kubeconfig again; ``agent`` is our User-Agent."""

    def __init__(
        self,
        connection: Connection,
        environment: Mapping[str, str],
        *,
        agent: str = "hitless",
        again: Callable[[], Connection] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = connection.cluster.server
        self._connection = connection
        self._environment = environment
        self._agent = agent
        self._again = again
        self._now = now
        self._stopped = threading.Event()
        self._transport = Transport(connection, environment, agent)

    def get(self, kind: Kind[_T], name: str, namespace: str = "") -> _T:
        """One object."""
        return self._call("GET", kind.path(namespace, name), kind)

    def create(self, kind: Kind[_T], document: Mapping[str, Any], namespace: str = "") -> _T:
        """Make an object; ``ApiError`` 409 where it is there already."""
        return self._call("POST", kind.path(namespace), kind, document)

    def patch(
        self, kind: Kind[_T], name: str, namespace: str, document: Mapping[str, Any], how: PatchType, sub: str = ""
    ) -> _T:
        """Change an object; ``sub``: by one of its subresources, such as ``status``."""
        return self._call("PATCH", kind.path(namespace, name, sub), kind, document, how)

    def follow(
        self,
        kind: Kind[_T],
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        key: Callable[[Object], str] = by_uid,
        page: int = _PAGE,
    ) -> Iterator[Change[_T] | Away]:
        """What the server has, object by object, and every change from then on, until ``close``.

        A caller that applies each ``Put`` and ``Gone`` has the server's state at each ``Synced`` and after it; between
        an ``Away`` and the next change nothing is known. One page is held at a time.
        """
        seconds, spread = _WATCH_S
        watching = ListWatch(
            kind, labels=labels, fields=fields, key=key, page=page, seconds=seconds, spread=spread
        )  # fmt: skip
        try:
            yield from self._follow(watching, kind.path(namespace), f"WATCH {kind.plural}")
        finally:
            self._transport.release()

    def _follow(self, watching: ListWatch[_T], path: str, what: str) -> Iterator[Change[_T] | Away]:
        failures = 0
        while not self._stopped.is_set():
            begun, received = self._now(), False
            problem: ApiError | None = None
            try:
                with closing(self._changes(watching, path)) as changes:
                    for change in changes:
                        failures, received = 0, True
                        if change is not None:
                            yield change
            except ApiError as error:
                problem = None if watching.refused(error) else error
            else:
                if not received and self._now() - begun < 1.0:
                    problem = ApiError(f"{what}: {self.server} ends every watch at once")
            if problem is None or self._stopped.is_set():
                continue
            wait = min(_WAITS[1], _WAITS[0] * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)
            wait = max(wait, problem.after if isinstance(problem, _Refused) else 0.0)
            failures += 1
            yield Away(problem, wait)
            self._stopped.wait(wait)

    def close(self) -> None:
        """End every call that another thread waits for."""
        self._stopped.set()
        self._transport.close()

    def _changes(self, watching: ListWatch[_T], path: str) -> Generator[Change[_T] | None, None, None]:
        """The answer to the next question; None for a line that changes nothing. Raises ``ApiError``."""
        question = watching.question()
        target = f"{path}?{urlencode(question.parameters)}"
        what = f"{'WATCH' if question.watch else 'GET'} {path}"
        try:
            if question.watch:
                self._transport.release()
                for line in self._lines(target, what, float(question.parameters["timeoutSeconds"])):
                    yield watching.line(line)
            else:
                yield from watching.page(self._page(target, what))
        except OSError as error:
            raise ApiError(f"{what}: {self.server} cannot be reached: {error}") from error
        except (ValueError, TooLong) as error:
            raise ApiError(f"{what}: the server's answer is not understood: {error}") from error

    def _page(self, target: str, what: str) -> bytes:
        """A page of a list, over the connection of the one before; raises ``OSError``."""
        answer = self._transport.ask_on(target, within=_WHOLE, most=_MOST)
        if answer.status == 401 and self._renew():
            answer = self._transport.ask_on(target, within=_WHOLE, most=_MOST)
        if not 200 <= answer.status < 300:
            raise _Refused(what, answer)
        return answer.body

    def _lines(self, target: str, what: str, seconds: float) -> Iterator[bytes]:
        """The lines of a watch. It is ended here when the server does not end it, or is silent for long: the next
        request shows whether the server is still there."""
        until = self._now() + seconds + _SLACK_S
        lines = Lines(answers.LONGEST_LINE)
        with self._transport.stream(target, silence=_SILENCE_S, most=_MOST) as pieces:
            if isinstance(pieces, Answer):
                if pieces.status == 401:
                    self._renew()
                raise _Refused(what, pieces)
            try:
                for piece in pieces:
                    yield from lines.take(piece)
                    if self._now() > until:
                        return
            except TimeoutError:
                return
        if rest := lines.rest():
            yield rest

    def _call(
        self,
        method: str,
        path: str,
        kind: Kind[_T],
        document: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> _T:
        body = msgspec.json.encode(document) if document is not None else None
        headers = {"Content-Type": content_type} if body is not None else {}
        what = f"{method} {path}"
        try:
            answer = self._answer(method, path, what, body, headers)
        except OSError as error:
            raise ApiError(f"{what}: {self.server} cannot be reached: {error}") from error
        try:
            return answers.one(answer.body, kind)
        except ValueError as error:
            raise ApiError(f"{what}: the answer is not a {kind.plural.removesuffix('s')} ({error})") from error

    def _answer(
        self, method: str, target: str, what: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A successful response; tried again after a 401 where the kubeconfig has another credential by now. Raises
        ``OSError``."""
        answer = self._transport.ask(method, target, body, headers, within=_WHOLE, most=_MOST)
        if answer.status == 401 and self._renew():
            answer = self._transport.ask(method, target, body, headers, within=_WHOLE, most=_MOST)
        if not 200 <= answer.status < 300:
            raise _Refused(what, answer)
        return answer

    def _renew(self) -> bool:
        """Whether the kubeconfig has another credential by now, of the same user for the same server."""
        if self._again is None:
            return False
        try:
            connection = self._again()
            same = (connection.cluster, connection.user, connection.impersonation) == (
                self._connection.cluster,
                self._connection.user,
                self._connection.impersonation,
            )
            if not same or connection == self._connection:
                return False
            transport = Transport(connection, self._environment, self._agent)
        except HitlessError:
            return False  # half written, perhaps: the refusal is reported
        self._transport.release()
        self._connection, self._transport = connection, transport
        if self._stopped.is_set():
            transport.close()
        return True


class _Refused(ApiError):
    """A server's refusal; ``after``: its Retry-After."""

    def __init__(self, what: str, answer: Answer) -> None:
        super().__init__(f"{what}: {answer.status} {answers.message(answer.body)}".rstrip(), status=answer.status)
        self.after = answer.after
