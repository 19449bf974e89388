"""The daemon in the circumstances of real nodes: few capabilities, a read-only file system, an old iptables, a second
agent beside it, systemd, and wrong input while the rules of an earlier run stand."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.adoption import is_right
from tests.contract.start_states import snapshot
from tests.kernel.agent.nodes import HANG, readyz
from tests.kernel.agent.real import RealKernel
from tests.kernel.nftables.nodes import Node, programs

from hitless.kernel import netlink, processes
from hitless.kernel.nftables import dump
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel

FAMILIES = (Family.IPV4, Family.IPV6)
HITLESS = (sys.executable, "-P", "-m", "hitless", "agent")
CONF = '{"Network": "10.42.0.0/16", "EnableIPv6": true, "IPv6Network": "fd42::/48", "Backend": {"Type": "vxlan"}}'
GOOD = (
    "--ip-masq", f"--net-config={CONF}", "--node-subnet=10.42.1.0/24,fd42:0:0:1::/64",
    "--subnet-file=/run/flannel/subnet.env",
)  # fmt: skip


class Daemon:
    """The agent in a namespace; ``said`` is its log."""

    def __init__(
        self, place: Node, *words: str, port: int = 10990, before: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        health = ("--healthz-ip=127.0.0.1", f"--healthz-port={port}")
        self.process = processes.start(
            [*before, *HITLESS, *GOOD, *health, *words], namespace=place.namespace, stderr=subprocess.PIPE,
            environment=environment,
        )  # fmt: skip
        self.said: list[dict[str, Any]] = []
        self.noise: list[str] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith(b"{"):
                self.said.append(json.loads(line))
            else:
                self.noise.append(line.decode())

    def events(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.said if one["event"] == name]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + HANG
        while not condition():
            assert self.process.poll() is None, f"the agent ended: {self.noise} {self.said[-3:]}"
            assert time.monotonic() < end, f"waited for {what}: {self.said[-5:]}"
            time.sleep(0.01)

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(HANG)
        self._thread.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextlib.contextmanager
def daemon(place: Node, *words: str, **more: Any) -> Iterator[Daemon]:
    started = Daemon(place, *words, **more)
    try:
        yield started
    finally:
        started.end()


def ready(started: Daemon) -> None:
    started.wait(lambda: started.events("ready"), "ready")


def right(kernel: RealKernel, backend: Backend, *, random_fully: bool = True) -> bool:
    try:
        is_right(kernel.observe(FAMILIES), snapshot(*FAMILIES, random_fully=random_fully), backend)
    except AssertionError:
        return False
    return True


def only(*capabilities: str) -> tuple[str, ...]:
    """Run with no other capability, as a container with ``drop: [ALL]`` does."""
    names = ",".join(f"+{name}" for name in capabilities)
    return ("setpriv", f"--bounding-set=-all,{names}", f"--inh-caps=-all,{names}", "--")


NEEDS = {
    Backend.NFT: ("net_admin",),
    Backend.NFTABLES: ("net_admin",),
    Backend.LEGACY: ("net_admin", "net_raw"),
}
"""iptables-legacy opens a raw socket; the others only netlink ones."""


@pytest.mark.parametrize("backend", list(Backend))
def test_few_capabilities_and_a_read_only_file_system_are_enough(
    place: Node, kernel: RealKernel, backend: Backend
) -> None:
    programs("setpriv", "mount")
    locked = 'mount -o remount,bind,ro / && ! touch /hitless-test 2>/dev/null && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", locked, "sh", *only(*NEEDS[backend]))
    with daemon(place, f"--backend={backend}", "--subnet-file=/etc/hitless-test/subnet.env", before=before) as started:
        ready(started)
        held = Path(f"/proc/{started.process.pid}/status").read_text()
        assert right(kernel, backend)
        assert bin(int(held.partition("CapEff:")[2].split()[0], 16)).count("1") == len(NEEDS[backend])
        assert "cannot be written" in started.events("subnet file")[0]["reason"]
        table, base = ("filter", "FORWARD") if backend.native else ("nat", "FLANNEL-POSTRTG")
        if backend.native:
            place.run("nft", "flush", "ruleset")
        else:
            place.run(f"iptables-{backend}", "-t", table, "-F", base)
        started.wait(lambda: right(kernel, backend) and started.events("repaired"), "repair")
        started.wait(lambda: readyz(place.namespace)[0] == 200, "ready again")


def test_legacy_without_net_raw_is_not_ready_and_reports_why(place: Node) -> None:
    programs("setpriv")
    with daemon(place, "--backend=legacy", before=only("net_admin")) as started:
        started.wait(lambda: started.events("not applied") or started.events("rules not read"), "word of it")
        status, body = readyz(place.namespace)
        assert status == 503 and body["reasons"]


def test_without_any_capability_it_ends_with_one_message(place: Node) -> None:
    programs("setpriv")
    done = processes.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", *HITLESS, *GOOD],
        namespace=place.namespace, check=False, timeout=HANG,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 3 and len(lines) == 1 and "CAP_NET_ADMIN" in lines[0], done.stderr


OLD = """#!/bin/sh
case "$0 $*" in
*--version*) echo "{name} v1.6.1" ;;
*-restore*) input=$(cat); case "$input" in *--random-fully*) echo "{name}: unknown option --random-fully" >&2; exit 2;;
  esac; printf '%s\\n' "$input" | {real} "$@" ;;
