"""``hitless node-drill``: a drill on this machine, without Kubernetes access.

Problem: K3s restarts flannel with itself, and an operator on a node may have no kubeconfig. Promise: nothing is
restarted before it was asked for (``--yes``) and the baseline is healthy; the same streams, verdict and reports as
``hitless drill``. Exit codes are the drill's.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Literal

import click

from hitless.cli import progress, window_gate
from hitless.cli.command_text import typed
from hitless.cli.drill_session import run_and_show
from hitless.cli.exits import HELP, Exit
from hitless.cli.numbers import number
from hitless.cli.output_paths import FolderParameter
from hitless.cli.sections import Sections
from hitless.drill import DrillPlan, Outside
from hitless.drill.nodes import NodeTarget, RestartMethod
from hitless.drill.origins import here
from hitless.drill.plans import LIMITS
from hitless.errors import InputError, MissingError
from hitless.kernel.namespaces import HERE, named
from hitless.kernel.privileges import net_admin
from hitless.lab.agents import called
from hitless.probe.targets import is_far_end, parse

__all__ = ["command"]


_EXAMPLES = {
    "hitless node-drill --restart-unit k3s --to https://example.org/": "restart K3s three times; it asks first",
    "hitless node-drill --restart-container kube-flannel --pod 4711 --to farend://192.0.2.7": "from a pod's network",
}


@click.command(name="node-drill", cls=Sections, examples=_EXAMPLES, epilog=HELP)
@click.option("--restart-unit", default="", metavar="UNIT", help="systemctl restart UNIT, e.g. k3s or rke2-agent.")
@click.option("--restart-container", default="", metavar="NAME", help="Stop it; the kubelet starts it again.")
@click.option("--runtime", type=click.Choice(["crictl", "ctr"]), default="crictl", show_default=True)
@click.option("--restart-command", default="", metavar="'PROGRAM ARGS…'", help="Whatever restarts the agent.")
@click.option("--ready-command", default="", metavar="'PROGRAM ARGS…'", help="It is ready when this ends with 0.")
@click.option(
    "--agent-process", default="", metavar="NAME", help="The agent's process, to see that it restarts. [default: known]"
)
@click.option("--agent-name", metavar="NAME", help="What the agent is called. [default: what is restarted]")
@number("--grace", limits=(0, 3600), metavar="SECONDS", help="For --restart-container.")
@click.option("--to", multiple=True, required=True, metavar="URL", help="Far ends, as in hitless probe; repeat.")
@click.option("--pod", "pod", metavar="PID|PATH", help="Probe from this pod's namespace. [default: the host's]")
@click.option("--network", "networks", multiple=True, metavar="CIDR", help="A pod network. [default: the rules']")
@click.option("--profile", default="canal", show_default=True, metavar="NAME|FILE", help="Whose rules the watch reads.")
@number("--rounds", limits=LIMITS["rounds"], default=3, help="Restarts.")
@click.option("--family", type=click.Choice(["ipv4", "ipv6", "dual"]), default="ipv4", show_default=True)
@number("--rate", limits=LIMITS["rate"], default=1000, help="New flows per second, to a far end of ours.")
@number("--streams", limits=LIMITS["streams"], default=4, help="Long-lived streams, to a far end of ours.")
@number("--baseline", limits=LIMITS["baseline"], default=3.0, help="Before the first restart.")
@number("--settle", limits=LIMITS["settle"], default=2.0, help="After each restart.")
@number("--recovery", limits=LIMITS["recovery"], default=5.0, help="After the last restart.")
@number("--patience", limits=LIMITS["patience"], default=120.0, help="How long the agent may take to become ready.")
@click.option("--out", type=FolderParameter(), metavar="DIR", help="Log and reports.")
@click.option("--anonymous", is_flag=True, help="No names of hosts in log and reports (addresses stay).")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the table.")
@window_gate.options
@progress.options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    restart_unit: str,
    restart_container: str,
    runtime: Literal["crictl", "ctr"],
    restart_command: str,
    ready_command: str,
    agent_process: str,
    agent_name: str | None,
    grace: int | None,
    to: tuple[str, ...],
    pod: str | None,
    networks: tuple[str, ...],
    profile: str,
    rounds: int,
    family: str,
    rate: int,
    streams: int,
    baseline: float,
    settle: float,
    recovery: float,
    patience: float,
    out: Path | None,
    anonymous: bool,
    yes: bool,
    as_object: bool,
    quiet: bool,
    progress_: str | None,
) -> int:
    """Restart this machine's network agent under load and give a verdict, without Kubernetes access."""
    shown = progress.chosen(progress_, quiet=quiet)
    _check_rate(ctx, to)
    for option, goes_with, flag in (
        ("grace", restart_container, "--restart-container"),
        ("runtime", restart_container, "--restart-container"),
        ("agent_process", not restart_container, "--restart-command or --restart-unit"),
    ):
        if ctx.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE and not goes_with:
            raise InputError(f"cannot be used without {flag}", where=f"--{option.replace('_', '-')}", expected=flag)
    name = called(agent_name) if agent_name is not None else ""
    method = RestartMethod(
        restart_unit, restart_container, restart_command, runtime, grace, ready_command, agent_process, name
    )
    plan = DrillPlan(
        rounds=rounds,
        method=Outside.COMMAND,
        baseline=baseline,
        settle=settle,
        recovery=recovery,
        patience=patience,
        rate=rate,
        streams=streams,
        families=("ipv4", "ipv6") if family == "dual" else (family,),
    )
    where = named(pod, where="--pod") if pod is not None else HERE
    target = NodeTarget(method, plan, node=socket.gethostname(), to=to, pod=where, networks=networks, profile=profile)
    method.check()
    _permitted()
    permit = window_gate.permit(ctx, (socket.gethostname(),))
    question = (
        f"Restart {method.title} on this machine ({method.description}), {rounds} times? Pods may lose connections"
    )
    if not yes:
        if not sys.stdin.isatty():
            raise InputError(
                "cannot ask for confirmation without a terminal",
                where="--yes",
                expected=f"--yes, which answers yes to: {question}",
            )
        if not click.confirm(question, err=True):
            return Exit.PASS
    origin = here(typed(ctx), anonymous=anonymous)
    return run_and_show(
        plan, target, judged=method.title, out=out, as_object=as_object, progress=shown, origin=origin, permit=permit
    )


def _permitted() -> None:
    """Name what an ordinary user lacks, before the question."""
    if not net_admin():
        raise MissingError(
            f"a node-drill reads this machine's rules and restarts its agent, and this process (user {os.geteuid()}) "
            "has no CAP_NET_ADMIN; nothing was changed",
            remedy="run it as root: sudo hitless node-drill …",
        )


def _check_rate(ctx: click.Context, to: tuple[str, ...]) -> None:
    """Refuse what is no far end, and what only a far end of ours bears."""
    for url in to:
        parse(url)
    for name in ("rate", "streams"):
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and not any(is_far_end(url) for url in to):
            raise InputError(
                "targets other than our far end get ten new connections a second, and no streams",
                where=f"--{name}",
                expected="a --to farend://…",
            )
