"""The kinds of traffic: one entry each, with all that differs between them.

Problem: a kind has a name in URLs and logs, a share of what is sent, ports at a far end, a client, and an answering
side; a kind that is forgotten in one of these places is sent and never answered. Promise: ``ENTRIES`` has an entry for
every name of ``model.event_fields.Kind`` (a test), and nothing else in this package asks for a kind by its name.
Clients and answering sides are imported when they are used. Next stages: ``targets``, ``traffic`` and ``farend``.
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
]


@dataclass(frozen=True, slots=True)
class UrlForm:
    """What stands in a URL beside the host."""

    port: int | Literal["needed", "none"] = "needed"
    path: bool = False

    def expected(self, scheme: str) -> str:
        """How such a URL is written."""
        return f"{scheme}://…" if self.path else f"{scheme}://HOST" + (":PORT" if self.port == "needed" else "")


@dataclass(frozen=True, slots=True)
class ProbeKind:
    """A kind.

    ``share``: its weight in the default mix; ``None``: long-lived streams, asked for by number. ``ports``: those of a
    far end that begins at a port; none: it has no ports. ``urls``: by which other targets are probed; ``ours_only``:
    these must be far ends too. ``knocks``: a lost flow is watched on. Functions, as ``module:name``, imported when they
    are used: ``client(setting)`` gives who makes its attempts (``clients``); ``answer(ground, address, port)`` answers
    (``serving``), and counts in ``served``; without it the kernel answers; ``permitted(family)`` raises
    ``MissingError`` where this process may not send it.
    """

    share: int | None
    ports: Callable[[int], tuple[int, ...]]
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
            client="hitless.probe.tcp:client",
            answer="hitless.probe.far_end_services:tcp",
            served="tcp",
            urls={"tcp": UrlForm()},
        ),
        "udp": ProbeKind(
            share=30,
            ports=lambda base: wire.ports(base).flow,
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
            permitted="hitless.probe.icmp:way",
        ),
        "http": ProbeKind(
            share=1,
            ports=lambda base: (wire.ports(base).http,),
            client="hitless.probe.http:client",
            answer="hitless.probe.far_end_services:http",
            served="http",
            urls={"http": UrlForm(80, path=True), "https": UrlForm(443, path=True)},
            knocks=False,
        ),
        "stream": ProbeKind(
            share=None,
            ports=lambda base: (wire.ports(base).echo,),
            answer="hitless.probe.far_end_services:stream",
            served="echo",
            knocks=False,
        ),
    }
)
"""All kinds. Applications mostly open TCP connections and ask resolvers; a GET costs three times as much as the
others."""

KINDS: tuple[Kind, ...] = tuple(name for name, entry in ENTRIES.items() if entry.share is not None)
"""The kinds that a mix can name; streams are asked for by number."""

DEFAULT_MIX: Mapping[str, int] = {name: entry.share for name, entry in ENTRIES.items() if entry.share is not None}

SCHEMES: Mapping[str, tuple[Kind, UrlForm]] = {
    scheme: (name, url) for name, entry in ENTRIES.items() for scheme, url in entry.urls.items()
}
"""Of URLs of other targets than far ends."""


def at_port(protocol: str, port: int, base: int) -> Kind:
    """The kind of a packet to a port of a far end; of a port that no kind has, the first of its protocol."""
    alike = [name for name in ENTRIES if TRANSPORTS[name] == protocol]
    return next((name for name in alike if port in ENTRIES[name].ports(base)), alike[0])
