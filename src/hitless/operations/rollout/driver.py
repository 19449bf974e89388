"""Drives a rollout: step after step, from its record and the state of the cluster, until it ends or must stop.

Problem: a driver may die at any instruction, and another driver may continue. Promise: before a node's pod is deleted,
its uid is recorded, and only that pod is ever deleted; the next driver sees in the cluster whether it was. A node
is restarted once. No step begins on a DaemonSet that was changed meanwhile, outside of a maintenance window, or after
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


async def drive(context: DriverContext) -> None:
    """Drive until the rollout has ended or has to stop; ``context.state`` says which.

    Raises ``Displaced`` when another driver took over, and other errors after recording them where that is possible.
    """
    going = asyncio.create_task(_go(context))

    def cut_off(_: HitlessError) -> None:
        going.cancel()

    async with context.record.alive(cut_off):
        try:
            stopped = await _ended(going)
        except (HitlessError, asyncio.CancelledError) as error:
            if context.record.lost is not None:
                raise context.record.lost from None
            why = "interrupted" if isinstance(error, asyncio.CancelledError) else str(error)
            with suppress(HitlessError):
                await context.record.release(why)
            raise
    if context.state.driver:
        await context.record.release(stopped)


async def _ended(going: asyncio.Task[str]) -> str:
    """Wait for it; when the waiting task is cancelled, cancel it, and wait for its clean-up."""
    try:
        return await going
    finally:
        if not going.done():
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)


async def _go(context: DriverContext) -> str:
    """All steps; returns why it stopped, or empty when it has ended."""
    if context.state.phase == "preparing" and (why := await _prepare(context)):
        return why
    while context.state.phase == "rolling":
        state = context.state
        seen = await see(context.api, state.namespace, state.name)
        if why := foreign(state, seen.daemon_set):
            return why
        reconciled = node_order.reconciled(state, seen)
        if reconciled != state:
            _report_changes(context, state, reconciled)
            await context.record.write(lambda one, seen=seen: node_order.reconciled(one, seen))  # type: ignore[misc]
        step = node_order.next_step(context.state.turns, context.state.choices.width)
        if not step:
            break
        if context.most and context.taken >= context.most:
            return f"{context.most} steps were asked for (--steps); go on with hitless rollout resume"
        if why := await step_run.against(context, step) or await step_run.take(context, step):
            return why
        context.taken += 1
    return await _finish(context)


def _report_changes(context: DriverContext, before: Rollout, after: Rollout) -> None:
    for one in after.turns:
        had = before.of(one.node)
        if had is None or had.course != one.course:
            context.tell(f"{one.node}: {one.course}{f': {one.reason}' if one.reason else ''}")


async def _prepare(context: DriverContext) -> str:
    state = context.state
    if not state.replaces:
        await context.record.write(partial(_changed, phase="rolling"))
        return ""
    context.tell(f"{state.agent}: updateStrategy OnDelete, and the {_template_name(state)} template")
    generation, target, why = await daemonset.change(context.api, state, state.choices.patience)
    if why:
        return why
    if state.direction == "forward" and target == state.before:
        left = tuple(msgspec.structs.replace(one, course="skipped", reason="nothing changes") for one in state.turns)
        await context.record.write(partial(_changed, phase="restoring", generation=generation, turns=left))
        return ""
    await context.record.write(partial(_changed, phase="rolling", generation=generation, target=target))
    return ""


def _template_name(state: Rollout) -> str:
    return "former" if state.direction == "undo" else "new"


def _changed(state: Rollout, **changes: object) -> Rollout:
    return msgspec.structs.replace(state, **changes)


async def _finish(context: DriverContext) -> str:
    """After the last turn: restore the updateStrategy."""
    state = context.state
    left = [one for one in state.turns if one.course == "skipped"]
    if state.phase == "rolling" and left:
        names = ", ".join(f"{one.node} ({one.reason})" for one in left[:5]) + (" …" if len(left) > 5 else "")
        kept = "; updateStrategy stays OnDelete, so that they are not restarted unseen" if state.replaces else ""
        return f"{len(left)} of {len(state.turns)} nodes were left out: {names}{kept}; {RESUME} when they are back"
    if state.phase == "rolling":
        await context.record.write(partial(_changed, phase="restoring"))
    if state.replaces:
        strategy = (state.strategy or {}).get("type", "")
        context.tell(f"{state.agent}: updateStrategy {strategy} again")
        if why := await daemonset.restore(context.api, context.state):
            return why
    generation = await _generation(context)
    await context.record.write(partial(_changed, phase="ended", ended=now(), generation=generation, driver=""))
    return ""


async def _generation(context: DriverContext) -> int:
    seen = await see(context.api, context.state.namespace, context.state.name)
    return seen.daemon_set.metadata.generation if seen.daemon_set is not None else context.state.generation
