"""Netlink messages and attributes: bytes to values and back.

Promise: exact for any protocol, rtnetlink and nfnetlink alike, with ``struct`` only; a malformed message, and an
attribute that is too long to be written, is ``KernelError``, never an ``IndexError`` or a ``struct.error``. What it
never does: interpret a payload. Next stage: ``netlink``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from hitless.errors import KernelError

__all__ = [
    "Message",
    "attribute",
    "attribute_list",
    "attributes",
    "be16",
    "be32",
    "be64",
    "message",
    "messages",
    "nested",
    "nfgenmsg",
    "text",
    "to_text",
    "u32",
]

_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_LONGEST = 0xFFFF  # the length of an attribute is a number of 16 bits
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_GENMSG = struct.Struct(">BBH")
_BE16, _BE32, _BE64, _U32 = (struct.Struct(code) for code in (">H", ">I", ">Q", "=I"))


class Message(NamedTuple):
    """One netlink message; ``payload`` is what follows its header."""

    type: int
    flags: int
    seq: int
    port: int
    payload: bytes


def message(kind: int, flags: int, seq: int, payload: bytes) -> bytes:
    """A message ready to be sent, padded to its alignment."""
    length = 16 + len(payload)
    return _HEADER.pack(length, kind, flags, seq, 0) + payload + b"\0" * (-length % 4)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram."""
    offset, end = 0, len(data)
    unpack, new = _HEADER.unpack_from, tuple.__new__  # half of the time of Message(...)
    while offset + 16 <= end:
        length, kind, flags, seq, port = unpack(data, offset)
        if length < 16 or offset + length > end:
            raise KernelError("read", "netlink message", reason=f"a length of {length} does not fit its datagram")
        yield new(Message, (kind, flags, seq, port, data[offset + 16 : offset + length]))
        offset += (length + 3) & ~3


def nfgenmsg(family: int, resource: int = 0) -> bytes:
    """The four bytes that begin every nfnetlink payload."""
    return _GENMSG.pack(family, 0, resource)


def attribute(kind: int, payload: bytes) -> bytes:
    """An attribute, padded. Raises ``KernelError`` where the payload is longer than an attribute can be."""
    length = 4 + len(payload)
    if length > _LONGEST:
        raise KernelError("write", "netlink attribute", reason=f"{length:,} bytes, of {_LONGEST:,} that fit")
    return _ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that contains attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    """A string attribute, with its final NUL."""
    return attribute(kind, value.encode() + b"\0")


def be16(kind: int, value: int) -> bytes:
    """A 16-bit attribute in network byte order."""
    return attribute(kind, _BE16.pack(value))


def be32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order (as in nfnetlink)."""
    return attribute(kind, _BE32.pack(value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """A 64-bit attribute in network byte order."""
    return attribute(kind, _BE64.pack(value))


def u32(kind: int, value: int) -> bytes:
    """A 32-bit attribute in host byte order (as in rtnetlink)."""
    return attribute(kind, _U32.pack(value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Attributes by type; of a repeated type the last one counts."""
    unpack, end = _ATTRIBUTE.unpack_from, len(data)
    found: dict[int, bytes] = {}
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise KernelError("read", "netlink attribute", reason=f"a length of {length} does not fit its message")
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute_list(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """Attributes in order, repeated types kept: for lists."""
    unpack, end = _ATTRIBUTE.unpack_from, len(data)
    found: list[tuple[int, bytes]] = []
    while offset + 4 <= end:
        length, kind = unpack(data, offset)
        if length < 4 or offset + length > end:
            raise KernelError("read", "netlink attribute", reason=f"a length of {length} does not fit its message")
        found.append((kind & _TYPE_MASK, data[offset + 4 : offset + length]))
        offset += (length + 3) & ~3
    return found


def to_text(value: bytes) -> str:
    """A string attribute's text."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")
