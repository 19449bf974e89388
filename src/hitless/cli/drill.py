"""``hitless drill``: restart agents under load and give a verdict.

Problem: "does a restart cost the pods anything?" must be one command with one answer. Promise: without options, three
agents in a lab on this machine, side by side. The exit code is the judged agents' verdict; standard output has the
result and nothing else; the event log stays, and ``hitless report`` renders all reports from it again; Ctrl-C leaves no
processes behind. Nothing outside the lab is changed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hitless.cli import drill_choices, drill_cluster, drill_lab, progress, window_gate
from hitless.cli.command_text import typed
from hitless.cli.drill_cleanup import cleanup
from hitless.cli.drill_session import carry_out, run_and_show
from hitless.cli.exits import HELP, Exit
from hitless.cli.lab_agents import wiring_options
from hitless.cli.numbers import number
from hitless.cli.output_paths import FolderParameter
from hitless.cli.sections import Sections
from hitless.cluster.choices import DEFAULT_NAMESPACE, Choices
from hitless.drill import ApiMethod, DrillPlan, Method, run
from hitless.drill.labs import LabTarget
from hitless.drill.origins import Origin, here
from hitless.drill.permits import Permit
from hitless.drill.plans import LIMITS
from hitless.drill.with_guard import SUFFIX
from hitless.errors import InputError
from hitless.evidence import RecordedDrill, Verdict
from hitless.kernel import privileges
from hitless.lab import agents as known
from hitless.lab.plans import LIMITS as LAB_LIMITS
from hitless.model.events import Event
from hitless.model.families import Backend
from hitless.restarts.methods import entry_of

__all__ = ["carry_out", "command", "judged_agents"]

METHODS = [str(one) for one in Method]
BACKENDS = [str(one) for one in Backend]
_ONLY_WITH: tuple[tuple[str, str, tuple[Method | ApiMethod, ...]], ...] = (
    ("--stop-for", "stop_for", (Method.STOP,)),
    ("--replace-by", "replace_by", (Method.REPLACE,)),
    (
        "--grace",
        "grace",
        (Method.SIGTERM, Method.STOP, Method.REPLACE, *(one for one in ApiMethod if entry_of(one).grace)),
    ),
)
"""Options that are valid only with some restart methods."""
_SECTIONS = {
    "In the lab: the agents": (
        "agents", "agent_commands", "agent_name", "ready_command", "ready_http", "ready_within", "guard", "judge",
    ),
    "In the lab and in a cluster: what is done": (
        "count", "at_once", "rounds", "restart", "replace_by", "stop_for", "grace", "rate", "streams", "family",
        "baseline", "settle", "recovery",
    ),
    "When (in the lab and in a cluster)": (
        "window", "configmap", "window_cluster", "needs", "skip_outside", "force_window",
    ),
    "In the lab: what is built": ("overlay", "underlay", "backend", "services", "forward_policy"),
    "The result": ("out", "anonymous", "as_object", "progress_", "quiet", "--help"),
    "In a cluster (--cluster)": (),
}  # fmt: skip


_EXAMPLES = {
    "hitless drill": "three agents in a lab on this machine; needs root or user namespaces",
    "hitless drill --agents flannel-0.28 --guard --rounds 20": "what a guard is worth, in twenty restarts",
    "hitless drill --nodes 2 --overlay vxlan --agents hitless": "what a restart costs from pod to pod on another node",
    "hitless drill --agent-command '/usr/local/bin/my-agent --flag' --ready-http http://127.0.0.1:8080/healthz "
    "--json": "an agent of yours, judged by the exit code",
    "hitless drill --cluster --dry-run": "every object, call and right that a drill would use; nothing is changed",
    "hitless drill --cluster --node worker-1 --to https://example.org/": "one node of your cluster; it asks first",
    "hitless drill --cleanup": "list what a drill that was killed left in the cluster, ask, remove it",
}


@click.command(name="drill", epilog=HELP, cls=Sections, sections=_SECTIONS, examples=_EXAMPLES)
@click.option(
    "--agents",
    metavar="A,B,C",
    help=f"Agents by name: {', '.join(known.AGENTS)}; all but hitless are stand-ins, which replay the commands of that "
    f"release. For the real program: --agent-command.  [default: {drill_lab.DEFAULT_AGENTS}]",
)
@click.option(
    "--agent-command",
    "agent_commands",
    multiple=True,
    metavar="[NODE=]'PROGRAM ARGS…'",
    help="An agent of your own, run in the node; last in line. With NODE=: runs there instead of every other. Words "
    "that are filled in: hitless lab up --help.",
)
@click.option("--agent-name", metavar="NAME", help="What it is called.  [default: its program's name]")
@click.option("--ready-command", metavar="'PROGRAM ARGS…'", help="It is ready when this, run in the node, ends with 0.")
@click.option("--ready-http", metavar="URL", help="It is ready when this answers, asked from the node.")
@number("--ready-within", limits=(0.1, 3600.0), default=30.0, help="How long any agent may take to become ready.")
@click.option("--guard", is_flag=True, help="Drill each agent a second time with hitless guard on its node.")
@click.option(
    "--judge",
    metavar="A,B",
    help="Whose verdict is the exit code; of several the worst.  [default: --agent-command's, else hitless, else the "
    "last; with --guard the guarded rows]",
)
@number("--rounds", limits=LIMITS["rounds"], default=5, help="Restarts of each agent.")
@click.option(
    "--restart",
    type=click.Choice([*METHODS, *map(str, ApiMethod)]),
    help="How.  [default: sigterm; with --cluster: delete-pod]",
)
@drill_lab.replace_option
@number("--stop-for", limits=LIMITS["stop_for"], default=5.0, help="With --restart stop: away for so long.")
@number("--grace", limits=(0.0, 3600.0), unset="30", help="SIGTERM to SIGKILL.")
@wiring_options
@click.option(
    "--backend",
    type=click.Choice([str(one) for one in Backend]),
    default=str(Backend.NFT),
    show_default=True,
    help="iptables-nft, iptables-legacy, or native nftables.",
)
@number("--services", limits=LAB_LIMITS["services"], default=0, help="Services in kube-proxy's rules.")
@click.option(
    "--forward-policy",
    type=click.Choice(["accept", "drop"]),
    default="accept",
    show_default=True,
    help="drop: only the agent's own rules let pods' packets pass.",
)
@click.option(
    "--family", type=click.Choice(["ipv4", "ipv6", "dual"]), default="ipv4", show_default=True, help="Of the probes."
)
@number("--rate", limits=LIMITS["rate"], default=1000, help="New flows per second.")
@number("--streams", limits=LIMITS["streams"], default=4, help="Long-lived TCP streams.")
@number("--baseline", limits=LIMITS["baseline"], default=1.5, help="Before the first restart.")
@number("--settle", limits=LIMITS["settle"], default=0.5, help="After each restart.")
@number("--recovery", limits=LIMITS["recovery"], default=3.0, help="After the last restart.")
@click.option("--out", type=FolderParameter(), metavar="DIR", help="Log and reports go here.")
@click.option("--anonymous", is_flag=True, help="No names of hosts and nodes in log and reports (addresses stay).")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the table.")
@progress.options
@window_gate.options
@drill_choices.options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    agents: str | None,
    agent_commands: tuple[str, ...],
    agent_name: str | None,
    ready_command: str | None,
    ready_http: str | None,
    ready_within: float,
    guard: bool,
    judge: str | None,
    rounds: int,
    restart: str | None,
    replace_by: str | None,
    stop_for: float,
    grace: float | None,
    overlay: str | None,
    underlay: str,
    backend: str,
    services: int,
    forward_policy: str,
    family: str,
    rate: int,
    streams: int,
    baseline: float,
    settle: float,
    recovery: float,
    out: Path | None,
    anonymous: bool,
    as_object: bool,
    quiet: bool,
    progress_: str | None,
    **cluster: Any,
) -> int:
    """Restart agents under load, watch the rules and every new connection of a probe, and give a verdict.

    Without options: a small cluster in network namespaces on this machine, and three agents in it one after another.
    """
    in_cluster = drill_choices.asked(ctx, cluster)
    shown = progress.chosen(progress_, quiet=quiet)
    method = _method(restart, cluster=cluster["cluster"])
    for flag, name, methods in _ONLY_WITH:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE and method not in methods:
            fit = " or ".join(one for one in methods if isinstance(one, type(method)))
            raise InputError(f"cannot be used with --restart {method}", where=flag, expected=f"--restart {fit}")
    plan = DrillPlan(
        rounds=rounds,
        method=method,
        stop_for=stop_for,
        baseline=baseline,
        settle=settle,
        recovery=recovery,
        rate=rate,
        streams=streams,
        families=("ipv4", "ipv6") if family == "dual" else (family,),
    )
    if in_cluster:
        if guard:
            raise InputError("is for the lab", where="--guard", expected="a guard that runs in the cluster: the chart")
        choices = drill_choices.choices(ctx, cluster)
        origin = here(typed(ctx), anonymous=anonymous)
        return _in_cluster(ctx, plan, choices, grace, out=out, as_object=as_object, shown=shown, origin=origin)
    if restart is not None and restart not in METHODS:
        raise InputError(f"{restart} is for clusters", where="--restart", expected=", ".join(METHODS))
    team = drill_lab.agents(agents, agent_commands, agent_name, ready_command, ready_http, ready_within, grace)
    where = drill_lab.place(
        cluster["count"], overlay, underlay, team.commands, family=family, backend=Backend(backend), services=services,
        forward_policy=forward_policy,
    )  # fmt: skip
    variation = drill_lab.variation(team, where, method, replace_by, cluster["at_once"], ready_within, grace)
    target = LabTarget(team.rows, plan, where, guard=guard, ways=variation)
    names = [name.agent for name in target.subjects()]
    chosen_rows = judged_agents(judge, names, own_agent=team.own_agent)
    permit = window_gate.permit(ctx, (socket.gethostname(),))
    # an ordinary user's readiness probes must enter the node too, so this whole process goes where the lab will be
    privileges.ensure()
    origin = here(typed(ctx), anonymous=anonymous)
    return run_and_show(
        plan, target, judged=chosen_rows, out=out, as_object=as_object, progress=shown, origin=origin, permit=permit
    )


def judged_agents(asked: str | None, names: Sequence[str], *, own_agent: str) -> tuple[str, ...]:
    """The agents whose verdict is the exit code: those of --judge; else the user's own agent (``own_agent``), else
    hitless, else the last one. With --guard: that agent's guarded row; with neither of the two, all guarded rows."""
    if asked is not None:
        chosen = tuple(dict.fromkeys(filter(None, (one.strip() for one in asked.split(",")))))
        for name in chosen or (asked,):
            if name not in names:
                raise InputError(f"{name!r} is not drilled", where="--judge", expected=f"of {', '.join(names)}")
        return chosen
    guarded = tuple(name for name in names if name.endswith(SUFFIX))
    if own_agent:
        return (f"{own_agent}{SUFFIX}",) if f"{own_agent}{SUFFIX}" in names else (own_agent,)
    if "hitless" in names:
        return tuple(dict.fromkeys(("hitless", *guarded)))
    return guarded or (names[-1],)


