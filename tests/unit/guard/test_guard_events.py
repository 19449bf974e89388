"""Kubernetes Events: their shape, what becomes of them while the server is away, and the wire with the real rights."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hitless.daemon.logs import Log
from hitless.errors import InputError
from hitless.guard import kubernetes, records
from hitless.guard.kubernetes import Poster, Refused
from hitless.model.events import Writer
from hitless.testing.api_rights import Rights, rules_of
from hitless.testing.api_server import FakeApi

MANIFEST = Path(__file__).parents[3] / "deploy/manifests/guard.yaml"
GAP = records.GuardGap(t=2_000_000, family="ipv4", networks=["10.42.0.0/16"], begin=0, end=2_000_000, covered=False)
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def admitted(event: dict[str, Any]) -> None:
    """What a real server asks of an Event of the core group, its schema included."""
    import kubernetes_validate

    kubernetes_validate.validate(event, "1.34", strict=True)
    about = event["involvedObject"]
    assert (about["kind"], about.get("namespace", ""), event["metadata"]["namespace"]) == ("Node", "", "default")
    assert SUBDOMAIN.fullmatch(event["metadata"]["name"])
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["message"].encode()) <= 1024
    assert len(event["reason"]) <= 128
    assert len(event["reportingInstance"]) <= 128
    assert event["type"] in ("Normal", "Warning")
    assert event["firstTimestamp"] <= event["lastTimestamp"]
    assert "eventTime" not in event, "with it the server asks for action too"


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- shape


def test_events_are_for_what_people_should_see() -> None:
    made = kubernetes.event(GAP, "node-1")
    assert made is not None
    assert (made["reason"], made["type"]) == ("EgressGap", "Warning")
    assert "2 ms" in str(made["message"])
    assert kubernetes.event(records.GuardNote(t=1, level="info", text="x"), "node-1") is None


@pytest.mark.slow
@pytest.mark.parametrize("node", ["node-1", "n" * 63 + "." + "o" * 63 + "." + "d" * 63 + "." + "e" * 61])
def test_every_event_is_one_that_a_server_takes(node: str) -> None:
    """With the longest name that a Node may have, and reasons without end."""
    writer = Writer(7, "ünï" * 500)
    long = "the rule " * 500
    networks = ["10.42.0.0/16", "10.99.0.0/16"] * 100
    found: list[records.Record] = [
        GAP,
        records.GuardGap(t=3, family="ipv6", networks=networks, begin=0, end=1, covered=True, opened_by=writer),
        records.GuardGap(t=3, family="ipv4", networks=networks, begin=0, end=1, covered=False, open=True),
        records.ForwardGap(t=1_764_000_000_000_000_000, family="ipv4", networks=networks, begin=0, end=1, reason=long),
        records.ForwardGap(t=3, family="ipv6", networks=networks, begin=0, end=1, opened_by=writer, open=True),
        records.Withdrawn(t=3, family="ipv4", why=long),
    ]
    names = set()
    for record in found:
        made = kubernetes.event(record, node)
        assert made is not None
        admitted(made)
        names.add(str(made["metadata"]["name"]))  # type: ignore[index]
    assert len(names) == len(found), "two families may have the same news at the same time"


# --- while the server is away


def test_an_event_is_tried_again_while_the_api_server_is_away() -> None:
    posted: list[dict[str, Any]] = []
    tries = []

    def send(body: bytes) -> None:
        tries.append(body)
        if len(tries) < 3:
            raise OSError("no route to host")
        posted.append(json.loads(body))

    poster = Poster("node-1", send, Log(io.StringIO()), again=(0.0, 0.0, 0.0))
    for _ in range(5):
        poster.post(GAP)
    wait(lambda: len(posted) == 1)
    assert len(set(tries)) == 1, "the same name each time: it is never there twice"
    assert poster.dropped == 0
    poster._posted.clear()  # a minute later
    poster.post(
        records.GuardGap(t=62_000_000_000, family="ipv4", networks=[], begin=0, end=1, covered=False, reason="r" * 2000)
    )
    wait(lambda: len(posted) == 2)
    assert posted[1]["count"] == 5
    assert posted[1]["message"].endswith("4 more since the last Event of this kind")
    assert (posted[1]["firstTimestamp"], posted[1]["lastTimestamp"]) == ("1970-01-01T00:00:00Z", "1970-01-01T00:01:02Z")
    admitted(posted[1])


def test_an_event_that_cannot_be_posted_is_given_up_and_the_next_is_not() -> None:
    log = io.StringIO()
    posted = []

    def send(body: bytes) -> None:
        if b"EgressGap" in body:
            raise OSError("refused")
        posted.append(body)

    poster = Poster("node-1", send, Log(log), again=(0.0,))
    poster.post(GAP)
    poster.post(records.Withdrawn(t=1, family="ipv4", why="unclear"))
    wait(lambda: len(posted) == 1)
    assert poster.dropped == 1
    assert "cannot post an Event" in log.getvalue()


def test_what_the_server_will_never_take_is_not_tried_again() -> None:
    tries = []

    def send(body: bytes) -> None:
        tries.append(body)
        raise Refused("HTTP 422: it is invalid")

    log = io.StringIO()
    poster = Poster("node-1", send, Log(log), again=(0.0, 0.0))
    poster.post(GAP)
    wait(lambda: poster.dropped == 1)
    wait(lambda: "HTTP 422" in log.getvalue())
    assert len(tries) == 1


# --- on the wire


def account(folder: Path) -> ssl.SSLContext:
    """What a kubelet mounts for a ServiceAccount, and the server's side of it."""
    key = folder / "server.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(folder / "ca.crt")], capture_output=True, check=True)
    (folder / "token").write_text("a token\n")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "ca.crt", key)
    return tls


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[FakeApi, dict[str, str]]]:
    """A server with the manifest's rights and no others, and what a kubelet gives the guard's pod."""
    tls = account(folder)
    documents = [one for one in yaml.safe_load_all(MANIFEST.read_text()) if one]
    async with asyncio.timeout(60), FakeApi().serve(tls) as api:
        user = "system:serviceaccount:hitless-system:hitless-guard"
        api.rights = Rights(rules_of(documents), user=user)
        api.faults.token = "a token"
        port = api.url.rpartition(":")[2]
        yield (
            api,
            {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port, "NODE_NAME": "node-1"},
        )


