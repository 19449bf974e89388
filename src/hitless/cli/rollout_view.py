"""The output of ``hitless rollout``: its plan, its progress, its result.

Promise: the plan is one YAML stream that kubectl can read, of every object and right, with the steps and calls as its
comments (or one JSON object); the result is a table of nodes, why it stopped and what to type next; foreign
text is cleaned. Nothing is read from the cluster here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hitless.cleaning import clean
from hitless.cli import window_gate
from hitless.cli.exits import Exit

if TYPE_CHECKING:
    from hitless.cli.rollout_findings import RolloutFindings
    from hitless.operations.rollout.record import StoredRollout
    from hitless.operations.rollout.rights import Rehearsal
    from hitless.operations.rollout.values import NodeTurn, Rollout

__all__ = ["WHERE", "described", "plan", "question", "show", "teller", "under_way", "warn"]

WHERE = "ConfigMap kube-system/hitless-rollout"
_LONGEST = 300


def warn(text: str) -> None:
    """One line on standard error."""
    click.echo(f"hitless: {clean(text)}", err=True)


def teller(progress: str | None) -> Callable[[str], None]:
    """What prints the steps; nothing with ``--progress none``."""
    return (lambda _: None) if progress == "none" else warn


def under_way(found: StoredRollout) -> str:
    """The message that a rollout exists already."""
    state = found.state
    who = (
        f"driven by {found.driver}" if state.driver else f"stopped ({clean(state.stopped, 160) or 'its driver ended'})"
    )
    return (
        f"a rollout of {state.agent} ({state.change.description}) is under way, {who} ({WHERE}); go on with it: "
        "hitless rollout resume, or give it up: hitless rollout end"
    )


def question(findings: RolloutFindings, place: str) -> str:
    """The question before it begins."""
    from hitless.operations.rollout.node_order import steps

    state = findings.state
    nodes = [one.node for step in steps(state.turns, state.choices.width) for one in step]
    verb = "Put the former revision of" if state.direction == "undo" else "Roll out"
    what = f"{state.agent} back" if state.direction == "undo" else f"{state.change.description} of {state.agent}"
    guard = "no guard is installed" if findings.guarded is None else f"a guard is ready on {_guarded(findings, nodes)}"
    return (
        f"{verb} {what} on {len(nodes)} node{'' if len(nodes) == 1 else 's'} ({_some(nodes)}) of {place}? {guard}; "
        "it stops at the first loss"
    )


def _guarded(findings: RolloutFindings, nodes: Sequence[str]) -> str:
    ready = [node for node in nodes if findings.guarded and node in findings.guarded]
    return "all of them" if len(ready) == len(nodes) else f"{len(ready)} of them"


def _some(nodes: Sequence[str]) -> str:
    return clean(", ".join(nodes[:5]) + (", …" if len(nodes) > 5 else ""))


def plan(findings: RolloutFindings, *, as_object: bool) -> str:
    """The whole of it: steps, calls, objects, rights."""
    from hitless.operations.rollout import probe_plan, rights
    from hitless.operations.rollout.node_order import steps

    state = findings.state
    nodes = [findings.seen.nodes[one.node] for one in state.turns if one.node in findings.seen.nodes]
    rehearsal = rights.rehearse(
        state,
        probe_plan.pods(state.choices, findings.survey, state.identity),
        findings.survey,
        nodes,
        own_far_end=probe_plan.own_far_end(state.choices),
        makes_namespace=findings.missing,
        guards=findings.guards,
        windows=window_gate.configmap(),
    )
    order = steps(state.turns, state.choices.width)
    if as_object:
        return json.dumps(
            {
                "schema": 1,
                "agent": state.agent,
                "change": state.change.description,
                "direction": state.direction,
                "patch": state.change.patch,
                "steps": [[_planned(findings, one) for one in step] for step in order],
                "left_out": [_described(one) for one in state.turns if one.course == "skipped"],
                "against": findings.against,
                "calls": list(rehearsal.calls),
                "objects": list(rehearsal.objects),
                "rights": list(rehearsal.rights),
            },
            indent=2,
        )
    return _stream(findings, order, rehearsal)


def _stream(findings: RolloutFindings, order: Sequence[Sequence[NodeTurn]], rehearsal: Rehearsal) -> str:
    import yaml

    state, choices = findings.state, findings.state.choices
    count = sum(map(len, order))
    back = "back to the former revision, " if state.direction == "undo" else ""
    change = state.change.description
    lines = [f"{state.agent}: {back}{change}, {count} nodes in {len(order)} steps, width {choices.width}"]
    lines += [f"not now: {one}" for one in findings.against]
    prepares = state.replaces and state.phase == "preparing"
    if prepares and state.direction == "forward":
        lines.append("First: updateStrategy OnDelete and this change of the pod template, in one write:")
        lines += [f"  {line}" for line in yaml.safe_dump(state.change.patch, sort_keys=False).splitlines()]
    elif prepares:
        lines.append(f"First: updateStrategy OnDelete and the template of revision {state.before}, in one write")
    for number, step in enumerate(order, 1):
        lines.append(f"step {number}: {', '.join(_described_node(findings, one) for one in step)}")
    lines.append(
        f"Each step: probe {choices.probe:g} s, write the pods' uids down, delete these pods, wait until others are "
        f"ready (up to {choices.patience:g} s), probe {choices.bake:g} s more; stop at the first loss"
    )
    lines += [f"left out: {one.node}: {one.reason}" for one in state.turns if one.course == "skipped"]
    if state.replaces:
        lines.append(f"Last: updateStrategy {(state.strategy or {}).get('type', '')} as it was")
    lines += ["Calls:", *(f"  {call}" for call in rehearsal.calls)]
    text = [f"# {clean(line)}" for line in lines]
    rights = "The rights that it needs"
    if findings.missing:
        rights += f"; where {choices.namespace} is not there yet: make it first, the account and a Role live in it"
    for title, documents in (("Objects that are made", rehearsal.objects), (rights, rehearsal.rights)):
        text.append(f"# {title}:")
        text.append(yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True).rstrip())
    return "\n".join(text)


def _planned(findings: RolloutFindings, turn: NodeTurn) -> dict[str, Any]:
    node = findings.seen.nodes.get(turn.node)
    return {
        "node": turn.node,
        "zone": turn.zone,
        "guard": None if findings.guarded is None else turn.node in findings.guarded,
        "cordoned": bool(node is not None and node.spec.unschedulable),
    }


def _described_node(findings: RolloutFindings, turn: NodeTurn) -> str:
    planned = _planned(findings, turn)
    notes = [f"zone {turn.zone}"] if turn.zone else []
    notes += ["guard ready"] if planned["guard"] else ["no guard"]
    notes += ["cordoned"] if planned["cordoned"] else []
    return f"{turn.node} ({', '.join(notes)})"


def _described(turn: NodeTurn) -> dict[str, Any]:
    return {
        "node": turn.node,
        "zone": turn.zone,
        "state": turn.course,
        "verdict": turn.verdict or None,
        "attempted": turn.attempted,
        "lost": turn.lost,
        "unseen": turn.unseen,
        "reason": turn.reason,
    }


def described(state: Rollout, folder: Path | None) -> dict[str, Any]:
    """The result as one object."""
    from hitless.operations.rollout.values import UNTOUCHED, verdict

    touched = any(one.course not in UNTOUCHED for one in state.turns)
    return {
        "schema": 1,
        "rollout": state.identity,
        "agent": state.agent,
        "change": state.change.description,
        "direction": state.direction,
        "state": "ended" if state.phase == "ended" else "driven" if state.driver else "stopped",
        "verdict": verdict(state.turns) if touched else None,
        "stopped": state.stopped or None,
        "driver": state.driver or None,
        "begun": state.begun,
        "ended": state.ended or None,
        "windows": state.windows or None,
        "forced": list(state.forced),
        "nodes": [_described(one) for one in state.turns],
        "log": list(state.log),
        "folder": str(folder) if folder is not None else None,
    }


def show(state: Rollout, folder: Path | None, *, as_object: bool, driver: str = "") -> int:
    """Print the result; returns the exit code."""
    from hitless.operations.rollout.values import UNTOUCHED, verdict

    result = verdict(state.turns)
    ended = state.phase == "ended"
    touched = [one for one in state.turns if one.course not in UNTOUCHED]
    code = Exit.FAIL if result == "fail" else Exit.INCONCLUSIVE
    if ended and (result == "pass" or not touched):
        code = Exit.PASS
    if as_object:
        click.echo(json.dumps(described(state, folder), indent=2))
        return code
    _table(state)
    done = sum(one.course == "done" for one in state.turns)
    back = "undo of " if state.direction == "undo" else ""
    head = f"{result.upper()}: " if touched and (ended or result == "fail") else ""
    course = "ended" if ended else f"driven by {clean(driver or state.driver)}" if state.driver else "stopped"
    change = clean(state.change.description)
    click.echo(f"\n{head}{back}{change} of {state.agent}: {done} of {len(state.turns)} nodes, {course}")
    for text in state.forced:
        click.echo(f"outside of the maintenance windows: {clean(text, _LONGEST)}")
    if state.stopped:
        click.echo(f"why: {clean(state.stopped)}")
    if not ended and not state.driver and state.replaces:
        click.echo(f"{state.agent} has updateStrategy OnDelete until then: hitless rollout resume, undo or end")
    if folder is not None:
        click.echo(f"Logs and reports: {folder}")
    return code


def _table(state: Rollout) -> None:
    width = max((len(one.node) for one in state.turns), default=4)
    zone = max((len(one.zone) for one in state.turns), default=0)
    for one in state.turns:
        outcome = one.verdict or one.course
        figures = f"{one.lost:,} of {one.attempted:,} lost" if one.attempted else ""
        details = "; ".join(filter(None, [figures, clean(one.reason, _LONGEST)]))
        place = f"  {clean(one.zone):{zone}}" if zone else ""
        click.echo(f"{clean(one.node):{width}}{place}  {outcome:12}  {details}".rstrip())
