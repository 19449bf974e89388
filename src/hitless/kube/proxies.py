"""Chooses the proxy for an API server, as kubectl does.

Problem: where the variables are read as curl reads them, kubectl reaches a cluster behind a proxy and we do not; and a
cluster on this machine (kind, a port-forward) must be reached without a proxy. Promise: HTTPS_PROXY, HTTP_PROXY and
NO_PROXY mean what they mean to kubectl, that is to Go's golang.org/x/net/http/httpproxy: no ALL_PROXY, upper case
first, this machine never by proxy, names with and without their subdomains, addresses, networks, ports. Passwords are
in no message. Next stage: ``contexts``, ``access``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.errors import InputError
from hitless.kube import urls
from hitless.model import reading
from hitless.model.families import Address

__all__ = ["chosen", "proxy", "shown"]

_PORTS = {"http": 80, "https": 443}


def chosen(server: str, environment: Mapping[str, str]) -> str:
    """The proxy that the environment names for this server; empty for none."""
    url = urls.parsed(server)
    names = (f"{url.scheme}_proxy".upper(), f"{url.scheme}_proxy")
    name = next((one for one in names if environment.get(one)), "")
    if not name or _direct(url.host, url.port or _PORTS[url.scheme], _first(environment, "NO_PROXY")):
        return ""
    text = environment[name]
    return proxy(text if "://" in text else f"http://{text}", name, ("http", "https", "socks5", "socks5h"))


def proxy(text: str, where: str, schemes: tuple[str, ...] = ("http", "https", "socks5")) -> str:
    """``text`` when it is a proxy's URL; ``InputError``, without it as it may hold a password, when it is not."""
    expected = f"{', '.join(f'{one}://' for one in schemes)} HOST:PORT"
    try:
        url = urls.parsed(text)
    except ValueError:
        raise InputError("the proxy is not a URL", where=where, expected=expected) from None
    if url.scheme not in schemes or not url.host:
        raise InputError(f"a proxy by {url.scheme or 'no scheme'} is not known", where=where, expected=expected)
    return text


def shown(text: str) -> str:
    """A proxy's or a server's URL without its password."""
    return urls.parsed(text).shown


def _first(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _direct(host: str, port: int, exceptions: str) -> bool:
    """Whether the host is reached without a proxy."""
    if host == "localhost":
        return True
    address = reading.address_of(host)
    if address is not None and address.is_loopback:
        return True
    parts = [part.strip().lower() for part in exceptions.split(",")]
    return any(part == "*" or _excepts(part, host.lower(), address, port) for part in parts if part)


def _excepts(part: str, host: str, address: Address | None, port: int) -> bool:
    """Whether one entry of NO_PROXY names the host."""
    if "/" in part:
        network = reading.network_of(part, host_bits=True)
        return address is not None and network is not None and address in network
    name, only = _split(part)
    if only not in ("", str(port)) or not name:
        return False
    named = reading.address_of(name)
    if address is not None or named is not None:
        return address == named
    if name.startswith("*."):
        name = name[1:]
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _split(part: str) -> tuple[str, str]:
    """Host and port of ``host:port`` or ``[v6]:port``, or a host alone (in brackets it is none, as Go has it)."""
    if part.startswith("[") and "]:" in part:
        name, _, only = part[1:].partition("]:")
        return name, only
    if part.count(":") == 1:
        name, _, only = part.partition(":")
        return name, only
    return part, ""
