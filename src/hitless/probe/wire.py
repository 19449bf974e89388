"""The protocol between prober and far end: ports and formats.

Problem: the far end must report the source address that it saw, cheaply, and users must be able to test it by hand.
Promise: everything is a line of text that netcat and curl can read. TCP: the far end sends ``ADDRESS PORT`` first, and
closes. UDP: a request is ``hitless TOKEN TRY`` followed by dots, as many as the longest address and port need; the
answer is ``ADDRESS PORT`` and the request without its dots, so that it is never longer than the request. Nothing else
is answered, least of all an answer: with a forged source, two far ends, or a far end and another service, cannot be
made to send to each other. Echo: all data is sent back. HTTP: GET and HEAD get 200, with the source in JSON and in a
header. No sockets here. Next stages: ``farend`` answers, the clients of ``kinds`` send.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from hitless.model.reading import whole_of

__all__ = [
    "BASE_PORT",
    "FLOW_PORTS",
    "FarEndPorts",
    "Seen",
    "banner",
    "http_answer",
    "http_seen",
    "is_http_request",
    "ports",
    "read_banner",
    "read_udp_answer",
    "udp_answer",
    "udp_request",
]

BASE_PORT = 7800
"""Default base of a far end's ports; no common service uses them."""

FLOW_PORTS = 4
"""TCP and UDP ports each: 4 x 55,296 source ports = 221,184 flows before a 5-tuple comes again (1,700/s for 130 s)."""

_ROOM = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 ")
_UDP_REQUEST = re.compile(rb"(hitless [0-9A-Za-z-]{1,40} [1-9][0-9]{0,5})(?: \.{1,64})?\n?")
_HTTP_REQUEST = re.compile(rb"(?:GET|HEAD) [!-~]{1,2048} HTTP/1\.[0-9]\r?\n")
_SOURCE_HEADER = "Hitless-Source"


@dataclass(frozen=True, slots=True)
class FarEndPorts:
    """The ports of one far end."""

    flow: tuple[int, ...]  # TCP banner and UDP answer
    echo: int  # long-lived streams
    http: int


def ports(base: int = BASE_PORT) -> FarEndPorts:
    """The ports of a far end whose first port is ``base`` + 1; ``base`` is 1024 to 65455."""
    return FarEndPorts(flow=tuple(base + 1 + index for index in range(FLOW_PORTS)), echo=base + 10, http=base + 80)


@dataclass(frozen=True, slots=True)
class Seen:
    """The source that a far end saw; ``attempt``: which try of a request was answered (1 = the first)."""

    address: str
    port: int
    attempt: int = 1


def plain(address: str) -> str:
    """An address as both ends write it: without zone, and IPv4-mapped IPv6 addresses as IPv4."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def banner(address: str, port: int) -> bytes:
    """What the far end sends on a new TCP connection."""
    return b"%s %d\n" % (plain(address).encode(), port)


def read_banner(data: bytes) -> Seen | None:
    """The source in a banner; ``None`` if ``data`` is not a banner."""
    fields = data.split(b"\n", 1)[0].split()
    return _seen(fields[0], fields[1], b"1") if len(fields) >= 2 else None


def _seen(address: bytes, port: bytes, attempt: bytes) -> Seen | None:
    found, count = whole_of(port), whole_of(attempt)
    if found is None or found > 65535 or count is None or not address.isascii():
        return None
    return Seen(address.decode("ascii"), found, count)


def udp_request(token: bytes, attempt: int) -> bytes:
    """A UDP request: ``token`` names the flow, ``attempt`` counts its tries from 1; as long as its answer."""
    return b"hitless %s %d %s\n" % (token, attempt, b"." * _ROOM)


def udp_answer(address: str, port: int, asked: bytes) -> bytes | None:
    """The answer to a datagram, at most as long; ``None`` if it is not a request, or too short for an answer.

    A request with too few dots (typed by hand) gets the source only.
    """
    found = _UDP_REQUEST.fullmatch(asked)
    if found is None:
        return None
    source = b"%s %d" % (plain(address).encode(), port)
    for answer in (b"%s %s\n" % (source, found[1]), source + b"\n"):
        if len(answer) <= len(asked):
            return answer
    return None


def read_udp_answer(data: bytes, token: bytes) -> Seen | None:
    """The source in the answer to the request of ``token``; ``None`` if it answers another request."""
    fields = data.split()
    if len(fields) != 5 or fields[2] != b"hitless" or fields[3] != token:
        return None
    return _seen(fields[0], fields[1], fields[4])


def is_http_request(heard: bytes) -> bool | None:
    """Whether this is a request that the far end answers; ``None`` while its head is incomplete."""
    if b"\r\n\r\n" not in heard and b"\n\n" not in heard:
        return None
    return _HTTP_REQUEST.match(heard) is not None


def http_answer(address: str, port: int) -> bytes:
    """A whole HTTP response with the source that was seen."""
    source = plain(address)
    body = json.dumps({"source": source, "port": port}).encode() + b"\n"
    head = (
        "HTTP/1.1 200 OK\r\nServer: hitless\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{_SOURCE_HEADER}: {source} {port}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def http_seen(head: bytes) -> Seen | None:
    """The source in the header of a far end's HTTP answer; ``None`` for other servers."""
    name = _SOURCE_HEADER.lower().encode() + b":"
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name):
            return read_banner(line[len(name) :])
    return None
