"""``hitless farend``: answer probes with the source address that was seen.

Promise: it listens only at ``--bind`` (default: this machine's loopback), ends on SIGTERM, SIGINT or when its reader
closes the pipe, and writes a Header first and a Summary last. Exit codes: 0 ended as requested, 3 could not listen.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import click

from hitless.cli.event_output import EventWriter
from hitless.cli.exits import HELP, Exit
from hitless.cli.interrupts import on_signals
from hitless.cli.numbers import number
from hitless.cli.probe_view import FarEndView
from hitless.cli.sections import Sections
from hitless.kernel import namespaces
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten
from hitless.model import reading
from hitless.model.families import Address
from hitless.probe import BASE_PORT, FarEnd, FarEndOptions
from hitless.probe.kinds import far_end_ports

__all__ = ["command"]


def _loopback() -> tuple[Address, ...]:
    """The loopback addresses of this namespace: IPv6 may be disabled."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return (IPv4Address("127.0.0.1"),)
    return (IPv4Address("127.0.0.1"), IPv6Address("::1"))


_EXAMPLES = {
    "hitless farend --bind 192.0.2.7": "answer probes at this address",
    "hitless farend --bind 192.0.2.7 --leaks 10.42.0.0/16 --json": "and record what arrives with a pod's address",
}


@click.command("farend", cls=Sections, examples=_EXAMPLES, epilog=HELP)
@click.option(
    "--bind", "addresses", multiple=True, metavar="ADDRESS", help="Listen here; repeat. [default: 127.0.0.1 ::1]"
)
@number("--port", "base", limits=(1024, 65455), default=BASE_PORT, metavar="PORT", help="Its ports begin here.")
@click.option("--leaks", multiple=True, metavar="CIDR", help="Record packets from this (pod) network; repeat.")
@number("--leak-limit", limits=(0,), default=10_000, help="So many leaks are written one by one, the rest is counted.")
@click.option(
    "--scheduling",
    type=click.Choice(["realtime", "normal"]),
    default="realtime",
    show_default=True,
    help="Run with real-time priority, if that is allowed.",
)
@click.option("--namespace", metavar="PATH|PID", help="Listen in this network namespace.")
@click.option("--json", "as_json", is_flag=True, help="Events as JSON lines on standard output.")
def command(
    addresses: tuple[str, ...],
    base: int,
    leaks: tuple[str, ...],
    leak_limit: int,
    scheduling: str,
    namespace: str | None,
    as_json: bool,
) -> int:
    """Answer probes with the source address seen.

    TCP ports PORT+1 to PORT+4 say "ADDRESS PORT" and close, the same UDP ports answer "hitless NAME 1 .....",
    PORT+10 echoes, PORT+80 speaks HTTP; the kernel answers pings. Try it: nc HOST 7801, or curl http://HOST:7880.
    """
    given = tuple(reading.address(text, where="--bind", zone=True) for text in addresses)
    networks = tuple(reading.network(text, where="--leaks") for text in leaks)
    if namespace is not None:
        namespaces.enter(namespaces.named(namespace, where="--namespace"))
    bound = given or _loopback()
    options = FarEndOptions(addresses=bound, base=base, leaks=networks, leak_limit=leak_limit)
    config = {
        "addresses": [str(address) for address in options.addresses],
        "ports": far_end_ports(base),
        "scheduling": hasten() if scheduling == "realtime" else scheduling,
        "leaks": [str(network) for network in options.leaks],
    }
    if as_json:
        lines = EventWriter(closed=lambda: far_end.stop())
        far_end = FarEnd(options, lines.emit, clock=Clock.from_environment(), flush=lines.flush)
    else:
        view = FarEndView()
        far_end = FarEnd(options, view.emit, clock=Clock.from_environment())
    with on_signals(far_end.stop):
        far_end.run(config)
    return Exit.PASS
