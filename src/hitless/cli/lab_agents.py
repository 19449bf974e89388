"""The options for which agent runs on which node of a lab, and for how its nodes are connected.

Promise: ``--agent``, ``--agent-command`` and ``--ready`` may be repeated with ``NODE=`` in front, so that a mixed
cluster is one command; what contradicts itself, and a program that can never run, is refused before anything is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

from hitless.errors import InputError
from hitless.lab import placeholders, teams
from hitless.lab.agents import AGENTS, Readiness, named, runnable
from hitless.lab.plans import LabPlan, OverlayType, Wiring
from hitless.lab.supervision import Order

__all__ = ["agent_options", "lease_source", "orders", "wiring_options"]

_F = TypeVar("_F", bound=Callable[..., object])


def wiring_options(command: _F) -> _F:
    """``--overlay`` and ``--underlay``."""
    command = click.option(
        "--underlay",
        type=click.Choice([str(each) for each in Wiring]),
        default=str(Wiring.L2),
        show_default=True,
        help="l2: all nodes on one switch; routed: each in a network of its own, a router between them.",
    )(command)
    return click.option(
        "--overlay",
        type=click.Choice([str(each) for each in OverlayType]),
        help="Pods reach pods on other nodes only by their agents.  [default: by the lab's own routes]",
    )(command)


def agent_options(command: _F) -> _F:
    """``--agent``, ``--agent-command`` and ``--ready``."""
    known = ", ".join(f"{{{name}}}" for name in placeholders.PLACEHOLDERS)
    command = click.option(
        "--ready",
        "ready",
        multiple=True,
        metavar="[NODE=]PROBE",
        help="What shows that --agent-command is ready: file:/PATH, http://HOST:PORT/PATH, exec:COMMAND, started.  "
        "[default: started]",
    )(command)
    command = click.option(
        "--agent-command",
        "agent_commands",
        multiple=True,
        metavar="[NODE=]'PROGRAM ARGS…'",
        help=f"Run any program as the agent; placeholders: {known}.",
    )(command)
    return click.option(
        "--agent",
        "agents",
        multiple=True,
        metavar="[NODE=]NAME",
        help=f"Run an agent on every node, or on the one that is named; repeat: {', '.join(AGENTS)}; all but hitless "
        "are stand-ins.",
    )(command)


def lease_source(commands: Sequence[str]) -> str:
    """Where the agents of these command lines keep their leases."""
    return placeholders.lease_source(teams.split(text)[1] for text in commands)


def orders(agents: Sequence[str], commands: Sequence[str], readies: Sequence[str], plan: LabPlan) -> tuple[Order, ...]:
    """The agents that are asked for; refuses what contradicts itself and what can never run."""
    by_name = teams.by_node((teams.split(text) for text in agents), plan, "--agent")
    by_command = teams.by_node((teams.split(text) for text in commands), plan, "--agent-command")
    probes = teams.by_node((teams.split(text) for text in readies), plan, "--ready")
    placeholders.check(by_command.values(), plan)
    for node in by_name.keys() & by_command.keys():
        where = f" for {node}" if node else ""
        raise InputError(f"--agent and --agent-command exclude each other{where}")
    if probes and not by_command:
        raise InputError("is for an agent of your own", where="--ready", expected="--agent-command")
    for node in probes.keys() - by_command.keys() - {""}:
        raise InputError(f"{node} has no agent of your own", where="--ready", expected=f"--agent-command {node}=…")
    found = [Order(named(name).name, node=node) for node, name in by_name.items()]
    for node, text in by_command.items():
        probe = probes.get(node, probes.get("", "started"))
        Readiness.parse(probe)
        found.append(Order(command=runnable(text), ready=probe, node=node))
    return tuple(found)