*) exec {real} "$@" ;;
esac
"""


@pytest.mark.parametrize("honest", [True, False], ids=["by its version", "by its refusal"])
def test_an_iptables_without_random_fully_is_used_and_reported_once(
    place: Node, kernel: RealKernel, tmp_path: Path, honest: bool
) -> None:
    for stem in ("iptables", "ip6tables"):
        for tail in ("", "-restore"):
            name = f"{stem}-nft{tail}"
            text = OLD.format(name=name, real=shutil.which(name, path="/usr/sbin:/sbin"))
            if not honest:
                text = text.replace("1.6.1", "1.8.9")
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(stat.S_IRWXU)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for number in range(2):
        with daemon(place, "--iptables-resync=1", environment=environment) as started:
            ready(started)
            assert right(kernel, Backend.NFT, random_fully=False)
            told = started.events("random-fully unsupported")
            assert len(told) == 1 and "--random-fully" in told[0]["reason"]
            if number:  # a restart learns it again, writes nothing, and does not ask at every comparison
                time.sleep(2.2)
                assert not started.events("applied") and not started.events("repaired")
                text = metrics(place)
                assert int(text.partition("\nhitless_agent_commands_total ")[2].split()[0]) <= 2
            assert len(started.events("random-fully unsupported")) == 1


def metrics(place: Node) -> str:
    return str(readyz(place.namespace, "metrics")[1]["text"])


@pytest.mark.parametrize("backend", list(Backend))
def test_two_agents_on_one_node_do_not_fight(place: Node, kernel: RealKernel, backend: Backend) -> None:
    with (
        daemon(place, f"--backend={backend}") as one,
        daemon(place, f"--backend={backend}", port=10991) as other,
    ):
        for started in (one, other):
            ready(started)
        assert right(kernel, backend)
        for _ in range(3):
            told = len(one.events("repaired")) + len(other.events("repaired"))
            if backend.native:
                place.run("nft", "flush", "chain", "ip", "flannel-ipv4", "postrtg")
            else:
                place.run(f"iptables-{backend}", "-t", "nat", "-F")
            one.wait(
                lambda told=told: (
                    right(kernel, backend)  # type: ignore[misc]
                    and len(one.events("repaired")) + len(other.events("repaired")) > told
                ),
                "repair",
            )
            time.sleep(0.3)
        quiet(place, one, other)
        assert right(kernel, backend)


def quiet(place: Node, *daemons: Daemon) -> None:
    """Until neither has written or said anything for a second; one may be slow to see that there is nothing to do."""
    with netlink.Socket(netlink.NETFILTER, place.namespace) as control:
        end, before, since = time.monotonic() + HANG, (-1, -1), 0.0
        while time.monotonic() - since < 1.0:
            now = dump.generation(control), sum(len(one.said) for one in daemons)
            if now != before:
                before, since = now, time.monotonic()
            assert time.monotonic() < end, f"they write on without a cause: {[one.said[-3:] for one in daemons]}"
            time.sleep(0.02)


def test_systemd_gets_ready_watchdog_and_stopping(place: Node, tmp_path: Path) -> None:
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0.1)

        def listen() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    heard.extend(manager.recv(4096).decode().split("\n"))

        over = threading.Event()
        listening = threading.Thread(target=listen)  # all the time, as systemd does: a full queue takes no more
        listening.start()
        try:
            environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
            with daemon(place, "--iptables-resync=60", environment=environment) as started:
                started.wait(lambda: "READY=1" in heard and heard.count("WATCHDOG=1") >= 4, "its words")
                assert started.end() == 0
            until(lambda: "STOPPING=1" in heard)
        finally:
            over.set()
            listening.join()


def test_a_manager_that_reads_nothing_holds_nothing_up(place: Node, kernel: RealKernel, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others, contextlib.suppress(BlockingIOError):
            others.setblocking(False)
            while True:
                others.sendto(b"STATUS=somebody's", str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with daemon(place, environment=environment) as started:
            ready(started)
            place.run("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
            started.wait(lambda: right(kernel, Backend.NFT), "repair")
            assert started.end() == 0


WRONG = [
    (["--nonsense"], "--nonsense"),
    (["--ip-masq=maybe"], "--ip-masq"),
    (["--backend=iptables"], "--backend"),
    (["--net-config={"], "--net-config, line 1"),
    (["--net-config=[]"], "--net-config"),
    ([f"--net-config={CONF.replace('vxlan', 'nonsense')}"], "Backend.Type"),
    ([f"--net-config={CONF.replace('10.42.0.0/16', 'fd42::/48')}"], "Network"),
    ([f"--net-config={CONF.replace('fd42::/48', '10.42.0.0/16')}"], "IPv6Network"),
    ([f"--net-config={CONF.replace('fd42::/48', 'fd42::/200')}"], "IPv6Network"),
    (["--node-subnet=10.43.1.0/24,fd42:0:0:1::/64"], "outside the network"),
    (["--node-subnet=10.42.1.0/24"], "no ipv6 subnet"),
    (["--node-subnet=10.42.1.0/24,10.42.2.0/24,fd42:0:0:1::/64"], "two ipv4 subnets"),
    (["--net-config=", "--net-config-path=/etc"], "/etc"),
]


def test_wrong_input_is_one_message_and_leaves_a_running_network_alone(place: Node, kernel: RealKernel) -> None:
    with daemon(place) as started, netlink.Socket(netlink.NETFILTER, place.namespace) as control:
        ready(started)
        before = dump.generation(control)
        for words, named in WRONG:
            more = [one for one in GOOD if not any(one.partition("=")[0] == word.partition("=")[0] for word in words)]
            command = ["plan"] if "Network" in named else []
            done = processes.run([*HITLESS, *command, *more, *words], namespace=place.namespace, check=False)
            lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
            assert done.returncode == 1 and done.stdout == "", (words, done.returncode, done.stderr)
            assert len(lines) == 1 and named in lines[0] and "expected" in lines[0], (words, done.stderr)
        assert dump.generation(control) == before
        assert right(kernel, Backend.NFT) and readyz(place.namespace)[0] == 200


def test_cleanup_takes_both_families_of_every_backend_and_nothing_else(place: Node) -> None:
    kernel = RealKernel(place.namespace)
    for backend in Backend:
        done = processes.run([*HITLESS, "plan", "--json", f"--backend={backend}", *GOOD], namespace=place.namespace)
        for one in json.loads(done.stdout)["transactions"]:
            if not one["removes"]:
                kernel.write(backend, Family(one["family"]), one["text"])
    kernel.close()
    place.run("nft", "add", "table", "inet", "mine")
    for program in ("iptables-nft", "ip6tables-legacy"):
        place.run(program, "-t", "nat", "-A", "POSTROUTING", "-o", "mine0", "-j", "MASQUERADE")

    def everything() -> list[str]:
        saves = [f"{stem}-{kind}-save" for stem in ("iptables", "ip6tables") for kind in ("nft", "legacy")]
        found = [line for program in saves for line in place.run(program).splitlines() if not line.startswith("#")]
        return found + place.run("nft", "list", "tables").splitlines()

    before = [line.partition(" [")[0] for line in everything()]
    assert sum("LANNEL" in line or "flannel" in line for line in before) > 40
    done = processes.run([*HITLESS, "cleanup", "--json"], namespace=place.namespace)
    assert len(json.loads(done.stdout)["transactions"]) == 10
    after = [line.partition(" [")[0] for line in everything()]
    assert after == [line for line in before if "LANNEL" not in line and "flannel" not in line]


def test_a_log_without_a_reader_blocks_nothing(place: Node, kernel: RealKernel) -> None:
    """A container's log is a pipe; its reader stands still when the node's disk is full."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    health = ("--healthz-ip=127.0.0.1", "--healthz-port=10990")
    command = [*HITLESS, *GOOD, *health, "--backend=nft"]
    process = processes.start(command, namespace=place.namespace, stderr=writing)
    os.close(writing)
    try:
        until(lambda: right(kernel, Backend.NFT))
        place.run("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
        until(lambda: right(kernel, Backend.NFT))
        until(lambda: readyz(place.namespace)[0] == 200)
        process.terminate()
        assert process.wait(HANG) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_a_thousand_visitors_take_no_descriptor_from_repairs_and_write_nothing_to_the_log(
    place: Node, kernel: RealKernel
) -> None:
    """Connections that are opened as fast as they can be and kept, at an agent with few descriptors."""
    crowd = (
        "import resource, socket\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3000, 3000)); held = []\n"
        "while True:\n"
        "  try: held.append(socket.create_connection(('127.0.0.1', 10990), 1)); held[-1].send(b'GET / ')\n"
        "  except OSError: pass\n"
        "  if len(held) > 2500: [one.close() for one in held]; held.clear()\n"
    )
    agent = Daemon(place, "--backend=nft", before=("prlimit", "--nofile=256:256"))
    visitors = processes.start([sys.executable, "-c", crowd], namespace=place.namespace)
    try:
        agent.wait(lambda: right(kernel, Backend.NFT), "the rules")
        for _ in range(3):
            place.run("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
            agent.wait(lambda: right(kernel, Backend.NFT), "the repair")
        agent.wait(lambda: agent.events("connections turned away"), "a word about visitors")
        # the rules are right a moment before the agent has looked at them again and says so
        agent.wait(lambda: readyz(place.namespace)[0] == 200, "ready beside the crowd")
        assert len(list(Path(f"/proc/{agent.process.pid}/fd").iterdir())) < 100
    finally:
        visitors.kill()
        visitors.wait()
        code = agent.end()
    assert code == 0
    assert agent.noise == []
    assert len(agent.events("connections turned away")) == 1
    assert not any("Too many open files" in str(line) for line in agent.said)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"waited {HANG} s"
        time.sleep(0.02)
