"""The ways in which a prober can send, and what it leaves behind."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.probe.probe_world import HITLESS, Tool, World, tool

from hitless.kernel import processes
from hitless.kernel.namespaces import HERE, inside
from hitless.model import events as e
from hitless.model.families import Family

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(world: World, tmp_path: Path) -> Iterator[str]:
    """A web server with a certificate that nobody signed, at the far end; its URL."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=far.example"]
    processes.run([*words, "-addext", f"subjectAltName=IP:{world.address(Family.IPV4)}"])
    server = processes.start(
        ["openssl", "s_server", "-accept", "8443", "-www", "-cert", str(certificate), "-key", str(key), "-quiet"],
        namespace=world.cluster.far_end.namespace,
    )
    end = time.monotonic() + 30
    while not inside(world.cluster.far_end.namespace, lambda: answers(8443)):
        assert time.monotonic() < end and server.poll() is None
        time.sleep(0.05)
    yield f"https://{world.address(Family.IPV4)}:8443/"
    server.kill()
    server.wait()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_page_by_https_is_fetched_and_its_certificate_verified(world: World, web: str, tmp_path: Path) -> None:
    strict = world.probe("--count", "3", "--rate", "5", targets=[web])
    assert strict.end(None) == 1
    assert {loss.cause for loss in strict.of(e.Loss)} == {"error"}
    assert all("CERTIFICATE_VERIFY_FAILED" in loss.detail for loss in strict.of(e.Loss))
    lax = world.probe("--count", "3", "--rate", "5", "--insecure", targets=[web])
    assert lax.end(None) == 0
    trusting = [f"SSL_CERT_FILE={tmp_path / 'certificate.pem'}", *HITLESS, "probe", "--json", "--to", web]
    process = processes.start(["env", *trusting, "--count", "3"], namespace=world.pod, stdout=subprocess.PIPE)
    with process:
        assert Tool(process).end(None) == 0


def test_a_proxy_that_says_its_far_side_is_gone_is_no_success(world: World) -> None:
    listening = inside(
        world.cluster.far_end.namespace, lambda: socket.create_server((world.address(Family.IPV4), 8080))
    )

    def serve() -> None:
        for answer in (
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            b"SSH-2.0-x\r\n",
        ):
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with listening:
        probe = world.probe("--count", "3", "--rate", "2", targets=[world.url(Family.IPV4, "http", ":8080")])
        assert probe.end(None) == 1
        thread.join()
    assert [loss.detail for loss in probe.of(e.Loss)] == ["HTTP 503", "no HTTP: b'SSH-2.0-x\\r\\n'"]
    assert probe.totals["http_ok"] == 1


def without_raw_sockets(world: World, folder: Path, words: list[str]) -> Tool:
    """A prober that may not open raw sockets, as in a restricted pod."""
    line = ["setpriv", "--bounding-set", "-net_raw", *HITLESS, "probe", "--json", *words]
    with (folder / "restricted").open("wb") as errors:
        process = processes.start(line, namespace=world.pod, stdout=subprocess.PIPE, stderr=errors)
    running = Tool(process)
    running.code = running.end(None)
    assert process.stdout is not None
    process.stdout.close()
    return running


def test_without_raw_sockets_echo_requests_go_through_ping_sockets(world: World, tmp_path: Path) -> None:
    world.far_end()
    processes.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"], namespace=world.pod)
    urls = [word for family in Family for word in ("--to", world.url(family))]
    probe = without_raw_sockets(world, tmp_path, [*urls, "--mix", "icmp=1", "--rate", "200", "--count", "100"])
    assert probe.code == 0
    assert probe.totals["icmp_ok"] == probe.totals["sent"] > 50
    assert {one.family for one in probe.of(e.Attempts)} == {"ipv4", "ipv6"}


def test_without_any_icmp_socket_it_is_left_out_or_refused(world: World, tmp_path: Path) -> None:
    world.far_end()
    urls = ["--to", world.url(Family.IPV4)]
    asked = without_raw_sockets(world, tmp_path, [*urls, "--mix", "icmp=1", "--count", "5"])
    assert asked.code == 3
    assert asked.events == []
    assert "CAP_NET_RAW" in (tmp_path / "restricted").read_text()
    default = without_raw_sockets(world, tmp_path, [*urls, "--count", "50"])
    assert default.code == 0
    assert "icmp_sent" not in default.totals
    assert any("icmp is left out" in note.text for note in default.of(e.Note))


def test_interface_and_source_are_used_when_asked(world: World) -> None:
    world.far_end()
    second = "10.42.0.77"
    processes.run(["ip", "address", "add", f"{second}/32", "dev", "eth0"], namespace=world.pod)
    processes.run(["ip", "route", "add", second, "dev", world.cluster.nodes[0].pods[0].interface], namespace=world.node)
    world.nft("add rule ip probe-test forward ip saddr 10.42.0.77 udp dport 7801-7804 drop")
    words = ["--mix", "udp=1", "--count", "3", "--timeout", "0.3", "--interface", "eth0"]
    probe = world.probe(*words, "--source", second, targets=[world.url(Family.IPV4)])
    assert probe.end(None) == 1
    assert {loss.src for loss in probe.of(e.Loss)} == {second}
    elsewhere = world.probe("--mix", "tcp=1,udp=1", "--count", "4", "--timeout", "0.3", "--interface", "lo")
    assert elsewhere.end(None) == 1
    assert elsewhere.totals["tcp_lost"] + elsewhere.totals["udp_lost"] == elsewhere.totals["sent"] == 4


def test_nothing_is_left_behind_in_the_pod_and_little_in_conntrack(world: World) -> None:
    """Connections end by reset: no TIME_WAIT in the pod, 10 s instead of 120 s in the node's conntrack table."""
    world.far_end()
    probe = world.probe("--mix", "tcp=1", "--rate", "300", "--count", "300")
    assert probe.end(None) == 0
    sockets = processes.run(["ss", "-Htan"], namespace=world.pod).stdout
    assert "TIME-WAIT" not in sockets
    entries = processes.run(["conntrack", "-L", "-p", "tcp"], namespace=world.node).stdout.splitlines()
    states = Counter(line.split()[3] for line in entries if f"src={world.pod_address(Family.IPV4)} " in line)
    assert set(states) <= {"CLOSE", "TIME_WAIT"}
    assert states["TIME_WAIT"] == 0


def test_a_second_signal_ends_at_once_and_says_what_was_abandoned(world: World) -> None:
    world.nft("add rule ip probe-test forward drop\nadd rule ip6 probe-test forward drop")
    probe = world.probe("--mix", "udp=1", "--timeout", "50", "--rate", "100")
    probe.wait_beats()
    probe.process.send_signal(signal.SIGTERM)
    beats = len(probe.of(e.Heartbeat))
    probe.wait_beats(2)  # it waits for what is open
    assert len(probe.of(e.Heartbeat)) > beats
    assert probe.end() == 2
    assert probe.totals["abandoned"] == probe.totals["sent"] > 0
    assert probe.of(e.Attempts) == []


def test_the_namespace_is_entered_from_outside(world: World, tmp_path: Path) -> None:
    world.far_end()
    words = ["probe", "--json", "--namespace", str(world.pod.net), "--count", "20", "--to", world.url(Family.IPV6)]
    with tool(HERE, words, tmp_path / "outside") as probe:
        assert probe.end(None) == 0
        assert probe.totals["tcp_ok"] > 0
