"""What a prober and a far end say to each other: ports and formats.

Problem: the far end must tell a prober which source address it saw, cheaply, and people must be able to ask it by hand.
Promise: everything is a line of text that netcat and curl can read. TCP: the far end speaks first, ``ADDRESS PORT``,
and closes. UDP: a question is ``hitless TOKEN TRY`` with dots behind it, as many as the longest address and port take;
the answer is ``ADDRESS PORT`` and the question without its dots, so that it is never longer than the question. Nothing
else is answered, and an answer least of all: two far ends, or a far end and any other service, cannot be made to talk
to each other by a forged source. Echo: whatever comes is sent back. HTTP: GET and HEAD, 200 with the same in JSON and
in a header.
Nothing here reads or writes a socket. Next stages: ``farend`` answers, the kinds in ``prober`` ask.
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
    "http_question",
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

_ROOM = len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 ")
_QUESTION = re.compile(rb"(hitless [0-9A-Za-z-]{1,40} [1-9][0-9]{0,5})(?: \.{1,64})?\n?")
_REQUEST = re.compile(rb"(?:GET|HEAD) [!-~]{1,2048} HTTP/1\.[0-9]\r?\n")
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
    return _seen(words[0], words[1], b"1") if len(words) >= 2 else None


def _seen(address: bytes, port: bytes, attempt: bytes) -> Seen | None:
    found, count = whole_of(port), whole_of(attempt)
    if found is None or found > 65535 or count is None or not address.isascii():
        return None
    return Seen(address.decode("ascii"), found, count)


def question(token: bytes, attempt: int) -> bytes:
    """A UDP question: ``token`` names the flow, ``attempt`` counts its tries from 1; with room for the answer."""
    return b"hitless %s %d %s\n" % (token, attempt, b"." * _ROOM)


def udp_answer(address: str, port: int, asked: bytes) -> bytes | None:
    """The answer to the datagram ``asked``, at most as long; ``None`` when it is no question, or leaves no room.

    Where its dots leave no room for more (people leave them out) it is told the source alone.
    """
    found = _QUESTION.fullmatch(asked)
    if found is None:
        return None
    source = b"%s %d" % (plain(address).encode(), port)
    for answer in (b"%s %s\n" % (source, found[1]), source + b"\n"):
        if len(answer) <= len(asked):
            return answer
    return None


def read_udp_answer(data: bytes, token: bytes) -> Seen | None:
    """The source in the answer to ``token``'s question; ``None`` when it answers something else."""
    words = data.split()
    if len(words) != 5 or words[2] != b"hitless" or words[3] != token:
        return None
    return _seen(words[0], words[1], words[4])


def http_question(heard: bytes) -> bool | None:
    """Whether this is a request that is answered; ``None`` while its head may still come."""
    if b"\r\n\r\n" not in heard and b"\n\n" not in heard:
        return None
    return _REQUEST.match(heard) is not None


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
