"""Running a command in a pod: exec over a websocket, and lines that survive a cut connection.

Problem: lines must be read from a pod although the drill itself may break the connection. Promise: ``execute`` uses
v5.channel.k8s.io and v4 (servers of the last three years support at least v4) and distinguishes the end of the command
from the end of the connection; ``follow`` reads a spool from a byte offset and, when the connection breaks, goes on
from the byte after the last one that it got: no line twice, none left out. A server may report "Success" for a command
whose kubelet went away (kubectl issue 1726): ``follow`` reads again from where it ended, until nothing more comes. Next
stage: ``pods``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import msgspec
from httpx2.websockets import HTTPXWSException, WebSocketDisconnect, WebSocketUpgradeError

from hitless.errors import ApiError, CommandFailed, ours
from hitless.kube import server_messages
from hitless.kube.api import Api
from hitless.kube.objects import PODS
from hitless.kube.refusals import server_message
from hitless.kube.relay_exits import TAKEN_OVER
from hitless.model.documents import decoded
from hitless.model.events import LONGEST
from hitless.model.lines import Lines
from hitless.model.reading import whole_of

__all__ = ["Execution", "KubeletAway", "execute", "follow", "output", "transient"]

_PROTOCOLS = ["v5.channel.k8s.io", "v4.channel.k8s.io"]
_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255
_MOST_STDERR = 4096
_MOST_OUTPUT = 8 << 20
_NAME = 80  # bytes of the stream's name before each event

_TRANSIENT = frozenset({0, 401, 429, 502, 503, 504})
"""Statuses of a broken connection or of a server that is starting (401: a token that was accepted has expired)."""


class KubeletAway(ApiError):
    """The server could not reach the kubelet, or lost it while the command ran."""


def transient(error: ApiError) -> bool:
    """Whether the same command may be tried again. What the command itself wrote does not decide that."""
    return error.status in _TRANSIENT or isinstance(error, KubeletAway)


def _refused(message: str, server_text: str, status: int) -> ApiError:
    """The error for a refusal; ``server_text``: the server's part of the message."""
    kind = KubeletAway if status == 500 and server_messages.kubelet_away(server_text) else ApiError
    return kind(message, status=status)


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] | None = None


class _Outcome(msgspec.Struct):
    status: str = ""
    reason: str = ""
    message: str = ""
    details: _Details | None = None


class Execution:
    """A command that runs in a pod. ``code`` is its exit code once ``read`` has returned nothing."""

    def __init__(self, socket: Any, name: str) -> None:
        self._socket = socket
        self._name = name
        self._protocol = str(socket.subprotocol or "")
        self.code: int | None = None
        self.stderr = b""

    async def write(self, data: bytes) -> None:
        """Send to its standard input."""
        await self._socket.send_bytes(bytes((_STDIN,)) + data)

    async def read(self) -> bytes:
        """The next piece of its standard output; empty when it has ended; ``ApiError`` when the connection broke."""
        while self.code is None:
            try:
                message: bytes = await self._socket.receive_bytes()
            except WebSocketDisconnect as error:
                raise ApiError(f"{self._name}: the connection broke before the command ended") from error
            channel, data = (message[0], message[1:]) if message else (_STDOUT, b"")
            if channel == _STDOUT and data:
                return data
            if channel == _STDERR:
                self.stderr = (self.stderr + data)[-_MOST_STDERR:]
            elif channel == _ERROR:
                self.code = _exit_code(data, self._name)
        return b""


def _exit_code(data: bytes, name: str) -> int:
    try:
        outcome = decoded(lambda: msgspec.json.decode(data, type=_Outcome))
    except ValueError as error:
        raise ApiError(f"{name}: ended with a status that is not understood: {data[:200]!r}") from error
    if outcome.status == "Success":
        return 0
    causes = outcome.details.causes if outcome.details and outcome.details.causes else []
    for cause in causes:
        code = whole_of(cause.message)
        if cause.reason == "ExitCode" and code is not None:
            return code
    why = outcome.message or outcome.reason or "failed"
    raise _refused(f"{name}: {why}", why, 500)


