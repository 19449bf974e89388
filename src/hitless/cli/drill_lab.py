"""The options of a drill in the lab: agents, nodes, the lab's plan, and the restart method.

Problem: an agent is named, or given as a command line, for all nodes or for one; and some options apply only to some
labs. Promise: contradictions are refused before anything is built, with their flag. Next stage: ``hitless.drill.labs``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from hitless import lab
from hitless.drill import Method
from hitless.drill.labs import LabVariation
from hitless.drill.plans import ApiMethod
from hitless.errors import InputError
from hitless.lab import agents as known
from hitless.lab import placeholders, teams
from hitless.lab.agents import Agent, Readiness
from hitless.lab.plans import Wiring

__all__ = ["DEFAULT_AGENTS", "Rows", "agents", "place", "replace_option", "variation"]

DEFAULT_AGENTS = "flannel-0.26,flannel-0.28,hitless"
_BY = "hitless"
_F = TypeVar("_F", bound=Callable[..., object])


def replace_option(command: _F) -> _F:
    """``--replace-by``."""
    return click.option(
        "--replace-by",
        metavar="NAME",
        help="With --restart replace: what takes the agent's place on each node, and gives it back in the next round.  "
        f"[default: {_BY}]",
    )(command)


@dataclass(frozen=True, slots=True)
class Rows:
    """The table's ``rows``; ``others``: agents of single nodes; ``commands``: the user's command lines; ``own_agent``:
    the name of the user's own agent."""

    rows: Sequence[Agent]
    others: Mapping[str, Agent]
    commands: Sequence[str]
    own_agent: str


def agents(
    names: str | None,
    commands: Sequence[str],
    name: str | None,
    ready_command: str | None,
    ready_http: str | None,
    within: float,
    grace: float | None,
) -> Rows:
    """The agents of the options."""
    readiness = _readiness(ready_command, ready_http)
    given: dict[str, str] = {}
    for node, text in map(teams.split, commands):
        if node in given:
            raise InputError(
                f"is given twice for {node or 'all nodes'}", where="--agent-command", expected="once, or NODE=…"
            )
        given[node] = known.runnable(text)
    own = known.called(name) if name is not None else ""
    if not given and (readiness is not None or own):
        flag = "--agent-name" if own else "--ready-command, --ready-http"
        raise InputError("is for an agent of your own", where=flag, expected="--agent-command")
    if own and "" not in given:
        raise InputError("names the agent of all nodes", where="--agent-name", expected="--agent-command without NODE=")
    listed = names if names is not None else ("" if "" in given else DEFAULT_AGENTS)
    rows = [known.named(one.strip(), "--agents") for one in listed.split(",") if one.strip()]
    own_agent = ""
    if "" in given:
        rows.append(known.of_command(given[""], readiness, name=own))
        own_agent = rows[-1].name
    others = {node: known.of_command(text, readiness) for node, text in given.items() if node}
    return Rows(
        [_patient(agent, within, grace) for agent in rows],
        {node: _patient(agent, within, grace) for node, agent in others.items()},
        tuple(given.values()),
        own_agent,
    )


def _patient(agent: Agent, within: float, grace: float | None) -> Agent:
    patient = replace(agent, readiness=replace(agent.readiness, patience=within))
    return replace(patient, grace=grace) if grace is not None else patient


def _readiness(command: str | None, http: str | None) -> Readiness | None:
    if command is not None and http is not None:
        raise InputError("were both given", where="--ready-command and --ready-http", expected="one of them")
    if command is not None:
        known.split_command(command, "--ready-command")
        return Readiness.parse(f"exec:{command}")
    if http is None:
        return None
    if not http.startswith("http://"):
        raise InputError(
            f"{http!r} is not such a URL", where="--ready-http", expected="http://ADDRESS:PORT/PATH, asked in the node"
        )
    return Readiness.parse(http, "--ready-http")


def place(nodes: int | None, overlay: str | None, underlay: str, commands: Sequence[str], **more: Any) -> lab.LabPlan:
    """The lab's plan; an overlay needs two nodes, which are then the default."""
    count = nodes if nodes is not None else 2 if overlay else 1
    for flag, given in (("--overlay", bool(overlay)), ("--underlay", underlay != Wiring.L2)):
        if given and count == 1:
            raise InputError("cannot be used with one node", where=flag, expected="--nodes 2 or more")
    plan = lab.LabPlan(
        nodes=count, overlay=overlay or "", wiring=underlay, leases=placeholders.lease_source(commands), **more
    )
    placeholders.check(commands, plan)
    if plan.forward_policy == "drop" and plan.backend.native:
        raise InputError(
            "no agent can become ready: an accept in a native table does not overrule iptables' DROP",
            where="--forward-policy",
            expected="accept, or --backend nft or legacy",
        )
    return plan


def variation(
    asked: Rows,
    plan: lab.LabPlan,
    method: Method | ApiMethod,
    by: str | None,
    at_once: int,
    within: float,
    grace: float | None,
) -> LabVariation:
    """The variations of the restarts."""
    others = teams.by_node(asked.others.items(), plan, "--agent-command")
    successor = None
    if method is Method.REPLACE:
        successor = _patient(known.named(by or _BY, "--replace-by"), within, grace)
        if [agent.name for agent in asked.rows] == [successor.name]:
            raise InputError(f"{successor.name} would replace itself", where="--replace-by", expected="another agent")
    return LabVariation(others, at_once, successor)
