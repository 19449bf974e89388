"""URLs of servers and proxies, taken apart and without their passwords.

Problem: a URL of a kubeconfig or a variable may hold a password, and the standard library passes line breaks and
spaces over silently. Promise: ``parsed`` gives the parts of a URL that a client can use, or ``ValueError`` that
quotes nothing of it. Next stage: ``contexts``, ``proxies``, ``transport``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

__all__ = ["Url", "parsed"]


@dataclass(frozen=True, slots=True)
class Url:
    """``shown`` is the URL without its user and password; ``host`` has no brackets; ``port`` is None for the usual."""

    scheme: str
    host: str
    port: int | None
    path: str
    shown: str
    user: tuple[str, str] | None = field(default=None, repr=False)


def parsed(text: str) -> Url:
    """The parts of ``text``; raises ``ValueError``."""
    if any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ValueError("no URL: it holds a space or a control character")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna" if ":" not in host else "ascii")
    except ValueError:  # its message quotes the password; UnicodeError is a ValueError too
        raise ValueError("no URL") from None
    if "%" in host and ":" not in host:
        raise ValueError("no URL: its host is percent-encoded")
    user, at, place = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    return Url(
        parts.scheme,
        host,
        port,
        parts.path,
        parts._replace(netloc=place).geturl() if at else text,
        (unquote(name), unquote(password)) if at else None,
    )
