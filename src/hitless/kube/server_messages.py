"""Sentences of API servers that must be recognised, because no status, reason or cause says the same.

Promise: they are matched here and nowhere else, and only in texts of the server itself: never in what a command in a
pod wrote. Imports nothing of an HTTP library. Next stages: ``streams``, ``pods``, ``hitless.sources``.
"""

from __future__ import annotations

from hitless.errors import ApiError

__all__ = ["kubelet_away", "no_account_yet", "version_too_large"]

_KUBELET_AWAY = (
    "dialing backend",
    "error sending request",
    "connection refused",
    "connection reset",
    "no route to host",
    "i/o timeout",
    "TLS handshake timeout",
    "unexpected EOF",
    "error reading from error stream",
    "use of closed network connection",
    "broken pipe",
    "connection timed out",
    "network is unreachable",
    "code = Unavailable",  # gRPC: the kubelet does not reach its container runtime
)


def kubelet_away(message: str) -> bool:
    """Whether a server that answers 500 to an exec could not reach the kubelet, or lost it: then the same command may
    be tried again. Any other 500 is about the command, such as a program that is not in the container."""
    return any(text in message for text in _KUBELET_AWAY)


def no_account_yet(error: ApiError) -> bool:
    """Whether a pod was refused only because its namespace is so new that it has no service account
    (plugin/pkg/admission/serviceaccount)."""
    return error.status == 403 and "service account" in str(error) and "not found" in str(error)


def version_too_large(error: ApiError) -> bool:
    """Whether a watch asked for a version that the server does not have yet: it was restored to an earlier state, and
    everything has to be listed again (apiserver/pkg/storage/errors.go)."""
    return error.status == 504 and "Too large resource version" in str(error)
