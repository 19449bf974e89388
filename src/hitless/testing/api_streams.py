"""The fake API server's streams: a container's log, and exec over websockets (v4 and v5.channel.k8s.io).

Used by ``api_server``. What runs in a pod is behind the port ``Kubelet``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import WSMsgType, web

from hitless.testing.api_faults import Faults
from hitless.testing.api_store import Document, ObjectStore

__all__ = ["PROTOCOLS", "Command", "Kubelet", "execute", "log"]

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


class Command(Protocol):
    """A running command of an exec: reads standard input from ``stdin`` (None at its end), writes by ``out``."""

    def __call__(
        self, argv: list[str], stdin: asyncio.Queue[bytes | None], out: Callable[[bytes], Awaitable[None]]
    ) -> Awaitable[int]: ...


class Kubelet(Protocol):
    """Runs pods: ``api_kubelet``, or a test's own."""

    def command(self, pod: Document, container: str) -> Command:
        """The command of an exec in this container; ``StatusError`` when the container does not run."""

    def log(self, pod: Document, container: str) -> str:
        """The container's log."""

    def terminate(self, pod: Document, grace: int | None) -> None:
        """Begin to end a pod; it is removed from the store when it has ended."""


async def log(
    store: ObjectStore, kubelet: Kubelet, request: web.Request, pod: Document, container: str
) -> web.StreamResponse:
    """The log so far; with ``follow`` until the pod is gone."""
    lines = int(request.query.get("tailLines", "-1"))
    text = kubelet.log(pod, container)
    if lines >= 0:
        text = "".join(text.splitlines(keepends=True)[-lines:] if lines else [])
    if request.query.get("follow") != "true":
        return web.Response(text=text)
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    await response.write(text.encode())
    key = ("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
    sent = len(kubelet.log(pod, container))
    while key in store.objects:
        changed = store.changed
        whole = kubelet.log(pod, container)
        await response.write(whole[sent:].encode())
        sent = len(whole)
        await changed.wait()
    await response.write_eof()
    return response


async def execute(
    faults: Faults, request: web.Request, command: Command, protocols: tuple[str, ...]
) -> web.StreamResponse:
    """Run the command, its standard streams over a websocket."""
    socket = web.WebSocketResponse(protocols=protocols, autoping=False)
    await socket.prepare(request)
    stdin: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def out(data: bytes) -> None:
        await faults.wait_if_silent()
        await socket.send_bytes(b"\x01" + data)

    running = asyncio.ensure_future(command(request.query.getall("command"), stdin, out))
    reading = asyncio.ensure_future(_feed(faults, socket, stdin))
    gone = asyncio.ensure_future(faults.kubelets_gone())
    try:
        await asyncio.wait((running, reading, gone), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            await socket.send_bytes(b"\x03" + json.dumps(_outcome(0)).encode())
        elif running.done() and not isinstance(running.exception(), ConnectionError):
            await socket.send_bytes(b"\x03" + json.dumps(_outcome(running.result())).encode())
    except ConnectionError:
        pass  # the client is gone: the command loses its streams, and ends
    finally:
        for task in (running, reading, gone):
            task.cancel()
        await asyncio.gather(running, reading, gone, return_exceptions=True)
        await socket.close()
    return socket


async def _feed(faults: Faults, socket: web.WebSocketResponse, stdin: asyncio.Queue[bytes | None]) -> None:
    """Pass the client's frames to the command until the client closes the connection."""
    async for message in socket:
        if message.type is WSMsgType.PING and not faults.silent:
            await socket.pong(message.data)
        data = bytes(message.data) if message.type is WSMsgType.BINARY else b""
        if data[:1] == b"\x00":
            stdin.put_nowait(data[1:])
        elif data == b"\xff\x00":
            stdin.put_nowait(None)


def _outcome(code: int) -> Document:
    """The last message of the error channel, as recorded from a real server."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }
