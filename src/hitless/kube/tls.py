"""TLS for an API server: the authority that it is checked against, and our client certificate.

Problem: OpenSSL reads certificates and keys from files; a kubeconfig or a login program gives them as text. A key in
a temporary file may outlive us, and there may be nowhere to put one. Promise: what is text is given to OpenSSL in
memory; what cannot be used is an ``InputError`` that says why without quoting it; there is never a prompt for a key's
password. It costs 6 MB: daemons import it when they use the API. Next stages: ``access``, ``transport``.
"""

from __future__ import annotations

import ssl

from hitless.errors import InputError
from hitless.kernel.memfiles import in_memory
from hitless.kube.contexts import Certificate, Connection, KubeconfigCluster

__all__ = ["context_for"]


def context_for(connection: Connection, certificate: Certificate | None) -> ssl.SSLContext:
    """The TLS context for a connection; ``certificate``: our client certificate."""
    try:
        context = _recognising(connection.cluster)
    except ValueError as error:
        raise InputError(
            f"the certificate authority of {connection.cluster.server}: {error}", where=connection.where
        ) from error
    if certificate is not None:
        try:
            _show(context, certificate)
        except ValueError as error:
            raise InputError(
                f"the client certificate of user {connection.user}: {error}", where=connection.where
            ) from error
    return context


def _recognising(cluster: KubeconfigCluster) -> ssl.SSLContext:
    """A context that trusts the cluster's authority, else those of this machine."""
    try:
        if cluster.authority:
            with in_memory(cluster.authority) as path:
                context = ssl.create_default_context(cafile=path)
        else:
            context = ssl.create_default_context()
    except ssl.SSLError as error:
        raise ValueError("it is not PEM") from error
    if cluster.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Python 3.13 checks RFC 5280 strictly; certificates of clusters often fail that, and no other client checks it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _show(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Load the client certificate into ``context``."""

    def locked() -> bytes:
        raise ValueError("its key is locked by a password")

    try:
        with in_memory(b"\n".join(certificate)) as path:
            context.load_cert_chain(path, password=locked)
    except ssl.SSLError as error:
        raise ValueError("its chain or key is not PEM, or they do not belong together") from error
