"""Ways to a fake API server that are longer than a plain connection: certificates, and a proxy that counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.unit.cluster.clusters import cluster, until

from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import NODES
from hitless.testing.api_faults import Faults
from hitless.testing.api_kubelet import FakeNodes, Spool
from hitless.testing.endings import finish_turns, stop_listening

NAME = "api.example.test"
"""The only name that the server's certificate has; it has no address."""

QUICK = Patience(total=0.3, first=0.02, longest=0.1)


def certificates(folder: Path) -> Path:
    """Put into the folder ca.pem, and server, client, other and expired: NAME.pem and NAME.key, signed by it.

    ``stranger`` is signed by itself.
    """
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    _openssl(folder, "req", "-x509", *key, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name, more in (("server", f"subjectAltName=DNS:{NAME}"), ("client", ""), ("other", "")):
        words = ["req", *key, "-x509", "-subj", f"/O=group/CN={name}", "-CA", "ca.pem", "-CAkey", "ca.key"]
        words += ["-addext", more] if more else []
        _openssl(folder, *words, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    name = f"subjectAltName=DNS:{NAME}"
    words = ["req", *key, "-x509", "-subj", "/CN=server", "-addext", name]
    _openssl(folder, *words, "-keyout", "stranger.key", "-out", "stranger.pem")
    (folder / "index").touch()  # only openssl-ca dates certificates back
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase=index\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        f"x509_extensions=x\n[p]\ncommonName=supplied\n[x]\n{name}\n"
    )
    _openssl(folder, "req", *key[:-2], "-subj", "/CN=server", "-keyout", "expired.key", "-out", "expired.csr")
    dates = ["-startdate", "200101000000Z", "-enddate", "200201000000Z"]
    words = ["ca", "-batch", "-config", "ca.cnf", "-notext", "-cert", "ca.pem", "-keyfile", "ca.key"]
    _openssl(folder, *words, *dates, "-in", "expired.csr", "-out", "expired.pem")
    return folder


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, capture_output=True, check=True)


def server_side(folder: Path, *, client: ssl.VerifyMode = ssl.CERT_OPTIONAL, server: str = "server") -> ssl.SSLContext:
    """The server's TLS, with certificates from the folder."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{server}.pem", folder / f"{server}.key")
    context.load_verify_locations(folder / "ca.pem")
    context.verify_mode = client
    return context


@dataclass
class Seen(Faults):
    """Who asked, each time: the headers, and the name in the client's certificate."""

    headers: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def begin(self, request: web.BaseRequest) -> None:
        super().begin(request)
        self.headers.append(request.headers)
        shown = request.transport.get_extra_info("peercert") if request.transport is not None else None
        words = dict(one for part in (shown or {}).get("subject", ()) for one in part)
        self.names.append(words.get("commonName", ""))


@dataclass
class Proxy:
    """A proxy that takes every CONNECT to the port ``to``, whatever was asked for.

    ``refuses``: with which status. ``passing``: the statuses that the next ones get instead.
    """

    to: int = 0
    port: int = 0
    refuses: str = ""
    passing: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _sides: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.asked.append(" ".join(head[0].split()[:2]))
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        self.authorizations.append(headers.get("proxy-authorization", ""))
        if status := self.passing.pop(0) if self.passing else self.refuses:
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return
        there, here = await asyncio.open_connection("127.0.0.1", self.to)
        self._sides |= {writer, here}
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        for source, sink in ((reader, here), (there, writer)):
            task = asyncio.ensure_future(_pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def cut(self) -> None:
        """Break every connection that goes through."""
        for side in self._sides:
            side.transport.abort()
        self._sides.clear()

    async def close(self) -> None:
        """Nothing goes through any more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
    finally:
        sink.transport.abort()


@asynccontextmanager
async def proxy(to: int, *, tls: ssl.SSLContext | None = None, refuses: str = "") -> AsyncIterator[Proxy]:
    """A proxy on loopback that leads to the port ``to``."""
    one = Proxy(to, refuses=refuses)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        await stop_listening(server)
        await one.close()
        await server.wait_closed()
        await finish_turns()


def write(path: Path, cluster: dict[str, Any], user: dict[str, Any], namespace: str = "default") -> Path:
    """A kubeconfig of one context (JSON is YAML)."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    document = {
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": context}],
    }
    path.write_text(json.dumps(document))
    return path


class World:
    """A cluster behind TLS, a proxy that leads to it, and the folder for a kubeconfig."""

    def __init__(self, fake: FakeNodes, proxy: Proxy, folder: Path, pki: Path, tls: ssl.SSLContext) -> None:
        self.fake, self.proxy, self.pki, self._tls = fake, proxy, pki, tls
        self.seen = fake.api.faults = Seen()
        self._folder = folder
        self.port = int(fake.api.url.rpartition(":")[2])

    @property
    def named(self) -> dict[str, Any]:
        """The cluster by its name."""
        return {"server": f"https://{NAME}:{self.port}", "certificate-authority": str(self.pki / "ca.pem")}

    @property
    def numbered(self) -> dict[str, Any]:
        """The cluster by its address, which its certificate does not have."""
        return {**self.named, "server": self.fake.api.url}

    @property
    def by_proxy(self) -> dict[str, Any]:
        """The cluster by the proxy."""
        return {**self.named, "proxy-url": f"http://127.0.0.1:{self.proxy.port}"}

    def becomes(self, server: str) -> None:
        """Who connects from now on is shown this certificate."""
        self._tls.load_cert_chain(self.pki / f"{server}.pem", self.pki / f"{server}.key")

    async def pod(self) -> str:
        """A pod that says something to READ."""
        await until(lambda: any((one.get("status") or {}).get("phase") == "Running" for one in self._pods()))
        name = str(self._pods()[0]["metadata"]["name"])
        self.fake.spools[name] = Spool(bytearray(b"said\n"), done=True)
        return name

    def _pods(self) -> list[dict[str, Any]]:
        return self.fake.api.store.all("pods")

    def connect(
        self, way: dict[str, Any], user: dict[str, Any], patience: Patience = QUICK, *, answered: bool = False
    ) -> Api:
        """The port, by a kubeconfig of this cluster and user."""
        return connect(write(self._folder / "config", way, user), patience=patience, answered=answered)


def play(
    story: Callable[[World], Coroutine[Any, Any, None]],
    folder: Path,
    pki: Path,
    *,
    client: ssl.VerifyMode = ssl.CERT_OPTIONAL,
    server: str = "server",
    refuses: str = "",
    tls: bool = False,
) -> None:
    """Play it; ``client``: what the server asks of certificates, ``server``: which it has; ``refuses``: the proxy does,
    with this status; ``tls``: it speaks it."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(60))
            own = server_side(pki, client=client, server=server)
            fake = await stack.enter_async_context(cluster(1, tls=own))
            port = int(fake.api.url.rpartition(":")[2])
            context = server_side(pki) if tls else None
            between = await stack.enter_async_context(proxy(port, tls=context, refuses=refuses))
            await story(World(fake, between, folder, pki, own))

    asyncio.run(run())


async def works(api: Api) -> bool:
    """Whether the way leads to the cluster; the client is closed."""
    async with api:
        return len(await api.all(NODES)) == 1
