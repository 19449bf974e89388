"""The public key that belongs to a WireGuard private key (RFC 7748, X25519 with the base point).

Problem: a node publishes its public key before it configures the kernel, and Python's library has no X25519. Promise:
the same key as the kernel derives (tested with the RFC's vectors). Only for a node's own key, once at start: its
running time depends on the key, so it must not be offered to others.
"""

from __future__ import annotations

import base64
import binascii

__all__ = ["LENGTH", "clamped", "is_key", "public_key"]

LENGTH = 32
_P = (1 << 255) - 19
_A24 = 121665
_BASE = 9


def is_key(text: str) -> bool:
    """Whether it is a key as WireGuard's tools write it: 32 bytes in base64, not all of them zero."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(raw) == LENGTH and any(raw)


def clamped(private: bytes) -> bytes:
    """As the kernel stores it: five bits have fixed values (RFC 7748, 5)."""
    raw = bytearray(private)
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return bytes(raw)


def public_key(private: bytes, point: int = _BASE) -> bytes:
    """The private key times a point, the base point unless it is named."""
    scalar = int.from_bytes(clamped(private), "little")
    x1, x2, z2, x3, z3, swap = point % _P, 1, 0, point % _P, 1, 0
    for at in range(254, -1, -1):
        bit = scalar >> at & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % _P, b * b % _P, d * a % _P, c * b % _P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % _P, x1 * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _P - 2, _P) % _P).to_bytes(LENGTH, "little")
