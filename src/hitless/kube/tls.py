"""TLS towards an API server: what it is recognised by, and the certificate that we show it.

Problem: OpenSSL reads certificates and keys from files; a kubeconfig or a login program gives them as text. A key in
a temporary file may outlive us, and there may be nowhere to put one. Promise: what is text is given to OpenSSL in
memory; what cannot be used is a ``ValueError`` that says why without quoting it; nobody is ever asked for a key's
password. Next stage: ``access``.
"""

from __future__ import annotations

import ssl

import httpx2

from hitless.kernel.memfiles import in_memory
from hitless.kube.contexts import Cluster

__all__ = ["Certificate", "recognising", "show"]

Certificate = tuple[bytes, bytes]
"""A chain and its key, PEM."""


def recognising(cluster: Cluster) -> ssl.SSLContext:
    """TLS that trusts what the cluster is to be recognised by: its authority, else those of this machine."""
    if not cluster.authority:
        context = httpx2.create_ssl_context(verify=not cluster.insecure)
    else:
        try:
            with in_memory(cluster.authority) as path:
                context = ssl.create_default_context(cafile=path)
        except ssl.SSLError as error:
            raise ValueError("it is no PEM") from error
    # Python 3.13 asks for RFC 5280 to the letter; clusters give less, and no other client of theirs asks for it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def show(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Show the client certificate in what connects by ``context`` from now on."""

    def locked() -> bytes:
        raise ValueError("its key is locked by a password")

    try:
        with in_memory(b"\n".join(certificate)) as path:
            context.load_cert_chain(path, password=locked)
    except ssl.SSLError as error:
        raise ValueError("its chain or key is no PEM, or they do not belong together") from error
