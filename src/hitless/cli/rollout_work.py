"""``hitless rollout``: what every command that restarts something does, from the first check to the result.

Problem: restart, image, patch, resume and undo differ only in the state that they record first. Promise: the cluster is
checked and every objection reported before a question is asked or anything is written; ``--plan`` prints all of it and
changes nothing; standard output holds the result alone; whatever ends it, what was done is in the cluster.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hitless.cleaning import clean
from hitless.cli import progress, rollout_folders, rollout_report, rollout_view, window_gate
from hitless.cli.command_text import typed
from hitless.cli.drill_cluster import place_of, waited_for
from hitless.cli.drill_session import interruptible, reports
from hitless.cli.exits import Exit
from hitless.cli.rollout_choices import ClusterAccess
from hitless.cli.rollout_findings import RolloutFindings
from hitless.cli.rollout_metrics import MetricsExport
from hitless.errors import ApiError, HitlessError, InputError, MissingError

if TYPE_CHECKING:
    from hitless.evidence import RecordedDrill, Verdict
    from hitless.kube.api import Api
    from hitless.operations.rollout.record import RolloutRecord, StoredRollout
    from hitless.operations.rollout.values import NodeTurn, Rollout
    from hitless.survey.cni import Survey

__all__ = ["Request", "carry_out"]

_PATIENCE = 20.0
"""Seconds of retries before anything is done, when the server does not respond."""


@dataclass
class Request:
    """A command that restarts something. ``state`` makes the state that is recorded first; ``resumes``: it continues
    the recorded rollout, also that of another driver where ``take_over`` allows it."""

    ctx: click.Context
    given: dict[str, Any]
    state: Callable[[Api, Survey, StoredRollout | None], Awaitable[Rollout]]
    resumes: bool = False
    take_over: bool = False

    @property
    def access(self) -> ClusterAccess:
        """Which cluster is meant."""
        return ClusterAccess(self.given["kubeconfig"], self.given["context"])


def carry_out(asked: Request) -> int:
    """Check, ask, drive, report; returns the exit code."""
    from hitless.cluster.validation import check_gateway
    from hitless.kube.contexts import read

    given = asked.given
    shown = progress.chosen(given["progress_"], quiet=given["quiet"])
    if given["plan"] and given["yes"]:
        raise InputError("contradicts --plan, which asks for nothing", where="--yes", expected="one of the two")
    check_gateway(given["push_metrics"])
    connection = read(given["kubeconfig"], given["context"])
    asked.given["context"] = connection.context  # a change of the current context meanwhile has no effect
    windows = window_gate.asked(asked.ctx, cluster=asked.access)
    findings = asyncio.run(waited_for(_find(asked), place_of(connection)))
    findings.windows = windows
    _check_windows(findings, plan=given["plan"])
    if given["plan"]:
        click.echo(rollout_view.plan(findings, as_object=given["as_object"]))
        return Exit.PASS
    if findings.against:
        raise MissingError(
            f"not now: {'; '.join(map(clean, findings.against))}", remedy="nothing was touched; wait, or fix that first"
        )
    if not _agreed(asked, findings, place_of(connection)):
        return Exit.PASS
    folder = given["out"] if given["out"] is not None else rollout_folders.new()
    tell = rollout_view.teller(shown)
    state = interruptible(_drive(asked, findings, folder, tell))
    from hitless.operations.rollout import metrics

    page = metrics.render(state, dt.datetime.now(dt.UTC))
    if problem := rollout_report.write(folder, rollout_view.described(state, folder), page):
        rollout_view.warn(problem)
    return rollout_view.show(state, folder, as_object=given["as_object"])


async def _find(asked: Request) -> RolloutFindings:
    from hitless.cluster import other_drills
    from hitless.kube.api import Patience, connect
    from hitless.kube.objects import NAMESPACES
    from hitless.operations.rollout import guards, node_order, observation, preconditions, probe_plan, record
    from hitless.restarts.agents import AgentPods
    from hitless.restarts.methods import ApiMethod
    from hitless.survey.cni import survey_cluster

    async with connect(asked.access.kubeconfig, asked.access.context, patience=Patience(total=_PATIENCE)) as api:
        found = await record.read_record(api)
        if asked.resumes:
            found = record.found_or_missing(found)
        agent = found.state.agent if asked.resumes and found is not None else asked.given["agent"]
        survey = await survey_cluster(api, agent=agent)
        AgentPods(api, survey.cni)
        state = await asked.state(api, survey, found)
        probe_plan.check_far_end(state.choices, survey)
        seen = await observation.see(api, state.namespace, state.name)
        findings = RolloutFindings(survey, found, state, seen, [])
        if asked.resumes and found is not None:
            findings.against += await _driven(api, found, asked)
        else:
            other = found if found is not None and found.state.phase != "ended" else None
            findings.against += [rollout_view.under_way(other)] if other is not None else []
            known = other.state.identity if other is not None else ""
            findings.against += await preconditions.against(api, state, survey, seen, known=known)
        sets = await guards.find(api)
        findings.guards = tuple(sorted({one.metadata.namespace for one in sets}))
        findings.guarded = await guards.guarded(api) if sets else None
        places = (state.choices.namespace, state.choices.probe_namespace or state.choices.namespace)
        nodes, own_far_end = findings.nodes, probe_plan.own_far_end(state.choices)
        by_pods = await other_drills.by_pods(
            api, places, survey, nodes, ApiMethod.DELETE_POD, own_far_end=own_far_end, tell=rollout_view.warn
        )
        findings.against += [text for (drill, _), text in by_pods.items() if drill not in state.drills]
        ignored = {*state.drills, *(drill for drill, _ in by_pods)}
        mine = other_drills.registration(
            state.choices.namespace,
            survey,
            nodes,
            ApiMethod.DELETE_POD,
            own_far_end=own_far_end,
            at_once=node_order.largest_step(state),
        )
        alive, findings.dead = await other_drills.blocking(api, mine, tell=rollout_view.warn, ignored=ignored)
        findings.against += alive.values()
        try:
            await api.get(NAMESPACES, state.choices.namespace)
        except ApiError as error:
            if error.status not in (403, 404):
                raise
            findings.missing = True
        return findings


async def _driven(api: Api, found: StoredRollout, asked: Request) -> list[str]:
    """Why another driver's rollout may not be continued."""
    from hitless.operations.rollout import record

    if asked.take_over or not found.state.driver or found.state.phase == "ended":
        return []
    life, why = await record.life(api, found, tell=rollout_view.warn)
    if life == "dead":
        return []
    return [f"{found.driver} drives it ({why}): end it there, or take it over with --take-over"]


