"""The far end: readable by hand, honest about the source it saw, and looking below its sockets."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import struct
import sys
from pathlib import Path

import pytest
from tests.kernel.probe.probe_world import PATIENT, Tool, World, tool

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace, inside
from hitless.model import events as e
from hitless.model.families import Family
from hitless.probe import wire
from hitless.probe.far_end_services import LIMIT_EACH

pytestmark = pytest.mark.kernel

NUMBERS = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


def connected(namespace: Namespace, family: Family, address: str, port: int, kind: int) -> socket.socket:
    def connect() -> socket.socket:
        sock = socket.socket(NUMBERS[family], kind)
        sock.settimeout(30)
        sock.connect((address, port))
        return sock

    return inside(namespace, connect)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(4096):
        data += chunk
    return data


@pytest.mark.parametrize("family", list(Family))
def test_it_can_be_asked_by_hand(world: World, family: Family) -> None:
    """What nc, nc -u, curl and telnet would see: the node's address, since the pod is masqueraded."""
    far_end = world.far_end()
    node = str(world.cluster.nodes[0].addresses[family])
    address = world.address(family, 1)
    with connected(world.pod, family, address, 7801, socket.SOCK_STREAM) as sock:
        seen, _, port = read_all(sock).decode().strip().partition(" ")
        assert seen == node
        assert port.isdigit()
    with connected(world.pod, family, address, 7804, socket.SOCK_DGRAM) as sock:
        sock.send(wire.udp_request(b"hello", 1))
        assert sock.recv(100).decode().split()[::2] == [node, "hitless", "1"]
    with connected(world.pod, family, address, 7810, socket.SOCK_STREAM) as sock:
        sock.sendall(b"anything" * 1000)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"anything" * 1000
    with connected(world.pod, family, address, 7880, socket.SOCK_STREAM) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert json.loads(body)["source"] == node
    assert far_end.end() == 0
    assert {name: far_end.totals[name] for name in ("tcp", "udp", "echo", "http")} == dict.fromkeys(
        ("tcp", "udp", "echo", "http"), 1
    )


def test_listening_everywhere_it_answers_from_the_address_that_was_asked(world: World, tmp_path: Path) -> None:
    far = world.cluster.far_end.namespace
    words = ["farend", "--json", "--bind", "0.0.0.0", "--bind", "::", "--port", "9000"]
    with tool(far, words, tmp_path / "farend-everywhere") as far_end:
        far_end.wait_for(bool)
        for family in Family:
            with connected(world.pod, family, world.address(family, 2), 9001, socket.SOCK_DGRAM) as sock:
                sock.send(wire.udp_request(b"a", 1))  # a connected socket takes answers from where it asked only
                assert sock.recv(100).endswith(b" hitless a 1\n")
        assert far_end.end() == 0


def test_two_far_ends_at_one_address_are_refused(world: World, tmp_path: Path) -> None:
    world.far_end()
    with tool(
        world.cluster.far_end.namespace, ["farend", "--json", "--bind", world.address(Family.IPV4)], tmp_path / "second"
    ) as second:
        assert second.end(None) == 3
        assert second.events == []
    assert "cannot listen" in (tmp_path / "second").read_text()


def test_it_survives_those_who_say_nothing_or_nonsense(world: World) -> None:
    far_end = world.far_end()
    address = world.address(Family.IPV4)
    silent = [connected(world.pod, Family.IPV4, address, 7880, socket.SOCK_STREAM) for _ in range(20)]
    with (
        connected(world.pod, Family.IPV4, address, 7880, socket.SOCK_STREAM) as endless,
        contextlib.suppress(ConnectionError),  # it does not even read the rest
    ):
        endless.sendall(b"x" * 20_000)
        assert read_all(endless) == b""
    with connected(world.pod, Family.IPV4, address, 7801, socket.SOCK_DGRAM) as sock:
        sock.send(bytes(range(256)) * 5)  # no question: no answer
        sock.send(wire.udp_request(b"a", 1))
        assert sock.recv(4096).endswith(b" hitless a 1\n")
    probe = world.punctual("--count", "100", *PATIENT)
    assert probe.code == 0
    for sock in silent:
        sock.close()
    assert far_end.end() == 0


def test_a_forged_question_does_not_make_two_far_ends_talk_to_each_other(world: World, tmp_path: Path) -> None:
    """The first one's answer goes to the second, which is no prober and must not answer it."""
    first = world.far_end()
    node = world.cluster.nodes[0]
    with tool(
        node.namespace, ["farend", "--json", "--bind", str(node.addresses[Family.IPV4])], tmp_path / "b"
    ) as second:
        second.wait_for(bool)

        def forge() -> None:
            payload = wire.udp_request(b"forged-1", 1)
            datagram = struct.pack("!HHHH", 7801, 7801, 8 + len(payload), 0) + payload
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
                raw.bind((str(node.addresses[Family.IPV4]), 0))
                raw.sendto(datagram, (world.address(Family.IPV4), 0))

        inside(node.namespace, forge)
        second.wait_for(
            lambda events: any("udp ignored 1" in one.detail for one in events if isinstance(one, e.Heartbeat))
        )
        first.wait_beats(2)
        assert second.end() == first.end() == 0
    assert (first.totals["udp"], first.totals.get("udp_ignored", 0)) == (1, 0)
    assert (second.totals.get("udp", 0), second.totals["udp_ignored"]) == (0, 1)


