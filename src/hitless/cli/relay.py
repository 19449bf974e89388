"""``hitless relay``: the pod's side of a drill in a cluster. Users do not call it.

``run`` keeps what the tools write, ``read`` writes it out from any byte on, ``stop`` ends the tools, ``clock`` tells
the node's time, ``signal`` ends a container's process. Exit codes: 0 done, 3 error; ``run``: 1 when a tool failed;
``signal``: 2 when no process of the container is seen; ``read``: 4 when a second reader took over.
"""

from __future__ import annotations

import signal as signals
from pathlib import Path

import click
import msgspec

from hitless.cli.exits import Exit
from hitless.cli.groups import Group
from hitless.errors import InputError, NotFound

__all__ = ["command"]

_SPOOL = click.option(
    "--spool", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True, help="The spool's folder."
)


@click.group(
    cls=Group, name="relay", help="The pod's side of `hitless drill --cluster`: keep and hand out what the tools write."
)
def command() -> None:
    pass


@command.command(name="run", help="Run tools, and keep every line that they write.")
@_SPOOL
@click.option("--tool", "tools", multiple=True, required=True, metavar="NAME=JSON", help="A tool and its arguments.")
@click.option("--for", "seconds", type=click.FloatRange(1), default=3600.0, show_default=True, help="End after that.")
@click.option("--limit", type=click.IntRange(1 << 10), default=1 << 30, show_default=True, help="Bytes to keep.")
def run(spool: Path, tools: tuple[str, ...], seconds: float, limit: int) -> int:
    from hitless.cluster.relay import OWN, Relay

    named: dict[str, list[str]] = {}
    for text in tools:
        name, _, rest = text.partition("=")
        try:
            arguments = msgspec.json.decode(rest, type=list[str])
        except msgspec.DecodeError as error:
            raise InputError(str(error), where=f"--tool {name}", expected='NAME=["watch","--json"]') from error
        if not name.isidentifier() or name in named or name == OWN:
            raise InputError(f"{name!r} cannot name a tool", where="--tool", expected="a new name of letters")
        named[name] = arguments
    return Exit.FAIL if Relay(spool, named, seconds, limit).run() else Exit.PASS


@command.command(name="read", help="Write what was kept, from a byte on, and follow it to its end.")
@_SPOOL
@click.option("--from", "offset", type=click.IntRange(0), default=0, help="The first byte.")
def read(spool: Path, offset: int) -> int:
    from hitless.cluster import relay
    from hitless.kube.relay_exits import TAKEN_OVER

    try:
        return relay.read(spool, offset)
    except relay.TakenOver as error:
        click.echo(f"hitless: {error}", err=True)
        return TAKEN_OVER


@command.command(name="stop", help="Ask the tools to end.")
@_SPOOL
def stop(spool: Path) -> None:
    from hitless.cluster import relay

    relay.stop(spool)


@command.command(name="clock", help="Answer every line with this machine's clock, in nanoseconds.")
def clock() -> None:
    from hitless.cluster import relay

    relay.answer_clock()


@command.command(name="signal", help="Send a signal to a container's first process (needs the host's process ids).")
@click.option("--container", required=True, help="Its id, as in the pod's status.")
@click.option("--signal", "name", type=click.Choice(["KILL", "TERM"]), default="KILL", show_default=True)
def signal(container: str, name: str) -> int:
    from hitless.cluster.relay import signal_container
    from hitless.kube.relay_exits import NO_PROCESS

    try:
        click.echo(str(signal_container(container, signals.Signals[f"SIG{name}"])))
    except NotFound as error:
        click.echo(f"hitless: {error}", err=True)
        return NO_PROCESS
    return Exit.PASS