def _check_windows(findings: RolloutFindings, *, plan: bool) -> None:
    state, windows = findings.state, findings.windows
    if state.windows and windows is None:
        raise InputError(
            f"this rollout goes by the maintenance windows of {state.windows}",
            where="rollout",
            expected="--window or --configmap with them, and --force-window REASON to go over them",
        )
    if windows is not None and not windows.reason:
        from hitless.operations.rollout.node_order import next_step

        step = [one.node for one in next_step(findings.state.turns, findings.state.choices.width)]
        if step and (why := windows.gate(step, needs=windows.needs, labels=findings.labels).refusal()):
            if windows.skips and not plan:
                window_gate.skipped(why)
            findings.against.append(f"{why} (hitless window wait waits for it; --force-window REASON goes over it)")


def _agreed(asked: Request, findings: RolloutFindings, place: str) -> bool:
    question = rollout_view.question(findings, place)
    if asked.given["yes"]:
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


async def _drive(asked: Request, findings: RolloutFindings, folder: Path, tell: Callable[[str], None]) -> Rollout:
    import msgspec

    from hitless.cluster.pods import sweep
    from hitless.cluster.target import placed
    from hitless.drill.origins import here
    from hitless.kube.api import connect
    from hitless.operations.rollout import events, node_order, probe_plan, step_drill
    from hitless.operations.rollout.driver import drive
    from hitless.operations.rollout.ports import DriverContext, now
    from hitless.operations.rollout.record import RolloutRecord, StoredRollout
    from hitless.restarts.agents import AgentPods

    state, windows = findings.state, findings.windows
    identity = secrets.token_hex(4)
    former = state.drills
    changes: dict[str, Any] = {"drill": identity}
    if windows is not None:
        changes["windows"] = windows.windows.source
        if windows.reason:
            changes["forced"] = (*state.forced, f"{now()} {windows.reason}")
            tell(f"--force-window: {windows.reason}")
    state = msgspec.structs.replace(state, **changes)
    async with connect(asked.access.kubeconfig, asked.access.context, answered=True) as api:
        record = RolloutRecord(api)
        if asked.resumes and findings.found is not None:
            await record.claim(StoredRollout(state, findings.found.map))
        else:
            await record.begin(state, findings.found)
        tell(f"written down in {rollout_view.WHERE}; logs in {folder}")
        survey, choices = findings.survey, state.choices
        pods = probe_plan.pods(choices, survey, identity)
        agent = AgentPods(api, survey.cni)
        nodes, far, at_once = findings.nodes, probe_plan.own_far_end(choices), node_order.largest_step(state)
        steps = _Steps(folder)

        def permit(names: Sequence[str]) -> str:
            if windows is None or windows.reason:
                return ""
            return windows.gate(names, needs=windows.needs, labels=findings.labels).refusal()

        exported = MetricsExport(asked.given["metrics_file"], asked.given["push_metrics"], rollout_view.warn)
        await exported.update(state)
        async with (
            _exported(exported, record),
            _released(record),
            placed(api, survey, nodes, pods, own_far_end=far, tell=rollout_view.warn, at_once=at_once) as places,
        ):
            prober = step_drill.DrillProber(
                api,
                survey,
                agent,
                pods,
                probe_plan.plan(choices),
                places,
                [one for one in choices.to if one != "node"],
                steps.folder,
                steps.done,
                here(typed(asked.ctx)),
                former=list(former),
            )
            if all(one.course != "restarting" for one in state.turns):  # else they may be heard first
                await prober.tidy()
            others = _Others(api, findings, identity)
            context = DriverContext(api, agent, record, prober, permit, tell, int(asked.given["steps"] or 0), others)

            async def announce(turns: Sequence[NodeTurn]) -> None:
                await exported.update(record.state)
                if choices.post_events:
                    await events.post(api, record.state, turns, rollout_view.warn)

            context.announce = announce
            await drive(context)
        for one in former:  # the namespace that it made goes when our own pods have gone
            await sweep(api, pods.namespaces, one)
        return record.state