def test_many_idle_connections_keep_no_client_out_and_are_reported(world: World) -> None:
    far_end = world.far_end()
    address = world.address(Family.IPV4)
    crowd = (
        "import resource, socket, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4000))\n"
        f"held = [socket.create_connection(('{address}', 7810)) for _ in range({LIMIT_EACH + 50})]\n"
        "print('here', flush=True); sys.stdin.read()\n"
    )
    idle = processes.start(
        [sys.executable, "-c", crowd], namespace=world.pod, stdin=processes.PIPE, stdout=processes.PIPE
    )
    try:
        assert idle.stdout is not None and idle.stdout.readline() == b"here\n"
        with connected(world.pod, Family.IPV4, address, 7880, socket.SOCK_STREAM) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 200 OK")
        far_end.wait_beats(2)
    finally:
        idle.communicate(timeout=60)
    assert far_end.end() == 0
    closed = far_end.totals["closed_for_others"]
    assert sum(beat.full for beat in far_end.of(e.Heartbeat)) == closed
    # 50: the one who was served was taken from its queue before the last of the crowd, and had gone by then
    assert closed in (50, 51)
    assert [note.level for note in far_end.of(e.Note)] == ["warning"]


def test_an_answered_leak_is_a_leak_to_the_prober_too(world: World) -> None:
    """With a way back to the pod network (as in some data centres) a leaked flow works, and is still a leak."""
    far_end = world.far_end()
    node = world.cluster.nodes[0]
    subnet, gateway = str(node.subnets[Family.IPV4]), str(node.addresses[Family.IPV4])
    underlay, far = world.cluster.underlay.namespace, world.cluster.far_end.namespace
    processes.run(["ip", "route", "add", subnet, "via", gateway], namespace=underlay)
    uplink = json.loads(processes.run(["ip", "-j", "route", "get", gateway], namespace=far).stdout)[0]
    processes.run(["ip", "route", "add", subnet, "via", uplink["gateway"], "dev", uplink["dev"]], namespace=far)
    probe = world.probe("--mix", "tcp=1,udp=1", "--rate", "100", *PATIENT, targets=[world.url(Family.IPV4)])
    probe.wait_beats()
    assert probe.of(e.Leak) == []
    world.stop_masquerade()
    probe.wait_for(lambda events: sum(isinstance(one, e.Leak) for one in events) > 50)
    assert probe.end() == 1
    assert far_end.end() == 0
    assert probe.of(e.Loss) == []
    leaked = sum(one.leaked for one in probe.of(e.Attempts))
    assert leaked == len(probe.of(e.Leak)) == len(flows(probe))
    assert flows(probe) == flows(far_end)  # where a question that was asked twice is seen twice


def flows(seen: Tool) -> set[tuple[str, int, int]]:
    """Those that leaked."""
    return {(one.kind, one.sport, one.dport) for one in seen.of(e.Leak)}


def test_leaks_before_its_end_are_reported_however_late_it_is_scheduled(world: World) -> None:
    far_end = world.far_end()
    world.stop_masquerade()
    far_end.process.send_signal(signal.SIGSTOP)
    probe = world.probe("--mix", "udp=1", "--rate", "1000", "--count", "900", "--timeout", "0.2")
    probe.end(None)
    far_end.process.send_signal(signal.SIGTERM)
    far_end.process.send_signal(signal.SIGCONT)
    assert far_end.end(None) == 0
    sent = probe.totals["sent"]
    assert sent > 0
    assert len({(one.family, one.sport, one.dport) for one in far_end.of(e.Leak)}) == sent


def test_only_first_packets_from_the_named_networks_are_leaks(world: World) -> None:
    """Streams, answers and the node's own packets are none."""
    far_end = world.far_end()
    world.stop_masquerade()
    node = world.node
    for family in Family:
        with connected(node, family, world.address(family), 7801, socket.SOCK_STREAM) as sock:
            read_all(sock)
    with inside(world.pod, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        for size in (10, 1400, 4000):  # the last in fragments, of which only the first counts
            sock.sendto(b"x" * size, (world.address(Family.IPV4), 5353))
    far_end.wait_for(lambda events: sum(isinstance(one, e.Leak) for one in events) >= 3)
    far_end.wait_beats()
    assert far_end.end() == 0
    leaks = far_end.of(e.Leak)
    assert [(one.kind, one.src, one.dport) for one in leaks] == [("udp", world.pod_address(Family.IPV4), 5353)] * 3


def test_it_ends_on_an_interrupt_with_its_summary(world: World) -> None:
    far_end = world.far_end()
    assert far_end.end(signal.SIGINT) == 0
    assert isinstance(far_end.events[-1], e.Summary)


@pytest.mark.parametrize("without", [False, True])
def test_without_an_address_it_listens_at_the_loopback_that_there_is(
    world: World, tmp_path: Path, without: bool
) -> None:
    if without:
        processes.run(["sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1"], namespace=world.pod)
    with tool(world.pod, ["farend", "--json"], tmp_path / "loopback") as far_end:
        far_end.wait_for(bool)
        said = far_end.of(e.Header)[0].config["addresses"]
        assert said == (["127.0.0.1"] if without else ["127.0.0.1", "::1"])
        assert far_end.end() == 0
