"""The one reader of addresses, networks and whole numbers in foreign text.

Problem: the standard library accepts more as an address, a network or a number than a rule, a file or a log line may
contain: an IPv6 zone is kept unchanged (including line breaks), ``'²'.isdigit()`` is true and ``int`` refuses it, and
five thousand digits raise an exception. Promise: accepted values consist of the ASCII characters of their kind, within
a fixed length; zones are refused unless the caller allows an interface's name; ``InputError`` names the place and the
expected form, and quotes at most 80 characters of the value. No other module converts text to addresses or tests for
digits (``tests/architecture`` checks that). Results print as plain values, so that rule text built from them stays
well-formed.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hitless.errors import InputError, KernelError
from hitless.model.families import Address, Family, Network, family_of

__all__ = [
    "address",
    "address_of",
    "network",
    "network_of",
    "number",
    "packed",
    "packed_network",
    "shown",
    "whole",
    "whole_of",
]

_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_LENGTH = re.compile(r"[0-9]{1,3}")
_ZONE = re.compile(r"[!-$&-.0-~]{1,15}")  # an interface's name: no blank, no /, and no second %
_DIGITS = re.compile(r"[0-9]{1,19}")  # what fits into 64 bits, and a few more
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")  # one spelling: elsewhere a leading zero means octal
_SHOWN = 80


def shown(value: object) -> str:
    """A value as a message may quote it: in quotation marks, control characters escaped, at most 80 characters."""
    text = repr(value if not isinstance(value, str | bytes) else value[: 2 * _SHOWN])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def address(
    text: object,
    *,
    where: str,
    expected: str = "an IPv4 or IPv6 address",
    family: Family | None = None,
    zone: bool = False,
) -> Address:
    """The address in a text, of ``family`` if given; raises ``InputError``.

    ``zone``: an interface may follow a ``%`` (link-local addresses of a probe), and is kept.
    """
    found = _address(text, zone=zone)
    if isinstance(found, str):
        raise InputError(f"{shown(text)} {found or 'is not an address'}", where=where, expected=expected)
    if family is not None and family_of(found) is not family:
        raise InputError(f"{shown(text)} is {family_of(found)}", where=where, expected=expected)
    return found


def address_of(text: object, *, zone: bool = False) -> Address | None:
    """The address in a text; ``None`` if it is not an address."""
    found = _address(text, zone=zone)
    return None if isinstance(found, str) else found


def network(
    text: object,
    *,
    where: str,
    expected: str = "a network such as 10.42.0.0/16",
    family: Family | None = None,
    host_bits: bool = False,
) -> Network:
    """The network in ``ADDRESS/LENGTH``, of ``family`` if given; raises ``InputError``.

    The length is required: an address alone would silently be a network of one address. ``host_bits``: the address may
    be any of the network's (flannel writes a subnet as its first address).
    """
    found = _network(text, host_bits)
    if isinstance(found, str):
        raise InputError(f"{shown(text)} {found or 'is not a network'}", where=where, expected=expected)
    if family is not None and family_of(found) is not family:
        raise InputError(f"{shown(text)} is {family_of(found)}", where=where, expected=expected)
    return found


def network_of(text: object, *, host_bits: bool = False) -> Network | None:
    """The network in a text; ``None`` if it is not a network."""
    found = _network(text, host_bits)
    return None if isinstance(found, str) else found


def packed(value: bytes) -> Address:
    """The address in a kernel's message: 4 or 16 bytes. Raises ``KernelError`` for any other number of them."""
    try:
        return IPv4Address(value) if len(value) == 4 else IPv6Address(value)
    except ValueError as error:
        raise KernelError("read", "an address in a message", reason=f"it has {len(value)} bytes") from error


def packed_network(value: bytes, length: int) -> Network:
    """The network in a kernel's message; host bits are cut off."""
    found = packed(value)
    if length > found.max_prefixlen:
        raise KernelError("read", "a network in a message", reason=f"{length} bits of {found.max_prefixlen}")
    return (IPv4Network if found.version == 4 else IPv6Network)((int(found), length), strict=False)


def whole(text: object, *, where: str, least: int = 0, most: int, expected: str = "") -> int:
    """The whole number in a text (or a JSON number), from ``least`` to ``most``; raises ``InputError``.

    Decimal, without sign, blanks, underscores or leading zeros.
    """
    found: int | None = None
    if isinstance(text, int) and not isinstance(text, bool):
        found = text
    elif isinstance(text, str) and _DECIMAL.fullmatch(text):
        found = int(text)
    if found is None or not least <= found <= most:
        expected = expected or f"a whole number from {least} to {most}"
        raise InputError(f"{shown(text)}", where=where, expected=expected)
    return found


def whole_of(text: str | bytes) -> int | None:
    """The number in ASCII digits, at most 19 of them; ``None`` for anything else."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return int(text) if _DIGITS.fullmatch(text) else None


def number(text: str) -> int | None:
    """As ``whole_of``, with an optional sign."""
    found = whole_of(text.removeprefix("-"))
    return -found if found is not None and text.startswith("-") else found


def _address(text: object, *, zone: bool) -> Address | str:
    """The address, or why it is invalid (empty: it does not look like an address)."""
    if not isinstance(text, str):
        return ""
    plain, percent, name = text.partition("%")
    if not _ADDRESS.fullmatch(plain):
        return ""
    if percent and not (zone and _ZONE.fullmatch(name) and ":" in plain):
        return "has a zone (%…), which is not taken here" if _ZONE.fullmatch(name) else ""
    try:
        return IPv6Address(text) if ":" in plain else IPv4Address(plain)
    except ValueError:
        return ""


def _network(text: object, host_bits: bool) -> Network | str:
    """The network, or why it is invalid (empty: it does not look like a network)."""
    if not isinstance(text, str):
        return ""
    plain, slash, length = text.partition("/")
    found = _address(plain, zone=False)
    if isinstance(found, str):
        return found.replace("address", "network")
    if not slash:
        return f"has no prefix length (/{found.max_prefixlen} would be that one address)"
    if not _LENGTH.fullmatch(length) or int(length) > found.max_prefixlen:
        return ""
    kind = IPv4Network if isinstance(found, IPv4Address) else IPv6Network
    made = kind((int(found), int(length)), strict=False)
    if made.network_address != found and not host_bits:
        return f"has host bits set (the network is {made})"
    return made