def poster_in(environment: dict[str, str], folder: Path, log: io.StringIO) -> Poster:
    poster = Poster.from_cluster(environment, Log(log), folder)
    poster._again = (0.01, 0.05, 0.1)
    return poster


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the other side is a thread; the cluster's time-out bounds it
        await asyncio.sleep(0.005)


def test_events_arrive_with_the_manifests_rights_and_these_are_all_needed(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (api, environment):
            log = io.StringIO()
            poster = poster_in(environment, tmp_path, log)
            poster.post(GAP)
            poster.post(records.Withdrawn(t=2_000_000, family="ipv6", why="it translated 3 flows"))
            await until(lambda: len(api.store.all("events", "default")) == 2)
            for event in api.store.all("events", "default"):
                event["metadata"] = {key: event["metadata"][key] for key in ("name", "namespace")}  # as it was sent
                admitted(event)
            reasons = {one["reason"]: one["message"] for one in api.store.all("events", "default")}
            assert reasons["GuardWithdrawn"] == "ipv6: it translated 3 flows"
            assert set(reasons) == {"EgressGap", "GuardWithdrawn"}
            assert (api.rights.denied, api.rights.unused, poster.dropped) == ([], [], 0)
            assert log.getvalue() == ""

    asyncio.run(story())


def test_an_event_whose_answer_was_lost_is_there_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (api, environment):
            poster = poster_in(environment, tmp_path, log := io.StringIO())
            send, tries = poster._send, []

            def lossy(body: bytes) -> None:
                send(body)
                tries.append(body)
                if len(tries) == 1:
                    raise TimeoutError("timed out")

            poster._send = lossy
            poster.post(GAP)
            await until(lambda: len(tries) == 2)
            assert len(api.store.all("events", "default")) == 1
            assert poster.dropped == 0
            assert log.getvalue() == ""

    asyncio.run(story())


def test_without_the_right_it_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    """A forbidden Event is tried again: rights may come after the pod."""

    async def story() -> None:
        async with cluster(tmp_path) as (api, environment):
            rights, api.rights = api.rights, Rights((), user="system:serviceaccount:hitless-system:hitless-guard")
            poster = poster_in(environment, tmp_path, log := io.StringIO())
            poster.post(GAP)
            await until(lambda: poster.dropped == 1)
            await until(lambda: "cannot post" in log.getvalue())
            assert 'HTTP 403: events is forbidden: User \\"system:serviceaccount' in log.getvalue()
            assert len(api.rights.denied) == 4
            poster._again = (30.0,)
            api.rights = rights
            poster.post(records.Withdrawn(t=1, family="ipv4", why="unclear"))
            await until(lambda: len(api.store.all("events", "default")) == 1)

    asyncio.run(story())


def test_a_server_that_is_not_the_clusters_gets_no_token(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as (api, environment):
            other = tmp_path / "other"
            other.mkdir()
            async with cluster(other) as (_, _more):
                (other / "token").write_text("a token")
                poster = poster_in(environment, other, log := io.StringIO())  # it trusts the other's certificate only
                poster.post(GAP)
                await until(lambda: poster.dropped == 1)
                await until(lambda: "CERTIFICATE_VERIFY_FAILED" in log.getvalue())
            assert api.rights.requests == api.rights.denied == []

    asyncio.run(story())


def test_the_server_ends_with_a_connection_that_its_client_holds(tmp_path: Path) -> None:
    """Warnings are errors: a transport that outlives the loop would fail whatever test comes next."""
    tls, held = account(tmp_path), []

    def hold(port: int) -> None:
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        client = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        held.append(client)
        client.sendall(b"GET /api/v1/nodes HTTP/1.1\r\nHost: here\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")

    async def story() -> None:
        async with asyncio.timeout(60), FakeApi().serve(tls) as api:
            await asyncio.to_thread(hold, int(api.url.rpartition(":")[2]))

    asyncio.run(story())
    gc.collect()
    held[0].close()


def test_events_cannot_be_asked_for_outside_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--events"):
        Poster.from_cluster({}, Log(io.StringIO()))
    inside = {"KUBERNETES_SERVICE_HOST": "10.43.0.1", "KUBERNETES_SERVICE_PORT": "443", "NODE_NAME": "node-1"}
    with pytest.raises(InputError, match="--events"):
        Poster.from_cluster(inside, Log(io.StringIO()), tmp_path)


def test_nothing_that_tls_needs_is_loaded_before_there_is_something_to_post() -> None:
    script = "import hitless.guard.kubernetes, hitless.guard.running, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert not {"ssl", "http.client", "urllib.request", "email"} & set(done.stdout.split())
