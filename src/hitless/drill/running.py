"""A drill: baseline, rounds and recovery of each subject, then the verdict from the log.

Problem: a restart proves nothing by itself; what matters is what pods notice before, during and after it. Promise:
subjects are drilled one after another, because on the same cores they would disturb each other's measurement. A subject
whose tools are killed or whose agent cannot be started ends early, is in the log with the reason, and never passes. The
set-up of the next subject overlaps with the last answers of the one before, never with its rounds. The verdict is read
from the log file, as ``hitless report`` does; nothing else is used for it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from hitless.drill.drill_log import DrillLog, SubjectRecorder
from hitless.drill.origins import Origin
from hitless.drill.permits import Permit
from hitless.drill.plans import DrillPlan
from hitless.drill.targets import DrillTarget, Subject, SubjectName
from hitless.errors import HitlessError
from hitless.evidence import LogWriter, RecordedDrill, Verdict, grouped, judge, read
from hitless.kernel.clock import Clock
from hitless.model.events import Event

__all__ = ["run"]

_PERIOD = 0.02
"""Seconds between checks of a condition."""

_FIRST_EVENTS = 15.0
"""Minimum seconds for the first attempts to end and the rules to be read: a busy node with 5,000 Services takes a few,
a node with two cores that starts eight tools at once takes more."""


async def run(
    plan: DrillPlan,
    target: DrillTarget,
    log: Path,
    *,
    judged: str | Sequence[str],
    observer: Callable[[Event], None] = lambda _: None,
    clock: Clock | None = None,
    origin: Origin | None = None,
    permit: Permit | None = None,
) -> tuple[RecordedDrill, Verdict]:
    """Drill all subjects of the target into a new log, and judge it; begin nothing that the ``permit`` refuses.

    Raises ``HitlessError`` if the first subject could not be set up: nothing was measured then.
    """
    permit = permit or Permit()
    names = target.subjects()
    chosen = [judged] if isinstance(judged, str) else list(judged)
    config = {
        **target.config,
        **permit.config,
        "agents": list(dict.fromkeys(name.agent for name in names)),
        "judge": ", ".join(chosen),
        "judged": chosen,
        "rounds": plan.rounds,
        "restart": str(plan.method),
        "restart_evidence": True,
        "families": list(plan.families),
        "rate": plan.rate,
        "streams": plan.streams,
        "baseline_s": plan.baseline,
        "recovery_s": plan.recovery,
    }
    with LogWriter(log) as writer:
        origin = origin or Origin()
        record = DrillLog(writer, clock or Clock(), observer, origin.mask(config, [name.node for name in names]))
        identity = str(config.get("drill", "")) or secrets.token_hex(4)
        record.begin("drill", config, drill=identity, origin=origin)
        if permit.warning:
            record.note("warning", permit.warning)
        try:
            await _all_subjects(plan, target, names, record, permit)
        except asyncio.CancelledError:  # no summary: the log counts as cut off
            record.note(
                "warning", "interrupted: the drill was ended before its time, and this is what was known by then"
            )
            raise
        record.end("drill")
    recorded = read(log)
    drill = grouped(recorded.events, sha256=recorded.sha256)
    return drill, judge(drill, path=log.name if origin.anonymous else str(log))


async def _all_subjects(
    plan: DrillPlan, target: DrillTarget, names: Sequence[SubjectName], record: DrillLog, permit: Permit
) -> None:
    failures: list[HitlessError] = []
    try:
        async with asyncio.TaskGroup() as group:
            for name in names:
                measured = asyncio.Event()
                recorder = record.recorder(name.agent, name.node)
                if against := permit.refusal():
                    recorder.note("error", f"not begun: {against}")
                    continue
                group.create_task(_one_subject(plan, target, name, recorder, measured, failures, permit))
                # the last answers of this subject overlap with the set-up of the next one
                await measured.wait()
                if failures and name == names[0]:
                    break
    except* HitlessError as group_error:  # e.g. the log cannot be written any more
        failures[:0] = _leaves(group_error)
    if failures:
        raise failures[0]


def _leaves(error: BaseException) -> list[HitlessError]:
    """The errors in a group, in their order."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error] if isinstance(error, HitlessError) else []


async def _one_subject(
    plan: DrillPlan,
    target: DrillTarget,
    name: SubjectName,
    recorder: SubjectRecorder,
    measured: asyncio.Event,
    failures: list[HitlessError],
    permit: Permit,
) -> None:
    """One subject: set-up, rounds, removal; ``measured`` is set after its rounds."""
    opened = False
    try:
        async with target.open(name, recorder) as subject:
            opened = True
            await _unless_trouble(_rounds(plan, subject, recorder, permit), recorder)
            recorder.phase("end")
            measured.set()
            await subject.quiet()
    except HitlessError as error:
        recorder.note("error", str(error))
        if not opened and name == target.subjects()[0]:
            failures.append(error)
    finally:
        measured.set()


async def _unless_trouble(work: Coroutine[Any, Any, None], recorder: SubjectRecorder) -> None:
    """Do the work, until something fails that the measurement needs."""
    doing = asyncio.create_task(work)
    trouble = asyncio.create_task(recorder.trouble.wait())
    try:
        await asyncio.wait((doing, trouble), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (doing, trouble):
            task.cancel()
        outcome, _ = await asyncio.gather(doing, trouble, return_exceptions=True)
    if isinstance(outcome, HitlessError):
        recorder.fail(str(outcome))
    elif isinstance(outcome, Exception):
        raise outcome


async def _rounds(plan: DrillPlan, subject: Subject, recorder: SubjectRecorder, permit: Permit) -> None:
    within = max(_FIRST_EVENTS, plan.patience)
    if not await _until(lambda: recorder.attempted > 0 and (bool(recorder.states) or not recorder.watched), within):
        missing = "attempt" if not recorder.attempted else "report about the rules"
        recorder.fail(f"no {missing} within {within:g} s of the start")
        return
    recorder.phase("baseline")
    await asyncio.sleep(plan.baseline)
    if "not_carried" in recorder.states.values():
        recorder.fail("the rules did not carry egress before any restart: nothing was restarted")
        return
    usual = dict(recorder.states)
    for number in range(1, plan.rounds + 1):
        if against := permit.refusal():
            recorder.note("error", f"ended after {number - 1} of {plan.rounds} rounds: {against}")
            break
        recorder.phase("round", number)
        await subject.restart(number)
        if not await _until(lambda: recorder.restored(usual), plan.patience):
            recorder.note("warning", f"{plan.patience:g} s after restart {number} the rules did not carry egress")
        await asyncio.sleep(plan.settle)
    recorder.phase("recovery")
    await asyncio.sleep(plan.recovery)


async def _until(true: Callable[[], bool], patience: float) -> bool:
    """Whether it came true within ``patience`` seconds."""
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while not true():
        if loop.time() >= end:
            return False
        await asyncio.sleep(_PERIOD)
    return True
