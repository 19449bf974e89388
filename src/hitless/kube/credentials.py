"""Credentials for a server: an Authorization header, a client certificate, or both.

Problem: a token may lie in a file that the kubelet renews, and a file may hold no valid token; an HTTP library
that refuses to send a header quotes it in its error. Promise: ``from_connection`` reads what the context names again at
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

__all__ = ["Credential", "bearer", "from_connection"]


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


def from_connection(connection: Connection) -> Credential:
    """The credential in the kubeconfig itself."""
    if connection.password is not None:
        name_and_password = ":".join(connection.password).encode()
        return Credential(f"Basic {base64.b64encode(name_and_password).decode()}", connection.certificate)
    token = connection.token
    if connection.token_file is not None:
        try:
            token = files.read_text(connection.token_file, most=files.MOST).strip() or token
        except (OSError, ValueError) as error:
            if not token:
                why = error.strerror if isinstance(error, OSError) else "it is not text"
                raise InputError(
                    f"the token file {connection.token_file} cannot be read: {why}", where=connection.where
                ) from error
    return Credential(bearer(token, connection.where), connection.certificate)
