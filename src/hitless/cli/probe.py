"""``hitless probe``: open new connections all the time and record every one that fails.

Promise: names are resolved before anything is sent, and before ``--namespace`` is entered. It ends on SIGTERM, SIGINT,
``--duration``, ``--count``, or when its reader closes the pipe, after open attempts have ended. Exit codes: 0 nothing
lost, 1 something lost, 2 could not tell (starved, or nothing attempted), 3 error.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence

import click

from hitless.cli.event_output import EventWriter
from hitless.cli.exits import HELP, Exit
from hitless.cli.interrupts import on_signals
from hitless.cli.numbers import number
from hitless.cli.probe_view import probe_view
from hitless.cli.sections import Sections
from hitless.errors import InputError, MissingError
from hitless.evidence.redaction import Mask
from hitless.kernel import namespaces
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten
from hitless.model import reading
from hitless.model.families import Family, family_of
from hitless.probe import (
    DEFAULT_MIX,
    DEFAULT_RATE,
    KINDS,
    POLITE_RATE,
    ProbeEndpoint,
    ProbeOptions,
    Prober,
    parse,
    resolve,
    verdict,
)

__all__ = ["command"]

_EXITS = {"pass": Exit.PASS, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}
_HIGHEST_WEIGHT = 1000
_SHARES = ",".join(f"{kind}={share}" for kind, share in DEFAULT_MIX.items() if share)


def _mix(text: str) -> dict[str, int]:
    weights: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z]+)\s*=\s*([0-9]{1,4})\s*", part)
        if match is None or match[1] not in KINDS or int(match[2]) > _HIGHEST_WEIGHT or match[1] in weights:
            raise InputError(
                f"{part.strip()!r} is not a weight",
                where="--mix",
                expected=f"KIND=0..1000 of {', '.join(KINDS)}, as in tcp=6,udp=3",
            )
        weights[match[1]] = int(match[2])
    if not any(weights.values()):
        raise InputError(f"{text!r} asks for nothing", where="--mix", expected="a weight above 0")
    return weights


def _sources(texts: Sequence[str], families: Sequence[Family]) -> dict[Family, str]:
    sources: dict[Family, str] = {}
    for text in texts:
        address = reading.address(text, where="--source", expected="an address of this machine", zone=True)
        family = family_of(address)
        if family in sources:
            raise InputError(f"{text} is a second {family} address", where="--source", expected="one per family")
        if family not in families:
            raise InputError(f"{text} is {family}", where="--source", expected=f"an address of --family {families[0]}")
        sources[family] = str(address)
    return sources


def _check_here(sources: dict[Family, str], interface: str) -> None:
    """Raise for an interface or address that this namespace does not have, before anything is sent."""
    if interface and interface not in {name for _, name in socket.if_nameindex()}:
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise InputError(f"there is no interface {interface!r}", where="--interface", expected=f"one of {known}")
    if interface:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            except PermissionError as error:
                raise MissingError(
                    "this process may not choose an interface", remedy="give it CAP_NET_RAW, or leave out --interface"
                ) from error
    for family, source in sources.items():
        with socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((source, 0))
            except OSError as error:
                raise InputError(
                    f"cannot send from {source}: {error.strerror}",
                    where="--source",
                    expected="an address of this machine",
                ) from error


_EXAMPLES = {
    "hitless probe --to https://example.org/": "ten new connections a second, until Ctrl-C",
    "hitless probe --to farend://192.0.2.7 --rate 1000 --duration 60": "to a host that runs hitless farend",
    "hitless probe --namespace 4711 --to tcp://192.0.2.7:443": "from the network of a pod, by a process in it",
}


@click.command("probe", cls=Sections, examples=_EXAMPLES, epilog=HELP)
@click.option("--to", "targets", multiple=True, required=True, metavar="URL", help="Target; repeat.")
@number(
    "--rate",
    limits=(0.01, 100_000.0),
    metavar="N",
    unset="1000 to a far end, else 10",
    help="New flows per second.",
)
@click.option(
    "--mix",
    metavar="KIND=WEIGHT,…",
    help=f"To a far end: shares of the kinds, each 0 to 1,000.  [default: {_SHARES}]",
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6", "dual"]), default="dual", show_default=True)
@number("--timeout", limits=(0.1, 60.0), default=2.5, help="Without an answer for so long, an attempt is lost.")
@number("--duration", limits=(0.1,), unset="on a signal", help="End after so long.")
@number("--count", limits=(1,), help="End after so many attempts.")
@number("--streams", limits=(0, 1000), default=0, help="To a far end: long-lived TCP streams.")
@click.option("--control", "controls", multiple=True, metavar="URL", help="Compare losses with this target.")
@click.option("--insecure", "-k", is_flag=True, help="Do not verify https certificates.")
@click.option("--source", "sources", multiple=True, metavar="ADDRESS", help="Send from this address; one per family.")
@click.option("--interface", default="", metavar="NAME", help="Send through this interface.")
@click.option(
    "--scheduling",
    type=click.Choice(["realtime", "normal"]),
    default="realtime",
    show_default=True,
    help="Run with real-time priority, if that is allowed.",
)
@click.option("--namespace", metavar="PATH|PID", help="Probe from this network namespace.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def command(
    targets: tuple[str, ...],
    rate: float | None,
    mix: str | None,
    family: str,
    timeout: float,
    duration: float | None,
    count: int | None,
    streams: int,
    controls: tuple[str, ...],
    insecure: bool,
    sources: tuple[str, ...],
    interface: str,
    scheduling: str,
    namespace: str | None,
    as_json: bool,
) -> int:
    """Open new connections all the time and record every one that fails.

    URL is farend://HOST[:PORT] (a host that runs hitless farend: all kinds), tcp://HOST:PORT, udp://HOST:PORT (a far
    end's), icmp://HOST, http://… or https://….
    """
    families = (Family.IPV4, Family.IPV6) if family == "dual" else (Family(family),)
    weights = None if mix is None else _mix(mix)
    chosen = _sources(sources, families)
    endpoints: list[ProbeEndpoint] = []
    for text in targets:
        endpoints += resolve(parse(text), families)
    control: list[ProbeEndpoint] = []
    for text in controls:
        control += resolve(parse(text, flag="--control"), families, flag="--control")
    if namespace is not None:
        namespaces.enter(namespaces.named(namespace))
    _check_here(chosen, interface)
    ours = any(end.target.scheme == "farend" for end in endpoints)
    used = {*(kind for kind, weight in (weights or DEFAULT_MIX).items() if weight), *(["stream"] if streams else [])}
    options = ProbeOptions(
        endpoints=tuple(endpoints),
        rate=rate or DEFAULT_RATE,
        other_rate=POLITE_RATE if ours or rate is None else rate,
        mix=weights,
        timeout_ns=int(timeout * 1e9),
        duration_ns=None if duration is None else int(duration * 1e9),
        count=count,
        streams=streams,
        sources=chosen,
        interface=interface,
        control=tuple(control),
        insecure=insecure,
    )
    config = {
        "to": [Mask().text(target) for target in targets],
        "endpoints": sorted(
            {f"{end.kind} {end.address}" for end in endpoints if end.target.scheme != "farend" or end.kind in used}
        ),
        "rate": options.rate if ours else options.other_rate,
        "mix": weights,
        "timeout_ns": options.timeout_ns,
        "streams": streams,
        "scheduling": hasten() if scheduling == "realtime" else scheduling,
    }
    clock = Clock.from_environment()
    with contextlib.ExitStack() as stack:
        if as_json:
            lines = EventWriter(closed=lambda: prober.stop())
            prober = Prober(options, lines.emit, clock=clock, flush=lines.flush)
        else:
            view = probe_view()
            stack.callback(view.close)
            prober = Prober(options, view.emit, clock=clock)
        stack.enter_context(on_signals(prober.stop))
        found = _EXITS[verdict(prober.run(config))]
        return Exit.UNHEARD if as_json and lines.gone else found
