"""What a prober and a far end say to each other: ports and formats.

Problem: the far end must tell a prober which source address it saw, cheaply, and people must be able to ask it by hand.
Promise: everything is a line of text that netcat and curl can read. TCP: the far end speaks first, ``ADDRESS PORT``,
and closes. UDP: the answer is ``ADDRESS PORT`` and the question again, so it is never much longer than the question (no
use to anyone who forges sources). Echo: whatever comes is sent back. HTTP: 200 with the same in JSON and in a header.
Nothing here reads or writes a socket. Next stages: ``farend`` answers, the kinds in ``prober`` ask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = [
    "BASE_PORT",
    "FLOW_PORTS",
    "QUESTION_LIMIT",
    "Ports",
    "Seen",
    "banner",
    "http_answer",
    "http_seen",
    "ports",
    "question",
    "read_banner",
    "read_udp_answer",
    "udp_answer",
]

BASE_PORT = 7800
"""Where a far end's ports begin, unless it is told otherwise; not assigned to anything common."""

FLOW_PORTS = 4
"""TCP and UDP ports each: 4 x 55,296 source ports = 221,184 flows before a 5-tuple comes again (1,700/s for 130 s)."""

QUESTION_LIMIT = 512
"""Longest UDP question that is answered; DNS's classic limit, so it passes wherever DNS does."""

_SOURCE_HEADER = "Hitless-Source"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one far end."""

    flow: tuple[int, ...]  # TCP banner and UDP answer
    echo: int  # long-lived streams
    http: int


def ports(base: int = BASE_PORT) -> Ports:
    """The ports of a far end whose first port is ``base`` + 1; ``base`` is 1024 to 65455."""
    return Ports(flow=tuple(base + 1 + index for index in range(FLOW_PORTS)), echo=base + 10, http=base + 80)


@dataclass(frozen=True, slots=True)
class Seen:
    """The source that a far end saw; ``attempt`` is which try of a question was answered (1 = the first)."""

    address: str
    port: int
    attempt: int = 1


def plain(address: str) -> str:
    """An address as both ends write it: no zone, and an IPv4-mapped IPv6 address as the IPv4 address that it is."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def banner(address: str, port: int) -> bytes:
    """What the far end says on a new TCP connection."""
    return b"%s %d\n" % (plain(address).encode(), port)


def read_banner(data: bytes) -> Seen | None:
    """The source in a banner; ``None`` when ``data`` is none."""
    words = data.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[1].isdigit():
        return None
    try:
        return Seen(words[0].decode("ascii"), int(words[1]))
    except UnicodeDecodeError:
        return None


def question(token: bytes, attempt: int) -> bytes:
    """A UDP question: ``token`` names the flow, ``attempt`` counts its tries from 1."""
    return b"hitless %s %d\n" % (token, attempt)


def udp_answer(address: str, port: int, asked: bytes) -> bytes:
    """The answer to the datagram ``asked``."""
    return b"%s %d %s" % (plain(address).encode(), port, asked[:QUESTION_LIMIT])


def read_udp_answer(data: bytes, token: bytes) -> Seen | None:
    """The source in the answer to ``token``'s question; ``None`` when it answers something else."""
    words = data.split()
    if len(words) != 5 or words[2] != b"hitless" or words[3] != token or not (words[1] + words[4]).isdigit():
        return None
    try:
        return Seen(words[0].decode("ascii"), int(words[1]), int(words[4]))
    except UnicodeDecodeError:
        return None


def http_answer(address: str, port: int) -> bytes:
    """A whole HTTP response that names the source seen."""
    source = plain(address)
    body = json.dumps({"source": source, "port": port}).encode() + b"\n"
    head = (
        "HTTP/1.1 200 OK\r\nServer: hitless\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{_SOURCE_HEADER}: {source} {port}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def http_seen(head: bytes) -> Seen | None:
    """The source in the header of our far end's HTTP answer; ``None`` for anybody else's."""
    name = _SOURCE_HEADER.lower().encode() + b":"
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name):
            return read_banner(line[len(name) :])
    return None
