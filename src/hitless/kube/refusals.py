"""Errors of connections to an API server: which are permanent, why they happen, and what to do.

Problem: a drill retries while the server is unreachable, because it may have caused that itself; but a certificate that
is not trusted, or a proxy that wants a password, will be the same in 20 s, and kubectl ends at once. Promise: a wrong
configuration on this side ends the command at once, with the field to check; refused and reset connections, time-outs,
5xx and 429 never count as that. This holds until the server has answered for the first time. After that the
configuration is known to be right, and the same errors may come from a load balancer, an ingress or a proxy that is
half up (its default certificate, rules that are not loaded yet), which the drill may have caused: then all of them are
retried. Responses to calls are judged by their status alone. No message contains a password. Next stages: ``access``,
``api``.
"""

from __future__ import annotations

import re
import ssl

import httpx2

from hitless.errors import ApiError
from hitless.kube import answers, proxies
from hitless.kube.contexts import Connection
from hitless.model.reading import whole_of

__all__ = ["budget_says_no", "lasting", "refusal", "retry_after", "server_message"]

# X509_V_ERR_*, openssl-verification-options(1)
_NO_AUTHORITY = frozenset({2, 18, 19, 20, 21, 24})
_NO_TIME = frozenset({9, 10})
_NO_NAME = frozenset({62, 64})

_OUR_CERTIFICATE = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")
"""Parts of the alerts (RFC 8446, 6.2) by which a server refuses our client certificate, or the lack of one."""

_PASSING_BY_PROXY = frozenset({408, 425, 429})
_SOCKS_SAYS_NO = ("Invalid username/password", "Requested ", "not allowed by ruleset")


def lasting(error: BaseException, connection: Connection, proxy: str) -> str:
    """What is wrong, where, why, and what to do; empty where it may be temporary. ``proxy`` is the one in use."""
    if isinstance(error, httpx2.ProxyError):
        return _by_proxy(str(error), connection, proxy)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__  # httpcore2's pool leaves the first out
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _by_us(cause, connection, proxy)
    reason = (cause.reason or "") if cause is not None else ""
    if "_ALERT_" in reason and any(part in reason for part in _OUR_CERTIFICATE):
        alert = reason.partition("_ALERT_")[2].replace("_", " ").lower()
        user = f"user {connection.user} in {connection.where}" if connection.user else connection.where
        return (
            f"{connection.cluster.server} does not let us in by the client certificate: {alert}; look at "
            f"client-certificate and client-key of {user}, or log in again"
        )
    if reason == "WRONG_VERSION_NUMBER":
        return (
            f"{connection.cluster.server} does not speak TLS; look at the server of the cluster in {connection.where}"
        )
    return ""


def _by_us(error: ssl.SSLCertVerificationError, connection: Connection, proxy: str) -> str:
    """The message for a server's certificate that is not accepted."""
    cluster, pod = connection.cluster, connection.context is None
    whose = cluster.server
    if proxy.startswith("https:"):  # recognised by the same authority; OpenSSL does not say whose it was
        whose += f", or of the proxy {proxies.shown(proxy)},"
    place = f"the cluster in {connection.where}"
    if error.verify_code in _NO_AUTHORITY:
        remedy = (
            f"see ca.crt of {connection.where}" if pod else f"give what signed it as certificate-authority of {place}"
        )
    elif error.verify_code in _NO_NAME:
        remedy = "is another server there?" if pod else f"give one of its names as server or tls-server-name of {place}"
    elif error.verify_code in _NO_TIME:
        remedy = "renew it, or set this machine's clock"
    else:
        remedy = f"look at certificate-authority and tls-server-name of {place}"
    return f"the certificate of {whose} is not accepted: {error.verify_message.rstrip('.')}; {remedy}"


def _by_proxy(message: str, connection: Connection, proxy: str) -> str:
    """The message for a proxy that refuses the connection."""
    status = int(message[:3]) if re.match(r"\d{3}\b", message) else 0
    refuses = 400 <= status < 500 and status not in _PASSING_BY_PROXY
    if not refuses and not any(one in message for one in _SOCKS_SAYS_NO):
        return ""
    named = f"proxy-url of the cluster in {connection.where}" if connection.cluster.proxy else "HTTPS_PROXY"
    remedy = f"allow it there, or name another proxy in {named}"
    if status == 407 or (not status and "allowed" not in message):
        remedy = f"{named} must hold the user and the password that it wants (http://USER:PASSWORD@HOST:PORT)"
    if not connection.cluster.proxy:
        remedy += ", or NO_PROXY the server"
    return (
        f"the proxy {proxies.shown(proxy)} does not let us through to {connection.cluster.server}: {message}; {remedy}"
    )


def server_message(response: httpx2.Response) -> str:
    """The server's message in a refusal."""
    return answers.message(response.content) or response.reason_phrase


def refusal(method: str, path: str, response: httpx2.Response) -> ApiError:
    """The error for a refused call."""
    rights = "; hitless drill --cluster --dry-run (for a rollout: its --plan) prints the rights that it needs"
    hint = rights if response.status_code == 403 else ""
    return ApiError(
        f"{method} {path}: {response.status_code} {server_message(response)}{hint}", status=response.status_code
    )


def retry_after(response: httpx2.Response) -> float:
    """Seconds to wait by the server's Retry-After, 30 at most."""
    return min(float(whole_of(response.headers.get("Retry-After", "")) or 0), 30.0)


def budget_says_no(response: httpx2.Response) -> bool:
    """Whether a PodDisruptionBudget forbids an eviction; a 429 of a busy server is plain text, and not about the
    pod."""
    if response.status_code == 500:  # several budgets cover the pod, which the API does not support
        return True
    try:
        details = answers.read(response.content, answers.Status).details
    except ValueError:
        return False
    causes = details.causes if details is not None else None
    return response.status_code == 429 and any(cause.reason == "DisruptionBudget" for cause in causes or [])