def _method(restart: str | None, *, cluster: bool) -> Method | ApiMethod:
    if restart is None:
        return ApiMethod.DELETE_POD if cluster else Method.SIGTERM
    return Method(restart) if restart in METHODS else ApiMethod(restart)


def _in_cluster(
    ctx: click.Context,
    plan: DrillPlan,
    choices: Choices,
    grace: float | None,
    *,
    out: Path | None,
    as_object: bool,
    shown: str | None,
    origin: Origin,
) -> int:
    if choices.cleanup:
        given = choices.namespaces or (DEFAULT_NAMESPACE,)
        cleanup(choices, [*given, *filter(None, [choices.probe_namespace])], as_object=as_object)
        return Exit.PASS

    def allow(labels: window_gate.Labels, cluster: Choices) -> Permit:
        return window_gate.permit(ctx, list(labels), cluster=cluster, labels=labels)

    ready = drill_cluster.prepare(choices, plan, grace, allow)
    if ready is None:
        return Exit.PASS

    async def work(log: Path, observer: Callable[[Event], None]) -> tuple[RecordedDrill, Verdict]:
        async with ready.target() as target:
            recorded, verdict = await run(
                ready.plan, target, log, judged=ready.agent, observer=observer, origin=origin, permit=ready.permit
            )
        await ready.after(recorded, verdict)
        return recorded, verdict

    return carry_out(work, [ready.agent], plan.rounds, out=out, as_object=as_object, progress=shown)
