"""URLs to endpoints.

Problem: users name a far end, a port, a host or a web page; the prober needs addresses, once, before it begins (a name
that is resolved during an outage measures the resolver). Promise: ``parse`` accepts ``farend://``, ``tcp://``,
``udp://``, ``icmp://``, ``http://`` and ``https://`` and refuses everything else with the flag and what was expected;
``is_far_end`` tells far ends from other targets; ``resolve`` queries the resolver once. Nothing is sent to the target.
Next stage: ``traffic`` makes lanes of endpoints.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.events import Kind
from hitless.model.families import Family, family_of
from hitless.probe import wire
from hitless.probe.kinds import ENTRIES, SCHEMES, UrlForm

__all__ = ["Kind", "ProbeEndpoint", "Target", "is_far_end", "parse", "resolve"]

_WRITTEN = ["farend://HOST[:PORT]", *(url.expected(scheme) for scheme, (_, url) in SCHEMES.items())]
_EXPECTED = f"{', '.join(_WRITTEN[:-1])} or {_WRITTEN[-1]}"
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([^\]\s]+)\]|([^\[\]:/?#@\s]+))(?::([0-9]+))?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_HIGHEST_BASE = 65535 - 80

Resolver = Callable[..., Sequence[tuple[Any, ...]]]
"""``socket.getaddrinfo``, or a test's replacement."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL's parts; ``port`` is 0 and ``path`` empty if the scheme has none."""

    scheme: str
    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}{self.path}"


@dataclass(frozen=True, slots=True)
class ProbeEndpoint:
    """One kind at one address of a target. ``answers``: a far end is there, and reports the source that it saw."""

    kind: Kind
    family: Family
    address: str
    ports: tuple[int, ...]
    target: Target
    answers: bool


def parse(text: str, *, flag: str = "--to") -> Target:
    """The target of a URL; raises an ``InputError`` that names ``flag``."""
    match = _URL.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a URL", where=flag, expected=_EXPECTED)
    scheme: str = match[1].lower()
    rest = match[2]
    cut = min((index for index in map(rest.find, "/?#") if index >= 0), default=len(rest))
    authority, path = rest[:cut], rest[cut:]
    host, port = _authority(authority, text, flag)
    path = path.partition("#")[0]
    kind, url = SCHEMES.get(scheme, (None, UrlForm()))
    if kind is not None and url.path:
        path = path if path.startswith("/") else f"/{path}"
        if not path.isascii() or not path.isprintable() or " " in path:
            raise InputError(f"{text!r} has characters that must be %-encoded", where=flag, expected="a printable path")
    elif path not in ("", "/"):
        raise InputError(f"{text!r}: {scheme}:// has no path", where=flag, expected=_EXPECTED)
    else:
        path = ""
    if kind is not None:
        if url.port == "none" and port is not None:
            raise InputError(f"{text!r}: {kind.upper()} has no ports", where=flag, expected=url.expected(scheme))
        if url.port == "needed" and port is None:
            raise InputError(f"{text!r} names no port", where=flag, expected=url.expected(scheme))
        return Target(scheme, host, port or (url.port if isinstance(url.port, int) else 0), path)
    if scheme == "farend":
        base = wire.BASE_PORT if port is None else port
        if not 1024 <= base <= _HIGHEST_BASE:
            raise InputError(
                f"{text!r}: a far end cannot have its ports at {base}",
                where=flag,
                expected=f"1024 to {_HIGHEST_BASE}, the same as the far end's --port",
            )
        return Target("farend", host, base)
    raise InputError(f"{text!r}: unknown scheme {scheme}://", where=flag, expected=_EXPECTED)


def is_far_end(text: str) -> bool:
    """Whether a URL names a far end, which accepts high rates and streams; never raises."""
    match = _URL.fullmatch(text.strip())
    return match is not None and match[1].lower() == "farend"


def _authority(authority: str, text: str, flag: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(authority)
    if match is None and "@" in authority:  # not repeated in the message: it may contain a password
        raise InputError("a URL with a user's name in it is not probed", where=flag, expected="one without USER@")
    if match is None:
        raise InputError(f"{text!r} names no host", where=flag, expected=f"{_EXPECTED}; IPv6 addresses in [brackets]")
    bracketed, plain, digits = match[1], match[2], match[3]
    if bracketed is not None:
        if ":" not in bracketed or reading.address_of(bracketed, zone=True) is None:
            raise InputError(f"{text!r}: {bracketed!r} is not an IPv6 address", where=flag, expected=_EXPECTED)
    else:
        _check_host(plain, text, flag)
    if digits is None:
        return bracketed or plain, None
    if len(digits) > 5 or not 1 <= int(digits) <= 65535:
        raise InputError(f"{text!r}: port {digits} does not exist", where=flag, expected="a port from 1 to 65535")
    return bracketed or plain, int(digits)


def _check_host(host: str, text: str, flag: str) -> None:
    if re.fullmatch(r"[0-9.]+", host):
        if reading.address_of(host) is None:
            raise InputError(f"{text!r}: {host!r} is not an IPv4 address", where=flag, expected=_EXPECTED)
        return
    name = host.removesuffix(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise InputError(f"{text!r}: {host!r} is not a host name", where=flag, expected=_EXPECTED)


def resolve(
    target: Target,
    families: Sequence[Family] = (Family.IPV4, Family.IPV6),
    *,
    flag: str = "--to",
    resolver: Resolver = socket.getaddrinfo,
) -> tuple[ProbeEndpoint, ...]:
    """The endpoints of a target: each kind of its scheme, at each address of its name.

    Of a far end all addresses are used, of other targets the first one per family, as curl does. Raises ``InputError``
    if the name does not resolve in any of the families.
    """
    addresses = _addresses(target, families, flag, resolver)
    if target.scheme == "farend":
        return tuple(
            ProbeEndpoint(kind, family, address, entry.ports(target.port) or (0,), target, answers=True)
            for kind, entry in ENTRIES.items()
            for family, address in addresses
        )
    kind = SCHEMES[target.scheme][0]
    ours = ENTRIES[kind].ours_only
    first = dict(reversed(addresses))
    return tuple(
        ProbeEndpoint(kind, family, first[family], (target.port,), target, answers=ours)
        for family in families
        if family in first
    )


def _addresses(target: Target, families: Sequence[Family], flag: str, resolver: Resolver) -> list[tuple[Family, str]]:
    literal = reading.address_of(target.host, zone=True)
    if literal is not None:
        family = family_of(literal)
        if family not in families:
            raise InputError(f"{target} is {family}", where=flag, expected=f"an address of --family {families[0]}")
        return [(family, str(literal))]  # normalised, as the kernel reports addresses
    wanted = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
    number = wanted[families[0]] if len(families) == 1 else socket.AF_UNSPEC
    try:
        found = resolver(target.host, None, number, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"the name {target.host} does not resolve: {why}",
            where=flag,
            expected="a name that resolves, or an address",
        ) from error
    answers = [(Family.IPV4 if item[0] == socket.AF_INET else Family.IPV6, str(item[4][0])) for item in found]
    unique = [answer for answer in dict.fromkeys(answers) if answer[0] in families]
    if not unique:
        raise InputError(f"the name {target.host} has no address of family {' or '.join(families)}", where=flag)
    return unique