@asynccontextmanager
async def _exported(exported: MetricsExport, record: RolloutRecord) -> AsyncIterator[None]:
    """However the block ends, the metrics show the state after it, unless another driver has taken over."""
    try:
        yield
    finally:
        if record.lost is None:
            await exported.update(record.state)


@asynccontextmanager
async def _released(record: RolloutRecord) -> AsyncIterator[None]:
    """Where the block fails before or after the driver's own work, the record says why, and has no driver any more."""
    try:
        yield
    except (HitlessError, asyncio.CancelledError) as error:
        if record.state.driver and record.lost is None:
            with suppress(HitlessError):
                await record.release("interrupted" if isinstance(error, asyncio.CancelledError) else str(error))
        raise


@dataclass
class _Others:
    """Other drills on the nodes of a step: two measurements of one node spoil each other. ``mine``: this driver's."""

    api: Api
    findings: RolloutFindings
    mine: str

    async def __call__(self, names: Sequence[str]) -> str:
        from hitless.cluster import other_drills, registry
        from hitless.restarts.methods import ApiMethod

        choices, survey = self.findings.state.choices, self.findings.survey
        nodes = [self.findings.seen.nodes[name] for name in names if name in self.findings.seen.nodes]
        places = (choices.namespace, choices.probe_namespace or choices.namespace)
        by_pods = await other_drills.by_pods(
            self.api, places, survey, nodes, ApiMethod.DELETE_POD, own_far_end=False, tell=lambda _: None
        )
        found = {drill: text for (drill, _), text in by_pods.items()}
        step = other_drills.registration(choices.namespace, survey, nodes, ApiMethod.DELETE_POD, own_far_end=False)
        try:
            found = other_drills.registered(await registry.entries(self.api), step) | found
        except ApiError as error:
            if error.status != 403:  # that was reported at the beginning
                raise
        ignored = {self.mine, *self.findings.state.drills, *self.findings.dead}
        return "; ".join(text for drill, text in found.items() if drill not in ignored)


@dataclass
class _Steps:
    """The folders of the steps, one after another."""

    root: Path
    count: int = 0

    def folder(self, nodes: Sequence[str]) -> Path:
        """A new one."""
        while True:
            self.count += 1
            found = self.root / f"{self.count:03d}-{nodes[0]}"
            if not found.exists():
                found.mkdir(parents=True)
                return found

    @staticmethod
    def done(log: Path, recorded: RecordedDrill, verdict: Verdict) -> None:
        """Write a step's reports."""
        if problem := reports(log.parent, recorded, verdict):
            rollout_view.warn(f"the log is whole, but {problem}")
