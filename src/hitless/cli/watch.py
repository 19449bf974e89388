"""``hitless watch``: show every change to the rules that carry egress, gaps, and who made them.

Promise: JSON lines (``--json``) or text, made from the same events. It ends on SIGTERM, SIGINT, ``--duration``, or when
its reader closes the pipe; gaps that are open then are written as open. Nothing is changed in the kernel. Exit codes:
0; 2 if the state was never known; with ``--once`` also 1 (not carried); 3 error.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import click

from hitless.cleaning import cleaned
from hitless.cli.event_output import EventWriter
from hitless.cli.exits import Exit
from hitless.cli.numbers import number
from hitless.cli.sections import Sections
from hitless.cli.watch_view import WatchView
from hitless.errors import InputError
from hitless.kernel import namespaces
from hitless.model import reading
from hitless.model.events import Note, RuleState, State
from hitless.model.families import Backend, Family, Network
from hitless.observe import checked_interface
from hitless.watch import DEFAULT, Watch, WatchOptions, load, shipped

__all__ = ["command"]

_SWITCH_S = 0.0002
"""Python's thread switch interval: the receiving thread must not wait, because it timestamps commits."""


def _networks(texts: Sequence[str]) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(reading.network(text, where="--network") for text in texts))


def _namespace(text: str | None) -> namespaces.Namespace:
    if text is None:
        return namespaces.HERE
    named = namespaces.named(text)
    # the process also identifies the mount namespace, where iptables-legacy has its lock
    return replace(named, pid=reading.whole_of(text))


_EXAMPLES = {
    "hitless watch": "on a node, as root: gaps and who made them, until Ctrl-C",
    "hitless watch --once; echo $?": "is egress carried now? 0 yes, 1 no, 2 cannot tell",
    "hitless watch --profile canal --network 10.42.0.0/16 --json": "JSON lines, for a pod network that you name",
}


@click.command(name="watch", cls=Sections, examples=_EXAMPLES)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line (docs/events.md).")
@click.option(
    "--profile",
    default=DEFAULT,
    show_default=True,
    metavar="NAME|FILE",
    help=f"What to watch: {', '.join(shipped())}, or a file of yours (docs/watch.md).",
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="CIDR",
    help="A pod network; repeat.  [default: those that the rules name]",
)
@click.option(
    "--uplink", metavar="INTERFACE", help="The interface to the outside.  [default: the profile's, else by the routes]"
)
@click.option(
    "--backend", type=click.Choice(["auto", *(each.value for each in Backend)]), default="auto", show_default=True
)
@click.option("--family", type=click.Choice(["ipv4", "ipv6", "dual"]), help="[default: the profile's]")
@number("--duration", limits=(0.01,), unset="until stopped", help="End after so long.")
@click.option("--namespace", metavar="PID|PATH", help="A process in, or a path to, the network namespace to watch.")
@click.option("--once", is_flag=True, help="Print the state now. Exit code 0 carried, 1 not carried, 2 cannot tell.")
@click.option("--all", "all_changes", is_flag=True, help="Also report changes that affect no pod's packet.")
@number("--heartbeat", limits=(0.0, 3600.0), default=1.0, help="How often to say how late the watch was (0: never).")
def command(
    as_json: bool,
    profile: str,
    networks: tuple[str, ...],
    uplink: str | None,
    backend: str,
    family: str | None,
    duration: float | None,
    namespace: str | None,
    once: bool,
    all_changes: bool,
    heartbeat: float,
) -> int:
    """Show changes to the rules that carry egress as they are made: gaps, and who made them.

    nf_tables reports every change. iptables-legacy reports none and is polled: gaps of less than 3 ms may be missed
    there, and not every writer has a name.
    """
    for flag, given in (("--duration", duration is not None), ("--all", all_changes)):
        if once and given:
            raise InputError("is only for a watch that keeps running", where=flag, expected="it without --once")
    families = {"dual": (Family.IPV4, Family.IPV6), "ipv4": (Family.IPV4,), "ipv6": (Family.IPV6,)}
    options = WatchOptions(
        profile=load(profile),
        namespace=_namespace(namespace),
        networks=_networks(networks),
        uplink=checked_interface(uplink, "--uplink") if uplink is not None else "",
        backends=frozenset() if backend == "auto" else frozenset({Backend(backend)}),
        families=families[family] if family is not None else (),
        heartbeat_s=heartbeat,
        duration_s=duration,
        all_changes=all_changes,
    )
    sys.setswitchinterval(_SWITCH_S)
    with Watch(options) as watch:
        # objects loaded so far stay: collecting them again and again would make the watch late
        gc.collect()
        gc.freeze()
        lines = EventWriter(closed=watch.stop)
        if once:
            return _once(watch, lines if as_json else None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watch.stop())
        judged = False
        with contextlib.ExitStack() as stack:
            view = None if as_json else stack.enter_context(WatchView())
            for event in watch.events():
                judged = judged or (isinstance(event, RuleState) and event.state != "cannot_tell")
                if view is not None:
                    view.emit(event)
                else:
                    lines.emit(event)
                    lines.flush()
    return Exit.PASS if judged else Exit.INCONCLUSIVE


def _once(watch: Watch, lines: EventWriter | None) -> int:
    """Print the state of each pod network; the exit code is the worst one."""
    found: set[State] = set()
    for event in watch.once():
        if isinstance(event, RuleState):
            found.add(event.state)
        if lines is not None:
            lines.emit(event)
            continue
        event = cleaned(event)
        if isinstance(event, RuleState):
            click.echo(f"{event.network}: {event.state.replace('_', ' ')}: {event.reason}")
            if event.partly:
                click.echo(f"{event.network}: partly: {event.partly}")
        elif isinstance(event, Note) and event.level != "info":
            click.echo(event.text, err=True)
    if lines is not None:
        lines.flush()
    if "not_carried" in found:
        return Exit.FAIL
    return Exit.PASS if found == {"carried"} else Exit.INCONCLUSIVE
