"""The ways in which a prober can send, and what it leaves behind."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.kernel.probe.probe_world import HITLESS, PATIENT, Tool, World, punctual, tool

from hitless.kernel import processes
from hitless.kernel.namespaces import HERE, inside
from hitless.model import events as e
from hitless.model.families import Family

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(world: World, tmp_path: Path) -> Iterator[str]:
    """A web server with a self-signed certificate at the far end; its URL."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=far.example"]
    processes.run([*words, "-addext", f"subjectAltName=IP:{world.address(Family.IPV4)}"])
    server = processes.start(
        ["openssl", "s_server", "-accept", "8443", "-www", "-cert", str(certificate), "-key", str(key), "-quiet"],
        namespace=world.cluster.far_end.namespace,
    )
    try:
        end = time.monotonic() + 30
        while not inside(world.cluster.far_end.namespace, lambda: answers(8443)):
            assert time.monotonic() < end and server.poll() is None
            time.sleep(0.05)
        yield f"https://{world.address(Family.IPV4)}:8443/"
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def test_a_page_by_https_is_fetched_and_its_certificate_verified(world: World, web: str, tmp_path: Path) -> None:
    words = ("--count", "3", "--rate", "5", *PATIENT)
    strict = world.punctual(*words, targets=[web])
    assert strict.code == 1
    assert {loss.cause for loss in strict.of(e.Loss)} == {"error"}
    assert all("CERTIFICATE_VERIFY_FAILED" in loss.detail for loss in strict.of(e.Loss))
    lax = world.punctual(*words, "--insecure", targets=[web])
    assert lax.code == 0
    trusting = ["env", f"SSL_CERT_FILE={tmp_path / 'certificate.pem'}", *HITLESS]
    assert started(world, ["--to", web, *words], tmp_path / "trusting", trusting).code == 0


def started(world: World, words: Sequence[str], log: Path, program: Sequence[str]) -> Tool:
    """A punctual prober in the pod, started by another program."""
    line = ["probe", "--json", *words]
    return punctual(lambda: world.stack.enter_context(tool(world.pod, line, log, program=program)))


def test_a_gateway_error_of_a_proxy_is_a_failure(world: World) -> None:
    listening = inside(
        world.cluster.far_end.namespace, lambda: socket.create_server((world.address(Family.IPV4), 8080))
    )
    answers = {
        b"/gone": b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"/down": b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        b"/other": b"SSH-2.0-x\r\n",
    }

    def serve() -> None:
        with contextlib.suppress(OSError):  # until nobody listens any more
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(answers[connection.recv(4096).split()[1]])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        targets = [world.url(Family.IPV4, "http", f":8080{path.decode()}") for path in answers]
        probe = world.punctual("--count", "3", "--rate", "5", *PATIENT, targets=targets)
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        listening.close()
    assert probe.code == 1
    assert [loss.detail for loss in probe.of(e.Loss)] == ["HTTP 503", "no HTTP: b'SSH-2.0-x\\r\\n'"]
    assert probe.totals["http_ok"] == 1


def without_raw_sockets(world: World, folder: Path, words: list[str]) -> Tool:
    """A prober that may not open raw sockets, as in a restricted pod."""
    return started(world, words, folder / "restricted", ["setpriv", "--bounding-set", "-net_raw", *HITLESS])


def test_without_raw_sockets_echo_requests_go_through_ping_sockets(world: World, tmp_path: Path) -> None:
    world.far_end()
    processes.run(["sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647"], namespace=world.pod)
    urls = [word for family in Family for word in ("--to", world.url(family))]
    words = [*urls, "--mix", "icmp=1", "--rate", "200", "--count", "100", *PATIENT]
    probe = without_raw_sockets(world, tmp_path, words)
    assert probe.code == 0
    assert probe.totals["icmp_ok"] == probe.totals["sent"] == 100
    assert {one.family for one in probe.of(e.Attempts)} == {"ipv4", "ipv6"}


def test_without_any_icmp_socket_it_is_left_out_or_refused(world: World, tmp_path: Path) -> None:
    world.far_end()
    urls = ["--to", world.url(Family.IPV4)]
    asked = without_raw_sockets(world, tmp_path, [*urls, "--mix", "icmp=1", "--count", "5"])
    assert asked.code == 3
    assert asked.events == []
    assert "CAP_NET_RAW" in (tmp_path / "restricted").read_text()
    default = without_raw_sockets(world, tmp_path, [*urls, "--count", "50", *PATIENT])
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
    probe = world.punctual(*words, "--source", second, targets=[world.url(Family.IPV4)])
    assert probe.code == 1
    assert {loss.src for loss in probe.of(e.Loss)} == {second}
    elsewhere = world.punctual("--mix", "tcp=1,udp=1", "--count", "4", "--timeout", "0.3", "--interface", "lo")
    assert elsewhere.code == 1
    assert elsewhere.totals["tcp_lost"] + elsewhere.totals["udp_lost"] == elsewhere.totals["sent"] == 4


def test_nothing_is_left_behind_in_the_pod_and_little_in_conntrack(world: World) -> None:
    """Connections end by reset: no TIME_WAIT in the pod, 10 s instead of 120 s in the node's conntrack table."""
    world.far_end()
    probe = world.probe("--mix", "tcp=1", "--rate", "300", "--count", "300", *PATIENT)
    assert probe.end(None) == probe.good
    sockets = processes.run(["ss", "-Htan"], namespace=world.pod).stdout
    assert "TIME-WAIT" not in sockets
    entries = processes.run(["conntrack", "-L", "-p", "tcp"], namespace=world.node).stdout.splitlines()
    states = Counter(line.split()[3] for line in entries if f"src={world.pod_address(Family.IPV4)} " in line)
    assert set(states) <= {"CLOSE", "TIME_WAIT"}
    assert states["TIME_WAIT"] == 0


def test_a_second_signal_ends_at_once_and_reports_abandoned_attempts(world: World) -> None:
    world.nft("add rule ip probe-test forward drop\nadd rule ip6 probe-test forward drop")
    probe = world.probe("--mix", "udp=1", "--timeout", "50", "--rate", "100")
    probe.wait_beats()
    probe.process.send_signal(signal.SIGTERM)
    beats = len(probe.of(e.Heartbeat))
    probe.wait_beats(2)  # it waits for what is open
    assert len(probe.of(e.Heartbeat)) > beats
    assert probe.end() == 2
    assert probe.totals["abandoned"] == probe.totals["sent"] > 0
    said = probe.of(e.Attempts)  # neither answered nor lost: nobody knows
    assert sum(one.undecided for one in said) == sum(one.sent for one in said) == probe.totals["sent"]


def test_the_namespace_is_entered_from_outside(world: World, tmp_path: Path) -> None:
    world.far_end()
    words = ["probe", "--json", "--namespace", str(world.pod.net), "--count", "20", "--to", world.url(Family.IPV6)]
    log = tmp_path / "outside"
    probe = punctual(lambda: world.stack.enter_context(tool(HERE, [*words, *PATIENT], log)))
    assert probe.code == 0
    assert probe.totals["tcp_ok"] > 0
