"""Rule messages, kept small: 5,000 Services mean 30,000 of them per family, and nearly all are never looked at.

Problem: iptables-nft keeps a comment in 257 bytes, most of them zero, and begins every expression with the same words;
two thirds of a mirror's memory was that. Promise: ``pack`` replaces long runs by short marks in a microsecond and
``unpack`` gives the message back byte for byte, whatever is in it: what could be taken for a mark is kept as it is.
Next stage: ``state`` unpacks what somebody reads.
"""

from __future__ import annotations

__all__ = ["pack", "unpack"]

_MARK = b"\xfe\xed\xfa"
_ESCAPE = b"\0"  # first byte of what is not a plain message: those begin with their family, never 0 in practice
_PACKED, _PLAIN = b"\0\1", b"\0\0"

_RUNS: tuple[tuple[bytes, bytes], ...] = (
    (bytes(32), _MARK + b"0"),
    # "match", "comment", revision 0, 256 bytes of text
    (
        bytes.fromhex("2c0101000a0001006d617463680000001c0102000c000100636f6d6d656e7400080002000000000004010300"),
        _MARK + b"1",
    ),
    # "counter" with its byte count's head
    (bytes.fromhex("2c0001000c000100636f756e746572001c0002000c000100"), _MARK + b"2"),
    # "immediate", a verdict
    (bytes.fromhex("0e000100696d6d656469617465000000"), _MARK + b"3"),
)


def pack(payload: bytes) -> bytes:
    """A smaller form; the payload itself where there is none."""
    if payload[:1] == _ESCAPE:
        return _PLAIN + payload
    if _MARK in payload:
        return payload
    packed = payload
    for run, mark in _RUNS:
        packed = packed.replace(run, mark)
    return _PACKED + packed if len(packed) < len(payload) else payload


def unpack(packed: bytes) -> bytes:
    """The payload that was packed."""
    if packed[:1] != _ESCAPE:
        return packed
    payload = packed[2:]
    if packed[:2] == _PACKED:
        for run, mark in reversed(_RUNS):
            payload = payload.replace(mark, run)
    return payload