@asynccontextmanager
async def execute(
    api: Api, pod: str, namespace: str, container: str, command: Sequence[str], *, stdin: bool = False
) -> AsyncIterator[Execution]:
    """Run ``command`` in the container; leaving the block ends the connection, and with it the command's streams."""
    name = f"exec in {namespace}/{pod}: {' '.join(command[:4])}"
    params = httpx2.QueryParams(
        {
            "container": container,
            "stdout": "true",
            "stderr": "true",
            **({"stdin": "true"} if stdin else {}),
            "command": list(command),
        }
    )
    try:
        async with api.websocket(PODS.path(namespace, pod, "exec"), params, _PROTOCOLS) as socket:
            yield Execution(socket, name)
    except (BaseExceptionGroup, HTTPXWSException, httpx2.RequestError) as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error  # the exception group of the closing connection would hide it
        first = _first(error)
        if isinstance(first, WebSocketUpgradeError):
            status, why = first.response.status_code, server_message(first.response)
            raise _refused(f"{name}: refused with {status}: {why}", why, status) from first
        if isinstance(first, HTTPXWSException | httpx2.RequestError | OSError):
            raise ApiError(f"{name}: {api.server}: {str(first) or type(first).__name__}") from first
        if isinstance(first, ValueError | MemoryError | RecursionError):
            raise ours(first, name) from first
        raise first from None


def _first(group: BaseException) -> BaseException:
    """The first plain exception of a group: the websocket library wraps everything in groups."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def output(api: Api, pod: str, namespace: str, container: str, command: Sequence[str]) -> bytes:
    """What ``command`` prints; ``ApiError`` when it fails. Repeated within the API's patience when cut off."""
    begin, attempt = api.patience.now(), 0
    while True:
        try:
            pieces: list[bytes] = []
            size = 0
            async with execute(api, pod, namespace, container, command) as running:
                while piece := await running.read():
                    pieces.append(piece)
                    size += len(piece)
                    if size > _MOST_OUTPUT:
                        source = f"{' '.join(command[:4])} in {namespace}/{pod}"
                        raise ApiError(f"{source} says more than {_MOST_OUTPUT} bytes", status=500)
            if running.code != 0:
                stderr = running.stderr.decode(errors="replace").strip().splitlines()
                source = f"{' '.join(command[:4])} in {namespace}/{pod}"
                raise CommandFailed(f"{source} ended with {running.code}: {stderr[-1:] or ''}", running.code or 0)
            return b"".join(pieces)
        except ApiError as error:
            wait = api.patience.wait(attempt)
            if not transient(error) or api.patience.now() - begin + wait > api.patience.total:
                raise
            await api.patience.sleep(wait)
            attempt += 1


async def follow(
    api: Api,
    pod: str,
    namespace: str,
    container: str,
    command: Callable[[int], Sequence[str]],
    line: Callable[[bytes], None],
    *,
    resumed: Callable[[int, str], None] | None = None,
    most: int = 1 << 40,
) -> None:
    """Give ``line`` every whole line that ``command(offset)`` prints, until it ends with 0, ``most`` bytes at most.

    ``command`` must print the same bytes whenever it runs, from the given offset on. ``resumed`` is called with the
    offset and the reason each time that the connection was made again.
    """
    offset, lines, attempt, since = 0, Lines(LONGEST + _NAME), 0, api.patience.now()
    while True:
        begun = offset
        try:
            async with execute(api, pod, namespace, container, command(offset)) as running:
                while piece := await running.read():
                    attempt, since = 0, api.patience.now()
                    offset += len(piece)
                    if offset > most:
                        raise ApiError(f"{namespace}/{pod}: its stream is longer than {most} bytes", status=500)
                    for one in lines.take(piece):
                        line(one)
            if running.code == 0:
                if offset == begun:
                    return
                continue
            stderr = running.stderr.decode(errors="replace").strip()
            kind = KubeletAway if running.code == TAKEN_OVER else ApiError
            raise kind(f"{namespace}/{pod}: reading its stream ended with {running.code}: {stderr}", status=500)
        except ApiError as error:
            wait = api.patience.wait(attempt)
            if not transient(error) or api.patience.now() - since + wait > api.patience.total:
                raise
            if resumed is not None:
                resumed(offset, str(error))
            await api.patience.sleep(wait)
            attempt += 1
