"""Drives a rollout: step after step, from its record and the state of the cluster, until it ends or must stop.

Problem: a driver may die at any instruction, and somebody else may continue. Promise: before a node's pod is deleted,
its uid is recorded, and only that pod is ever deleted; whoever continues sees in the cluster whether it was. A node
is restarted once. No step begins on a DaemonSet that somebody else changed, outside of a maintenance window, or after
a loss; the reason for stopping is recorded, with what to do. Next stage: ``hitless.cli.rollout``.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import msgspec

from hitless.errors import HitlessError
from hitless.operations.rollout import daemonset, node_order, step_run
from hitless.operations.rollout.observation import foreign, see
from hitless.operations.rollout.ports import RESUME, DriverContext, now
from hitless.operations.rollout.values import Rollout

__all__ = ["drive"]


async def drive(crew: DriverContext) -> None:
    """Drive until the rollout has ended or has to stop; ``crew.state`` says which.

    Raises ``Displaced`` when another driver took over, and other errors after recording them where that is possible.
    """
    going = asyncio.create_task(_go(crew))

    def cut_off(_: HitlessError) -> None:
        going.cancel()

    async with crew.record.alive(cut_off):
        try:
            stopped = await _ended(going)
        except (HitlessError, asyncio.CancelledError) as error:
            if crew.record.lost is not None:
                raise crew.record.lost from None
            why = "interrupted" if isinstance(error, asyncio.CancelledError) else str(error)
            with suppress(HitlessError):
                await crew.record.release(why)
            raise
    if crew.state.driver:
        await crew.record.release(stopped)


async def _ended(going: asyncio.Task[str]) -> str:
    """Wait for it; when the waiting task is cancelled, cancel it, and wait for its clean-up."""
    try:
        return await going
    finally:
        if not going.done():
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)


async def _go(crew: DriverContext) -> str:
    """All steps; returns why it stopped, or empty when it has ended."""
    if crew.state.phase == "preparing" and (why := await _prepare(crew)):
        return why
    while crew.state.phase == "rolling":
        state = crew.state
        seen = await see(crew.api, state.namespace, state.name)
        if why := foreign(state, seen.daemon_set):
            return why
        told = node_order.reconciled(state, seen)
        if told != state:
            _tell_changes(crew, state, told)
            await crew.record.write(lambda one, seen=seen: node_order.reconciled(one, seen))  # type: ignore[misc]
        step = node_order.next_step(crew.state.turns, crew.state.choices.width)
        if not step:
            break
        if crew.most and crew.taken >= crew.most:
            return f"{crew.most} steps were asked for (--steps); go on with hitless rollout resume"
        if why := await step_run.against(crew, step) or await step_run.take(crew, step):
            return why
        crew.taken += 1
    return await _finish(crew)


def _tell_changes(crew: DriverContext, before: Rollout, after: Rollout) -> None:
    for one in after.turns:
        had = before.of(one.node)
        if had is None or had.course != one.course:
            crew.tell(f"{one.node}: {one.course}{f': {one.reason}' if one.reason else ''}")


async def _prepare(crew: DriverContext) -> str:
    state = crew.state
    if not state.replaces:
        await crew.record.write(partial(_changed, phase="rolling"))
        return ""
    crew.tell(f"{state.agent}: updateStrategy OnDelete, and the {_template_words(state)} template")
    generation, target, why = await daemonset.change(crew.api, state, state.choices.patience)
    if why:
        return why
    if state.direction == "forward" and target == state.before:
        left = tuple(msgspec.structs.replace(one, course="skipped", reason="nothing changes") for one in state.turns)
        await crew.record.write(partial(_changed, phase="restoring", generation=generation, turns=left))
        return ""
    await crew.record.write(partial(_changed, phase="rolling", generation=generation, target=target))
    return ""


def _template_words(state: Rollout) -> str:
    return "former" if state.direction == "undo" else "new"


def _changed(state: Rollout, **changes: object) -> Rollout:
    return msgspec.structs.replace(state, **changes)


async def _finish(crew: DriverContext) -> str:
    """After the last turn: restore the updateStrategy."""
    state = crew.state
    left = [one for one in state.turns if one.course == "skipped"]
    if state.phase == "rolling" and left:
        names = ", ".join(f"{one.node} ({one.reason})" for one in left[:5]) + (" …" if len(left) > 5 else "")
        kept = "; updateStrategy stays OnDelete, so that they are not restarted unseen" if state.replaces else ""
        return f"{len(left)} of {len(state.turns)} nodes were left out: {names}{kept}; {RESUME} when they are back"
    if state.phase == "rolling":
        await crew.record.write(partial(_changed, phase="restoring"))
    if state.replaces:
        words = (state.strategy or {}).get("type", "")
        crew.tell(f"{state.agent}: updateStrategy {words} again")
        if why := await daemonset.restore(crew.api, crew.state):
            return why
    generation = await _generation(crew)
    await crew.record.write(partial(_changed, phase="ended", ended=now(), generation=generation, driver=""))
    return ""


async def _generation(crew: DriverContext) -> int:
    seen = await see(crew.api, crew.state.namespace, crew.state.name)
    return seen.daemon_set.metadata.generation if seen.daemon_set is not None else crew.state.generation
