"""Which errors are a network gap's, and whether anything had been sent.

Problem: "connection failed" is many things: a certificate that does not fit and a wrong name stay wrong, a refused
connection is an answer, and only what was lost in the network is worth another try. Promise: ``classify`` reads the
whole chain of an error (causes, groups, what HTTP libraries wrap) and names the gap, or ``None`` for everything
else. The libraries' errors are known by their names, so that none of them has to be installed or imported.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from enum import StrEnum

__all__ = ["Gap", "GapKind", "classify", "while_connecting"]


class GapKind(StrEnum):
    """What was lost."""

    CONNECT = "connect"
    """The connection was never established: nothing was sent, every request may be sent again."""
    DNS = "dns"
    """The name server did not answer: nothing was sent."""
    BROKEN = "broken"
    """An established connection broke: the server may have processed the request."""


_CONNECT_NUMBERS = frozenset(
    {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.ENONET}
)
_BROKEN_NUMBERS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})
_CONNECT_NAMES = frozenset({"ConnectTimeout", "ConnectTimeoutError", "ConnectionTimeoutError"})
_BROKEN_NAMES = frozenset(
    {
        "ReadError",  # httpx
        "WriteError",
        "RemoteProtocolError",
        "ProtocolError",  # urllib3
        "ServerDisconnectedError",  # aiohttp
        "ClientOSError",
    }
)
_LIBRARIES = frozenset({"httpx", "httpcore", "httpx2", "httpcore2", "requests", "urllib3", "aiohttp"})
_PERMANENT_NAMES = frozenset(
    {"LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "ProxyError", "TooManyRedirects"}
)
_DEPTH = 16  # of a chain; a cycle ends here too


Gap = GapKind
"""The former name."""


def classify(error: BaseException) -> GapKind | None:
    """The gap behind an error, ``None`` where it is none. Of a group (happy eyeballs) all members must be gaps'."""
    return _classify(error, _DEPTH)


def while_connecting(error: BaseException) -> GapKind | None:
    """The same for an error of which the caller knows that the connection was just being made.

    Then a time-out without a number is the connection's, and so is a reset, or an end in the middle of a TLS handshake.
    """
    found = classify(error)
    if found is GapKind.BROKEN or isinstance(error, TimeoutError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return GapKind.CONNECT
    return found


def _classify(error: BaseException, depth: int) -> GapKind | None:
    if depth == 0 or not isinstance(error, Exception):
        return None
    if isinstance(error, BaseExceptionGroup):
        found = [_classify(one, depth - 1) for one in error.exceptions]
        return None if None in found else GapKind.BROKEN if GapKind.BROKEN in found else found[0]
    known, gap = _own(error)
    if known:
        return gap
    inner = [_classify(one, depth - 1) for one in _inside(error)]
    return next((one for one in inner if one is not None), gap)


def _own(error: Exception) -> tuple[bool, GapKind | None]:
    """Whether this error alone decides, and what it says."""
    if isinstance(error, ssl.SSLError):
        return True, GapKind.BROKEN if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) else None
    if isinstance(error, socket.gaierror):
        return True, GapKind.DNS if error.errno == socket.EAI_AGAIN else None
    if isinstance(error, OSError) and error.errno is not None and not _names(error):
        if error.errno in _CONNECT_NUMBERS:
            return True, GapKind.CONNECT
        return True, GapKind.BROKEN if error.errno in _BROKEN_NUMBERS else None
    names = _names(error)
    if names & _PERMANENT_NAMES:
        return True, None
    if names & _CONNECT_NAMES and "NewConnectionError" not in names:  # urllib3 derives one from the other
        return True, GapKind.CONNECT
    return False, GapKind.BROKEN if names & _BROKEN_NAMES and not names & {"ClientConnectorError"} else None


def _names(error: Exception) -> frozenset[str]:
    """The names of an error's classes that belong to a library which is known here."""
    return frozenset(one.__name__ for one in type(error).__mro__ if one.__module__.partition(".")[0] in _LIBRARIES)


def _inside(error: Exception) -> Iterator[BaseException]:
    """What an error carries: the cause, urllib3's reason, requests' argument, aiohttp's error of the system."""
    for one in (error.__cause__, getattr(error, "reason", None), getattr(error, "os_error", None), *error.args):
        if isinstance(one, BaseException) and one is not error:
            yield one
    if error.__cause__ is None and error.__context__ is not None and not error.__suppress_context__:
        yield error.__context__
