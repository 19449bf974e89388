"""A real etcd on free ports of the loopback address, for one test or one module; and what a test wants to ask it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hitless.testing.ports import reserved_ports

ROOT = Path(__file__).parents[3]


def program() -> str:
    """etcd's path; the test is skipped without it, and fails where nothing may be skipped."""
    places = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".venv" / "bin")])
    found = shutil.which("etcd", path=places)
    if found is None:
        words = "etcd is not here: run tools/setup test (or apt-get install etcd-server)"
        if os.environ.get("REQUIRE_KERNEL") == "1":
            pytest.fail(words)
        pytest.skip(words)
    return found


@dataclass
class Server:
    """One etcd. ``process`` may be stopped (SIGSTOP), ended and started again by a test."""

    directory: Path
    port: int
    peer: int
    arguments: tuple[str, ...] = ()
    scheme: str = "http"
    context: ssl.SSLContext | None = None
    process: subprocess.Popen[bytes] | None = None
    token: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self.peer}"
        command = [
            program(), "--data-dir", str(self.directory / "data"), "--listen-client-urls", self.url,
            "--advertise-client-urls", self.url, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", f"default={peer}", "--unsafe-no-fsync", "--heartbeat-interval", "20",
            "--election-timeout", "200", *self.arguments,
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                self.ask("kv/range", {"key": "AA=="})
                return
            except urllib.error.HTTPError as error:
                if error.code in (400, 401, 403):  # with users it answers so
                    return
            except OSError:
                pass
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            time.sleep(0.05)
        pytest.fail("etcd did not start within a minute")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def ask(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": self.token} if self.token else {}
        request = urllib.request.Request(f"{self.url}/v3/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20, context=self.context) as answer:
            found = json.loads(answer.read())
        assert isinstance(found, dict)
        return found

    def put(self, key: str, value: str, lease: int = 0) -> None:
        self.ask("kv/put", {"key": _text(key), "value": _text(value), "lease": str(lease)})

    def delete(self, key: str) -> None:
        self.ask("kv/deleterange", {"key": _text(key)})

    def get(self, key: str) -> dict[str, Any] | None:
        kvs = self.ask("kv/range", {"key": _text(key)}).get("kvs", [])
        return {**kvs[0], "value": base64.b64decode(kvs[0].get("value", "")).decode()} if kvs else None

    def all(self, prefix: str) -> dict[str, dict[str, Any]]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        kvs = self.ask("kv/range", {"key": _text(prefix), "range_end": _text(end)}).get("kvs", [])
        return {
            base64.b64decode(kv["key"]).decode(): {**kv, "value": base64.b64decode(kv.get("value", "")).decode()}
            for kv in kvs
        }

    def revision(self) -> int:
        return int(self.ask("kv/range", {"key": "AA=="})["header"]["revision"])

    def compact(self) -> None:
        self.ask("kv/compaction", {"revision": str(self.revision()), "physical": True})


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@contextmanager
def serving(*arguments: str, scheme: str = "http", context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="hitless-etcd-") as directory, reserved_ports(2) as (port, peer):
        server = Server(Path(directory), port, peer, arguments, scheme, context)
        try:
            server.start()
            yield server
        finally:
            server.stop()
