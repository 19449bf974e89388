"""Credentials for a server: an Authorization header, a client certificate, or both.

Problem: a token may lie in a file that the kubelet renews, and what a file holds may be no token at all; what HTTP
libraries say of a header that they refuse to send quotes it. Promise: ``from_way`` reads what the context names anew at
each call, and gives a header that can be sent, or ``InputError`` without the secret. Next stages: ``login``,
``transport``.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hitless.errors import InputError
from hitless.kernel import files
from hitless.kube.contexts import Certificate, Connection

__all__ = ["Credential", "bearer", "from_way"]


@dataclass(frozen=True, slots=True)
class Credential:
    """The value of the Authorization header, a client certificate, or both; empty for an anonymous client."""

    authorization: str = field(default="", repr=False)
    certificate: Certificate | None = field(default=None, repr=False)
    ends: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether its expiry time is over."""
        return self.ends is not None and datetime.now(UTC) >= self.ends


def bearer(token: str, where: str) -> str:
    """The value of the Authorization header for ``token``; empty without one."""
    if not token.isascii() or not token.isprintable():
        raise InputError("the token holds characters that no token has (is it a token?)", where=where)
    return f"Bearer {token}" if token else ""


def from_way(way: Connection) -> Credential:
    """The credential in the kubeconfig itself."""
    if way.password is not None:
        name_and_password = ":".join(way.password).encode()
        return Credential(f"Basic {base64.b64encode(name_and_password).decode()}", way.certificate)
    token = way.token
    if way.token_file is not None:
        try:
            token = files.read_text(way.token_file, most=files.MOST).strip() or token
        except (OSError, ValueError) as error:
            if not token:
                why = error.strerror if isinstance(error, OSError) else "it is not text"
                raise InputError(f"the token file {way.token_file} cannot be read: {why}", where=way.where) from error
    return Credential(bearer(token, way.where), way.certificate)
