"""What prober and far end say to each other, and what both make of nonsense."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel import capture
from hitless.model.families import Family
from hitless.probe import http, icmp, wire

addresses = st.ip_addresses().map(str)
numbers = st.integers(0, 65535)


@given(addresses, numbers)
def test_a_banner_has_the_source(address: str, port: int) -> None:
    assert wire.read_banner(wire.banner(address, port)) == wire.Seen(wire.plain(address), port)


@given(addresses, numbers, st.integers(1, 99), st.from_regex(r"[0-9a-f]{8}-[0-9a-f]{1,8}", fullmatch=True))
def test_an_answer_has_the_source_and_which_try_it_answers(address: str, port: int, attempt: int, name: str) -> None:
    token = name.encode()
    answer = wire.udp_answer(address, port, wire.udp_request(token, attempt))
    assert answer is not None
    assert wire.read_udp_answer(answer, token) == wire.Seen(wire.plain(address), port, attempt)
    assert wire.read_udp_answer(answer, token + b"0") is None


QUESTIONS = st.binary(max_size=200) | st.from_regex(rb"(hitless [0-9a-z-]{1,9} [1-9] ?\.{0,9}\n?)+", fullmatch=True)
FAR = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"


@pytest.mark.slow
@given(QUESTIONS | st.builds(wire.udp_request, st.just(b"0123abcd-1"), st.integers(1, 9)))
def test_an_answer_is_never_longer_than_its_question_and_is_no_question_itself(asked: bytes) -> None:
    for address in (FAR, "192.0.2.1"):
        answer = wire.udp_answer(address, 65535, asked)
        if answer is not None:
            assert len(answer) <= len(asked)
            assert wire.udp_answer(address, 1, answer) is None


@pytest.mark.parametrize(
    "asked",
    [
        b"", b"x", b"hello\n", b"192.0.2.1 7801 hitless a-1 1\n", b"hitless a-1 0\n", b"hitless a-1 1\n\n",
        b"hitless a-1 1 ....\nhitless a-1 1 ....\n", b"hitless \xb2 1\n", b"hitless a-1 \xc2\xb2\n",
        b" hitless a-1 1\n",
        b"hitless a-1 1 " + b"." * 65, b"hitless " + b"a" * 41 + b" 1\n", b"HITLESS a-1 1\n", b"\0hitless a-1 1\n",
    ],
)  # fmt: skip
def test_what_is_no_question_is_not_answered(asked: bytes) -> None:
    assert wire.udp_answer("192.0.2.1", 40000, asked) is None


def test_a_request_typed_by_hand_is_answered_as_far_as_its_length_allows() -> None:
    assert wire.udp_answer("192.0.2.1", 7, b"hitless it-is-me 1") == b"192.0.2.1 7\n"
    assert wire.udp_answer("192.0.2.1", 7, b"hitless me 1 ............\n") == b"192.0.2.1 7 hitless me 1\n"
    assert wire.udp_answer(FAR, 65535, b"hitless me 1\n") is None


def test_http_answers_requests_only() -> None:
    assert wire.is_http_request(b"GET / HTTP/1.1\r\n") is None
    assert wire.is_http_request(b"GET / HTTP/1.1\r\n\r\n") is wire.is_http_request(b"HEAD /x?y HTTP/1.0\n\n") is True
    for other in (wire.http_answer(FAR, 1), b"POST / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"\r\n\r\n"):
        assert wire.is_http_request(other) is False


@given(st.binary(max_size=200))
def test_nonsense_is_no_answer(data: bytes) -> None:
    assert wire.read_udp_answer(data, b"token") is None
    wire.read_banner(data)
    wire.http_seen(data)
    http.read_head(data)


@pytest.mark.slow
@given(addresses, numbers, st.integers(1, 400))
def test_an_http_answer_is_read_however_it_is_cut(address: str, port: int, cut: int) -> None:
    answer = wire.http_answer(address, port)
    if b"\r\n\r\n" not in answer[:cut]:
        assert http.read_head(answer[:cut]) is None
    found = http.read_head(answer)
    assert found is not None
    status, head = found
    assert status == 200
    assert wire.http_seen(head) == wire.Seen(wire.plain(address), port)
    assert json.loads(answer.split(b"\r\n\r\n")[1]) == {"source": wire.plain(address), "port": port}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nbody", 503),
        (b"HTTP/1.0 204\r\n\r\n", 204),
        (b"SSH-2.0-OpenSSH\r\n", 0),
        (b"HTTP/1.1 banana\r\n\r\n", 0),
        (b"x" * 70_000, 0),
    ],
)
def test_a_status_is_read_and_other_protocols_are_recognised(data: bytes, status: int) -> None:
    found = http.read_head(data)
    assert found is not None and found[0] == status


def test_a_request_names_host_and_port_as_a_browser_would() -> None:
    assert b"\r\nHost: example.org\r\n" in http.request("example.org", 443, "/", tls=True)
    assert b"\r\nHost: example.org:443\r\n" in http.request("example.org", 443, "/", tls=False)
    assert b"GET /a?b HTTP/1.1\r\nHost: [::1]:8080\r\n" in http.request("::1", 8080, "/a?b", tls=False)


@given(numbers, numbers, st.binary(min_size=8, max_size=8))
def test_an_echo_request_has_a_right_checksum(identifier: int, sequence: int, payload: bytes) -> None:
    message = icmp.echo(Family.IPV4, identifier, sequence, payload)
    assert icmp.checksum(message) == 0  # RFC 1071: over the whole, the checksum included
    assert struct.unpack("!BBHHH", message[:8])[3:] == (identifier, sequence)
    assert icmp.echo(Family.IPV6, identifier, sequence, payload)[2:4] == b"\0\0"  # the kernel's to fill in


# --- the packet filter, run by an interpreter of the instructions that it uses (linux/filter.h) ---------------------


def run_filter(code: bytes, packet: bytes, *, protocol: int, kind: int = 0) -> int:
    a = x = at = 0
    program = [struct.unpack_from("=HBBI", code, 8 * index) for index in range(len(code) // 8)]
    for _ in range(10_000):
        opcode, true, false, k = program[at]
        at += 1
        if opcode == 0x06:
            return int(k)
        try:
            if opcode == 0x20:
                a = (
                    {0xFFFFF000: protocol, 0xFFFFF004: kind}[k]
                    if k >= 0xFFFFF000
                    else struct.unpack_from("!I", packet, k)[0]
                )
            elif opcode == 0x28:
                a = struct.unpack_from("!H", packet, k)[0]
            elif opcode == 0x30:
                a = packet[k]
            elif opcode == 0x50:
                a = packet[x + k]
            elif opcode == 0xB1:
                x = 4 * (packet[k] & 15)
            elif opcode == 0x54:
                a &= k
            elif opcode == 0x05:
                at += k
            elif opcode == 0x15:
                at += true if a == k else false
            else:
                pytest.fail(f"opcode {opcode:#x}")
        except (IndexError, struct.error):
            return 0  # the kernel drops a packet that is too short for a load
    pytest.fail("endless")


def packet(src: str, protocol: int, transport: bytes, *, options: int = 0, fragment: int = 0) -> bytes:
    source = ip_address(src)
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(transport), protocol, 64)
        return head + source.packed + ip_address("2001:db8:ffff::1").packed + transport
    head = struct.pack("!BBHHHBBH", 0x45 + options, 0, 0, 0, fragment, 64, protocol, 0)
    return head + source.packed + ip_address("198.51.100.1").packed + bytes(4 * options) + transport


SYN = struct.pack("!HHIIBB", 1000, 80, 1, 0, 0x50, 0x02) + bytes(6)
SYN_ACK = struct.pack("!HHIIBB", 1000, 80, 1, 0, 0x50, 0x12) + bytes(6)
DATAGRAM = struct.pack("!HHHH", 1000, 53, 8, 0)
NETWORKS = [ip_network(text) for text in ("10.42.0.0/16", "172.16.5.0/28", "fd42::/48", "fd00:1:2:3::/64")]


@given(st.ip_addresses(), st.integers(0, 10), st.sampled_from(NETWORKS), st.booleans())
def test_the_filter_passes_first_packets_of_the_networks_and_nothing_else(
    address: object, options: int, network: object, inside: bool
) -> None:
    assert isinstance(network, type(network))
    code = capture.program(NETWORKS)
    chosen = ip_address(str(address))
    net = ip_network(str(network))
    if inside:
        bits = int(net.hostmask)
        chosen = ip_address(int.from_bytes(net.network_address.packed, "big") + (int(chosen) & bits))
        if chosen.version != net.version:
            return
    member = any(chosen in one for one in NETWORKS if one.version == chosen.version)
    ethernet = 0x0800 if chosen.version == 4 else 0x86DD
    echo_kind, echo_protocol = (8, 1) if chosen.version == 4 else (128, 58)
    for protocol, transport, first in (
        (6, SYN, True),
        (6, SYN_ACK, False),
        (17, DATAGRAM, True),
        (echo_protocol, bytes([echo_kind]) + bytes(7), True),
        (echo_protocol, bytes([0]) + bytes(7), False),
        (132, bytes(20), False),
    ):
        data = packet(str(chosen), protocol, transport, options=options if chosen.version == 4 else 0)
        assert bool(run_filter(code, data, protocol=ethernet)) == (member and first)
        assert run_filter(code, data, protocol=ethernet, kind=4) == 0  # what we send ourselves
        assert run_filter(code, data, protocol=0x0806) == 0


def test_later_fragments_and_single_family_filters_pass_nothing() -> None:
    later = packet("10.42.0.2", 17, DATAGRAM, fragment=100)
    assert run_filter(capture.program(NETWORKS), later, protocol=0x0800) == 0
    only6 = capture.program([ip_network("fd42::/48")])
    assert run_filter(only6, packet("10.42.0.2", 17, DATAGRAM), protocol=0x0800) == 0
    assert run_filter(only6, packet("fd42::2", 17, DATAGRAM), protocol=0x86DD) > 0
