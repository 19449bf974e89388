"""``hitless rollout end``: a stopped rollout is given up, and the DaemonSet's updateStrategy comes back."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from hitless.cli import rollout_view
from hitless.cli.rollout_choices import ClusterAccess
from hitless.errors import InputError, MissingError

if TYPE_CHECKING:
    from hitless.operations.rollout.record import StoredRollout
    from hitless.operations.rollout.values import Rollout

__all__ = ["give_up"]


def give_up(access: ClusterAccess, *, take_over: bool, yes: bool) -> Rollout | None:
    """The state after it; None when the answer was no."""
    found, life, why = asyncio.run(_find(access, take_over=take_over))
    if found.state.phase == "ended":
        raise InputError("the rollout has ended already", where="rollout end", expected="one that stopped")
    if life != "dead":
        raise MissingError(
            f"not now: {found.driver} drives it ({why})", remedy="end it there, or take it over with --take-over"
        )
    if not _agreed(found.state, yes=yes):
        return None
    return asyncio.run(_end(access, found))


async def _find(access: ClusterAccess, *, take_over: bool) -> tuple[StoredRollout, str, str]:
    from hitless.kube.api import Patience, connect
    from hitless.operations.rollout import record

    async with connect(access.kubeconfig, access.context, patience=Patience(total=20.0)) as api:
        found = record.found_or_missing(await record.read_record(api))
        life, why = ("dead", "") if take_over else await record.life(api, found, tell=rollout_view.warn)
        return found, life, why


def _agreed(state: Rollout, *, yes: bool) -> bool:
    left = [one.node for one in state.turns if one.course in ("pending", "restarting", "skipped")]
    rest = ""
    if state.replaces:
        strategy = (state.strategy or {}).get("type", "")
        rest = f"; {state.agent} gets updateStrategy {strategy} back"
        if strategy == "RollingUpdate" and left:
            rest += f", and its controller then restarts the pods of {len(left)} nodes by itself, unmeasured"
    question = f"Give up the rollout of {state.agent} ({state.change.description}){rest}?"
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(
            "cannot ask for confirmation without a terminal",
            where="--yes",
            expected=f"--yes, which answers yes to: {question}",
        )
    agreed = click.confirm(question, err=True)
    if not agreed:
        click.echo("nothing was changed", err=True)
    return agreed


async def _end(access: ClusterAccess, found: StoredRollout) -> Rollout:
    import msgspec

    from hitless.cluster.pods import sweep
    from hitless.kube.api import connect
    from hitless.operations.rollout import daemonset, record
    from hitless.operations.rollout.ports import now

    async with connect(access.kubeconfig, access.context, answered=True) as api:
        mine = record.RolloutRecord(api)
        await mine.claim(found)
        state = found.state
        if state.replaces and (why := await daemonset.restore(api, state)):
            rollout_view.warn(f"updateStrategy was left as it is: {why}")
        ended = partial(
            msgspec.structs.replace, phase="ended", ended=now(), driver="", stopped=f"given up: {state.stopped}"
        )
        await mine.write(ended)
        places = (state.choices.namespace, state.choices.probe_namespace or state.choices.namespace)
        for drill in state.drills:
            await sweep(api, dict.fromkeys(places), drill)
        return mine.state
