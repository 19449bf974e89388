"""From options to a running agent and its end, on a fake node."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Collection
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from hitless.agent import daemon
from hitless.agent.health import Health
from hitless.errors import ApiError, InputError
from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset
from hitless.sources import Options, read_netconf
from hitless.testing.fake_node import FakeEvents, FakeNode
from hitless.testing.ports import reserved_ports

NETCONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}, "SubnetLen": 24}'
SUBNET = (ip_network("10.42.1.0/24"),)


class Events(FakeEvents):
    """With a file descriptor, as the event loop wants it."""

    def __init__(self) -> None:
        super().__init__()
        self._fds = os.pipe2(os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._fds[0]

    def tell(self) -> None:
        os.write(self._fds[1], b".")

    def ready(self) -> Any:
        with contextlib.suppress(BlockingIOError):
            os.read(self._fds[0], 64)
        return super().ready()

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


class World:
    """What an agent finds when it starts; ``stop`` ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.node, self.events = FakeNode(), Events()
        self.node.events = self.events
        self.subnet_file = tmp_path / "subnet.env"
        self.log = io.StringIO()
        self.stop: Callable[[], None] = lambda: None
        monkeypatch.setattr(daemon, "AgentNode", lambda **_: self.node)
        monkeypatch.setattr(daemon, "AllRules", lambda **_: self.node)
        monkeypatch.setattr(daemon, "Commits", lambda: self.events)
        monkeypatch.setattr(daemon, "favour", lambda: None)

        def ended(_: object, stop: Callable[[], None]) -> None:
            self.stop = stop

        monkeypatch.setattr(daemon, "when_ended", ended)

    def options(self, **more: Any) -> Options:
        found: dict[str, Any] = {
            "masquerade": True,
            "netconf_text": NETCONF,
            "subnet_file": str(self.subnet_file),
            "node_subnets": SUBNET,
            "backend": Backend.NFT,
        }
        return Options(**{**found, **more})

    def run(self, *steps: Callable[[], bool], **more: Any) -> list[dict[str, Any]]:
        """Run until each of ``steps`` has come true, one after the other, then stop; the log."""

        async def go() -> None:
            agent = asyncio.create_task(daemon.run(self.options(**more), self.log, time.monotonic()))
            for step in steps:
                while not step():
                    assert not agent.done(), agent.exception()
                    await asyncio.sleep(0.005)
            self.stop()
            await agent

        asyncio.run(asyncio.wait_for(go(), 60.0))
        return self.said

    @property
    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def heard(self, event: str) -> bool:
        return any(one["event"] == event for one in self.said)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_an_agent_starts_repairs_and_ends_without_a_change(world: World) -> None:
    def damage() -> bool:
        world.node.other(Backend.NFT, Family.IPV4, "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n")
        world.events.tell()
        return True

    said = world.run(lambda: world.heard("ready"), damage, lambda: world.heard("repaired"), ignored=("iface",))
    assert [one["event"] for one in said][:2] == ["start", "flags ignored"]
    assert said[-1]["event"] == "stop"
    assert "FLANNEL_SUBNET=10.42.1.1/24" in world.subnet_file.read_text()
    assert world.node.commits > 2


def test_our_rules_are_repaired_while_all_rules_are_read(world: World) -> None:
    read, begun, everything = threading.Event(), threading.Event(), world.node.everything

    def reads(families: Collection[Family]) -> Ruleset:
        begun.set()
        assert read.wait(60.0)
        return everything(families)

    world.node.everything = reads  # type: ignore[method-assign]

    def damage() -> bool:
        assert not read.is_set()
        world.node.other(Backend.NFT, Family.IPV4, "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n")
        world.events.tell()
        return True

    try:
        world.run(lambda: world.heard("ready"), begun.is_set, damage, lambda: world.heard("repaired"))
    finally:
        read.set()


def test_wrong_input_is_refused_before_anything_is_touched(world: World) -> None:
    with pytest.raises(InputError):
        asyncio.run(daemon.run(world.options(netconf_text="{"), world.log, 0.0))
    assert world.node.commits == 0


def test_the_first_subnet_comes_from_flags_then_from_the_file_then_from_kubernetes(world: World) -> None:
    netconf = read_netconf(Path("none"), NETCONF)
    told = daemon.first_snapshot(world.options(), netconf)
    assert told is not None
    assert told.origin == "--node-subnet"
    without = world.options(node_subnets=())
    with pytest.raises(InputError, match="this node's subnet is not known"):
        daemon.first_snapshot(without, netconf)
    assert daemon.first_snapshot(world.options(node_subnets=(), kubernetes=True), netconf) is None
    world.subnet_file.write_text("FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_MTU=1450\n")
    found = daemon.first_snapshot(without, netconf)
    assert found is not None
    assert [str(one.subnet) for one in found.networks.values()] == ["10.42.3.0/24"]
    world.subnet_file.write_text("FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.3.1/24\nFLANNEL_MTU=1450\n")
    assert daemon.first_snapshot(world.options(node_subnets=(), kubernetes=True), netconf) is None
    with pytest.raises(InputError):
        daemon.first_snapshot(without, netconf)


class Source:
    """Kubernetes, which fails first."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)

    def __str__(self) -> str:
        return "node n1"

    def subnets(self) -> object:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_kubernetes_is_asked_until_it_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(ApiError("no route"), RuntimeError("a defect"), SUBNET)
    monkeypatch.setattr(daemon, "_kubernetes", lambda _: source)
    monkeypatch.setattr(daemon, "lease_source", lambda *_: None)
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    said = world.run(lambda: world.heard("ready"), node_subnets=(), kubernetes=True)
    assert [one["event"] for one in said].count("kubernetes not answering") == 2
    assert any(one["event"] == "waiting" for one in said)


def test_a_subnet_file_that_cannot_be_written_is_reported(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = world.run(lambda: world.heard("ready"), subnet_file=str(tmp_path / "file" / "subnet.env"))
    assert any(one["event"] == "subnet file" and "cannot be written" in one["reason"] for one in said)


def test_an_error_of_a_part_is_logged_and_requests_a_pass(world: World) -> None:
    def breaks() -> bool:
        asyncio.get_running_loop().call_exception_handler({"message": "x", "exception": RuntimeError("broken")})
        asyncio.get_running_loop().call_exception_handler({"message": "only words"})
        return True

    said = world.run(lambda: world.heard("ready"), breaks)
    assert [one["reason"] for one in said if one["event"] == "internal failure"][1] == "only words"


def test_the_time_of_this_processs_start_is_before_now() -> None:
    now = time.monotonic()
    assert now - 24 * 3600 < daemon.started_at() <= now


def test_the_server_reports_the_health(world: World) -> None:
    import urllib.request

    answers: list[int] = []

    def asks() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=60) as answer:
            answers.append(answer.status)
        return True

    with reserved_ports(1) as (port,):
        world.run(lambda: world.heard("ready"), asks, healthz_ip="127.0.0.1", healthz_port=port)
    assert answers == [200]
    assert Health(stale_after=1.0).reasons(0.0)
