"""Only errors of ours leave the ports that read files and ask servers, whatever those raise."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hitless.errors import HitlessError
from hitless.evidence import log
from hitless.guard import primaries
from hitless.kube import kubeconfig
from hitless.kube.client import Client
from hitless.kube.contexts import Connection, KubeconfigCluster
from hitless.sources.kubernetes import NodeSource
from hitless.sources.netconf import read_netconf
from hitless.sources.subnets import read_subnet_file

FILE = [
    *(OSError(getattr(errno, name), name) for name in ("EIO", "EACCES", "EISDIR", "ELOOP", "ENAMETOOLONG", "EMFILE")),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
]
WIRE = [
    *(OSError(getattr(errno, name), name) for name in ("ECONNREFUSED", "EHOSTUNREACH", "EMFILE", "EIO")),
    TimeoutError(), ConnectionResetError(), socket.gaierror(-2, "x"), ssl.SSLError("x"), ssl.SSLCertVerificationError(),
    http.client.IncompleteRead(b""), http.client.BadStatusLine("x"), http.client.LineTooLong("x"),
    http.client.RemoteDisconnected("x"), ValueError("Invalid header value b'Bearer secret'"), UnicodeError("x"),
    msgspec.DecodeError("x"), http.client.InvalidURL("x"),
]  # fmt: skip

READERS: dict[str, Callable[[Path], object]] = {
    "net-conf.json": read_netconf,
    "subnet.env": read_subnet_file,
    "a profile": lambda path: primaries.load(str(path)),
    "a kubeconfig": lambda path: kubeconfig.merged([path]),
    "an event log": log.read,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("error", FILE, ids=lambda error: str(error)[:20])
def test_a_file_that_cannot_be_read(
    tmp_path: Path, reader: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.toml"
    path.write_text("x")

    def fails(*_: Any, **__: Any) -> Any:
        raise error

    for name in ("read_text", "read_bytes", "open"):
        monkeypatch.setattr(Path, name, fails)
    if isinstance(error, OSError):
        monkeypatch.setattr("os.open", fails)
    with pytest.raises(HitlessError):
        READERS[reader](path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"\x00", b"[" * 100_000, b"{" * 1000, b"9" * 5000, b"x" * (2 << 20)]
)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_of_something_else(tmp_path: Path, reader: str, data: bytes) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(data)
    try:
        READERS[reader](path)
    except HitlessError as error:
        assert len(str(error)) < 2000


@pytest.mark.parametrize("at", ["putheader", "endheaders", "getresponse"])
@pytest.mark.parametrize("error", WIRE, ids=lambda error: type(error).__name__)
def test_a_server_that_cannot_be_asked(at: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    for step in ("putrequest", "putheader", "endheaders"):
        monkeypatch.setattr(http.client.HTTPConnection, step, lambda *_, **__: None)
    monkeypatch.setattr(http.client.HTTPConnection, at, fails)
    way = Connection("a test", None, "", KubeconfigCluster("http://127.0.0.1:1"), "", token="secret")
    with pytest.raises(HitlessError) as caught:
        NodeSource("node-1", Client(way, {})).subnets()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [struct.error("x"), MemoryError()])
def test_the_errors_are_told_in_one_line(error: Exception) -> None:
    from hitless.errors import ours

    assert "\n" not in str(ours(error, "a part"))
