"""The kinds of traffic: one entry each, with everything that differs between them.

Problem: a kind has a name in URLs and logs, a share of the traffic, ports at a far end, a client, and a service that
answers; a kind that is forgotten in one of these places is sent and never answered. Promise: ``ENTRIES`` has an entry
for every name of ``model.event_fields.Kind`` (a test checks it), and nothing else in this package compares kinds by
name. Clients and services are imported when they are used. Next stages: ``targets``, ``traffic`` and ``farend``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from hitless.model.event_fields import TRANSPORTS, Kind
from hitless.probe import wire

__all__ = [
    "DEFAULT_MIX",
    "ENTRIES",
    "KINDS",
    "SCHEMES",
    "ProbeKind",
    "UrlForm",
    "at_port",
    "far_end_ports",
    "ports_text",
]


@dataclass(frozen=True, slots=True)
class UrlForm:
    """The parts of a URL besides the host."""

    port: int | Literal["needed", "none"] = "needed"
    path: bool = False

    def expected(self, scheme: str) -> str:
        """The form of such a URL, for messages."""
        return f"{scheme}://…" if self.path else f"{scheme}://HOST" + (":PORT" if self.port == "needed" else "")


@dataclass(frozen=True, slots=True)
class ProbeKind:
    """A kind of traffic.

    ``share``: its weight in the default mix; ``None``: long-lived streams, whose number is an option. ``ports``: its
    ports at a far end with this base port; ``port_key``: their key in a far end's header; ``label``: its name beside
    them. ``urls``: the URLs of other targets; ``ours_only``: these must be far ends too. ``knocks``: lost flows are
    watched. Functions, as ``module:name``, are imported when they are used: ``client(context)`` makes its client
    (``clients``); ``answer(server, address, port)`` starts its service (``far_end_services``), which counts in
    ``served``; without one, the kernel answers; ``permitted(family)`` raises ``MissingError`` if this process may not
    send it.
    """

    share: int | None
    ports: Callable[[int], tuple[int, ...]]
    port_key: str = ""
    label: str = ""
    client: str = ""
    answer: str = ""
    served: str = ""
    urls: Mapping[str, UrlForm] = field(default_factory=dict)
    ours_only: bool = False
    knocks: bool = True
    permitted: str = ""


ENTRIES: Mapping[Kind, ProbeKind] = MappingProxyType(
    {
        "tcp": ProbeKind(
            share=60,
            ports=lambda base: wire.ports(base).flow,
            port_key="flow",
            label="TCP",
            client="hitless.probe.tcp:client",
            answer="hitless.probe.far_end_services:tcp",
            served="tcp",
            urls={"tcp": UrlForm()},
        ),
        "udp": ProbeKind(
            share=30,
            ports=lambda base: wire.ports(base).flow,
            port_key="flow",
            label="UDP",
            client="hitless.probe.datagrams:client",
            answer="hitless.probe.far_end_services:udp",
            served="udp",
            urls={"udp": UrlForm()},
            ours_only=True,
        ),
        "icmp": ProbeKind(
            share=9,
            ports=lambda base: (),
            client="hitless.probe.icmp:client",
            urls={"icmp": UrlForm(port="none")},
            permitted="hitless.probe.icmp:socket_type",
        ),
        "http": ProbeKind(
            share=1,
            ports=lambda base: (wire.ports(base).http,),
            port_key="http",
            label="HTTP",
            client="hitless.probe.http:client",
            answer="hitless.probe.far_end_services:http",
            served="http",
            urls={"http": UrlForm(80, path=True), "https": UrlForm(443, path=True)},
            knocks=False,
        ),
        "stream": ProbeKind(
            share=None,
            ports=lambda base: (wire.ports(base).echo,),
            port_key="echo",
            label="echo",
            answer="hitless.probe.far_end_services:stream",
            served="echo",
            knocks=False,
        ),
    }
)
"""All kinds. The shares are those of applications: mostly TCP connections and DNS requests; a GET costs three times as
much as the others."""

KINDS: tuple[Kind, ...] = tuple(name for name, entry in ENTRIES.items() if entry.share is not None)
"""The kinds that a mix can name; for streams there is an option with their number."""

DEFAULT_MIX: Mapping[str, int] = {name: entry.share for name, entry in ENTRIES.items() if entry.share is not None}

SCHEMES: Mapping[str, tuple[Kind, UrlForm]] = {
    scheme: (name, url) for name, entry in ENTRIES.items() for scheme, url in entry.urls.items()
}
"""The URL schemes of targets that are not far ends."""


def far_end_ports(base: int) -> dict[str, int | list[int]]:
    """All ports of a far end by their keys, for its header: a number, or a list where there are several."""
    found = {entry.port_key: entry.ports(base) for entry in ENTRIES.values() if entry.port_key}
    return {key: list(ports) if len(ports) > 1 else ports[0] for key, ports in found.items()}


def ports_text(ports: Mapping[str, int | list[int]]) -> str:
    """The ports of a far end's header for users: ``TCP and UDP 7801 to 7804, echo 7810, HTTP 7880``."""
    labels = {key: [entry.label for entry in ENTRIES.values() if entry.port_key == key] for key in ports}
    ranges = {key: (value, value) if isinstance(value, int) else (value[0], value[-1]) for key, value in ports.items()}
    return ", ".join(
        f"{' and '.join(labels[key]) or key} {first}" + (f" to {last}" if last > first else "")
        for key, (first, last) in sorted(ranges.items(), key=lambda each: each[1])
    )


def at_port(protocol: str, port: int, base: int) -> Kind:
    """The kind of a packet to a far end's port; for other ports, the first kind of the protocol."""
    alike = [name for name in ENTRIES if TRANSPORTS[name] == protocol]
    return next((name for name in alike if port in ENTRIES[name].ports(base)), alike[0])
