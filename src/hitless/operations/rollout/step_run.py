"""One step of a rollout: whether it may begin, what is done to its nodes, and what that cost.

Problem: a driver may die between "delete the pod" and "it was deleted". Promise: the uid of each node's pod is
recorded before the pod is deleted, and only that pod is ever deleted; a node whose restart was not measured is probed
afterwards, and reported as not measured; the outcome of a step is recorded before the next one begins. Functions
return the reason to stop, with what to do, or an empty string to go on. Next stage: ``driver``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hitless.errors import HitlessError
from hitless.kube.objects import DISRUPTION_BUDGETS, PODS, Meta, Node, Pod, PodSpec
from hitless.kube.pod_problems import pod_problem
from hitless.model.events import RestartCode
from hitless.operations.rollout import guards, node_order
from hitless.operations.rollout.observation import ObservedAgent, foreign, hash_of, see
from hitless.operations.rollout.ports import RESUME, DriverContext, StepOutcome, now
from hitless.operations.rollout.values import NodeTurn, Rollout, VerdictName
from hitless.restarts.agents import ReportStep, Step
from hitless.restarts.execution import until_back
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.nodes import exhausted

__all__ = ["against", "take"]

_RECHECK = 0.5


async def against(context: DriverContext, step: Sequence[NodeTurn]) -> str:
    """Why this step may not begin now; a step that was begun before is continued in any case."""
    state = context.state
    if all(one.course == "restarting" for one in step):
        return ""
    names = [one.node for one in step]
    if why := context.permit(names):
        return f"{why}; {RESUME} in a window"
    end = context.api.patience.now() + state.choices.patience
    while True:
        seen = await see(context.api, state.namespace, state.name)
        why = (
            foreign(state, seen.daemon_set) or _unready(state, seen, names) or await _budget(context, seen, len(names))
        )
        if not why and state.choices.require_guard:
            why = guards.missing(await guards.guarded(context.api), names)
        why = why or await context.others(names)
        if not why or context.api.patience.now() > end:
            return f"{why}; nothing was done to {', '.join(names)}: fix that, then {RESUME}" if why else ""
        await context.api.patience.sleep(_RECHECK)


def _unready(state: Rollout, seen: ObservedAgent, names: Sequence[str]) -> str:
    """An agent that is not ready would spoil the measurement; an undo, which repairs that, goes on."""
    if state.direction == "undo":
        return ""
    for name in names:
        pod = seen.pods.get(name)
        if pod is None or not pod.ready:
            why = f" ({pod_problem(pod)})" if pod is not None and pod_problem(pod) else ""
            return f"the agent on {name} is not ready before its turn{why}"
    return ""


async def _budget(context: DriverContext, seen: ObservedAgent, pods: int) -> str:
    """A PodDisruptionBudget of the agent's pods that does not allow so many to go now."""
    assert seen.daemon_set is not None
    budgets = await context.api.all(DISRUPTION_BUDGETS, context.state.namespace)
    return "; ".join(exhausted(budgets, seen.daemon_set, pods))


async def take(context: DriverContext, step: Sequence[NodeTurn]) -> str:
    """One step; returns why the rollout stops after it, or empty."""
    seen = await see(context.api, context.state.namespace, context.state.name)
    late = [one for one in step if one.course == "restarting" and not seen.has(one.node, one.uid)]
    ailing = [one for one in step if (pod := seen.pods.get(one.node)) is not None and not pod.ready]
    # those that were restarted unmeasured, and those that cannot be measured before it, get a step of their own
    unseen = late or ailing
    chosen = [one for one in step if one in unseen] if unseen else list(step)
    work = _Restart(context, chosen, seen)
    where = ", ".join(f"{one.node}{f' ({one.zone})' if one.zone else ''}" for one in chosen)
    context.tell(f"{where}: {'restarted before this driver came; ' if late else ''}probing")
    nodes = [seen.nodes[one.node] for one in chosen]
    if unseen:  # a probe before would measure what is not there
        await work(_silent)
        if work.failed:
            return await _not_back(context, work)
        outcomes = await _rejoined(context, chosen, nodes) if chosen == late else None
        if outcomes is not None:
            unseen = []
        else:
            outcomes = await context.prober.around(nodes, _Nothing(chosen), unseen=True)
    else:
        outcomes = await context.prober.around(nodes, work, unseen=False)
    if not work.begun:
        why = "; ".join(text for one in outcomes.values() for text in one.reasons) or "the probe could not begin"
        return f"before {where} was touched: {why}; nothing was restarted there: fix that, then {RESUME}"
    if work.broke:
        return f"{where}: the restart broke off: {work.broke}; {RESUME} checks what was done, and does the rest"
    if work.failed:
        return await _not_back(context, work)
    return await _judged(context, chosen, outcomes, unseen=bool(unseen))


async def _rejoined(
    context: DriverContext, step: Sequence[NodeTurn], nodes: Sequence[Node]
) -> Mapping[str, StepOutcome] | None:
    """What the pods of the driver that restarted these nodes measured; None where that is not known."""
    drills = {one.drill for one in step}
    if len(drills) != 1 or "" in drills:
        return None
    return await context.prober.rejoin(nodes, drills.pop(), _Nothing(step))


def _silent(node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None:
    pass


async def _not_back(context: DriverContext, work: _Restart) -> str:
    why = "; ".join(f"{node}: {text}" for node, text in sorted(work.failed.items()))
    await context.record.write(
        lambda state: state.turned(
            msgspec.structs.replace(one, reason=text)
            for node, text in work.failed.items()
            if (one := state.of(node)) is not None
        )
    )
    undo = ", or put the former revision back with hitless rollout undo" if context.state.replaces else ""
    return f"the agent did not come back: {why}; fix it there, then {RESUME}{undo}"


async def _judged(
    context: DriverContext, step: Sequence[NodeTurn], outcomes: Mapping[str, StepOutcome], *, unseen: bool
) -> str:
    """Record the outcomes; returns why the rollout stops, or empty."""
    turns = []
    for one in step:
        outcome = outcomes.get(one.node, StepOutcome("inconclusive", reasons=("nothing was measured",), clean=False))
        verdict: VerdictName = "inconclusive" if unseen and outcome.verdict == "pass" else outcome.verdict
        turns.append(
            msgspec.structs.replace(
                one,
                course="done",
                verdict=verdict,
                attempted=outcome.attempted,
                lost=outcome.lost,
                unseen=unseen,
                reason="; ".join(outcome.reasons)[:300] if verdict != "pass" else "",
            )
        )
        context.tell(f"{one.node}: {verdict}, {outcome.lost:,} of {outcome.attempted:,} lost")
    await context.record.write(lambda state: _with_lines(state.turned(turns), turns))
    await context.announce(turns)
    hurt = [one for one in turns if one.verdict == "fail"]
    last = not any(one.course in (*node_order.OPEN, "skipped") for one in context.state.turns)
    if hurt and not last:
        undo = " or hitless rollout undo" if context.state.replaces else ""
        guard = "hitless guard bridges such gaps (docs/guard.md)"
        losses = "; ".join(f"{one.node}: {one.reason}" for one in hurt)
        return f"the first loss: {losses}; {guard}; then {RESUME}{undo}"
    doubtful = [one for one in turns if one.verdict == "inconclusive"]
    measured = all(outcomes[one.node].clean for one in doubtful if one.node in outcomes)
    if doubtful and not last and not context.state.choices.accept_inconclusive and not (unseen and measured):
        reasons = "; ".join(f"{one.node}: {one.reason}" for one in doubtful)
        return f"it is not known what that cost: {reasons}; {RESUME} (--accept-inconclusive does not stop at such)"
    return ""


def _with_lines(state: Rollout, turns: Sequence[NodeTurn]) -> Rollout:
    at = now()
    for one in turns:
        state = state.logged(f"{at} {state.driver}: {one.node}: {one.verdict}, {one.lost} of {one.attempted} lost")
    return state


@dataclass
class _Nothing:
    """Reports that the agents are ready again: they were restarted before."""

    step: Sequence[NodeTurn]

    async def __call__(self, tell: ReportStep, /) -> None:
        for one in self.step:
            tell(one.node, "stop", f"pod {one.pod} was deleted by a driver that died, at this time or later")
            gone = f"pod {one.pod} (uid {one.uid}) is gone"
            tell(one.node, "started", "it runs again, at this time or before", gone)
            tell(one.node, "ready", "it is ready, since this time or before", gone)


@dataclass
class _Restart:
    """Records which pods will be deleted, deletes them, and waits until their replacements are ready."""

    context: DriverContext
    step: Sequence[NodeTurn]
    seen: ObservedAgent
    begun: bool = False
    broke: str = ""
    failed: dict[str, str] = field(default_factory=dict)

    async def __call__(self, tell: ReportStep, /) -> None:
        self.broke = "it was cut off"
        try:
            await self._restart(tell)
        except HitlessError as error:
            self.broke = str(error)
            raise
        self.broke = ""

    async def _restart(self, tell: ReportStep) -> None:
        context, state = self.context, self.context.state
        turns = [one if one.course == "restarting" else self._intent(one) for one in self.step]
        fresh = [one for one, before in zip(turns, self.step, strict=True) if one != before]
        if fresh:
            await context.record.write(lambda state: state.turned(fresh))
        self.begun = True
        before = {one.node: _pod(one, state.namespace) for one in turns}
        for one in turns:
            tell(one.node, "stop", f"pod {one.pod} deleted")
            await context.api.delete(PODS, one.pod, state.namespace, uid=one.uid)

        def report(node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None:
            if step == "failed":
                self.failed[node] = detail
            tell(node, step, detail, evidence, code)

        await until_back(context.agent, before, report, state.choices.patience, entry_of(ApiMethod.DELETE_POD))
        if self.failed or state.target:
            await self._check_pods(state)

    def _intent(self, turn: NodeTurn) -> NodeTurn:
        pod = self.seen.pods.get(turn.node)
        assert pod is not None, "a turn whose node has no pod is skipped"
        uid, drill = pod.metadata.uid, self.context.state.drill
        return msgspec.structs.replace(turn, course="restarting", pod=pod.name, uid=uid, drill=drill, reason="")

    async def _check_pods(self, state: Rollout) -> None:
        """Add the kubelet's message for pods that are not ready; find pods that came back with another revision."""
        seen = await see(self.context.api, state.namespace, state.name)
        for one in self.step:
            pod = seen.pods.get(one.node)
            if one.node in self.failed and pod is not None and (known := pod_problem(pod)):
                self.failed[one.node] += f" ({known})"
            elif one.node not in self.failed and hash_of(pod) not in ("", state.target):
                why = foreign(state, seen.daemon_set) or "the DaemonSet controller made it from another one"
                self.failed[one.node] = f"it runs revision {hash_of(pod)} and not {state.target}: {why}"


def _pod(turn: NodeTurn, namespace: str) -> Pod:
    """The pod that is deleted, with the fields that matter."""
    return Pod(metadata=Meta(name=turn.pod, namespace=namespace, uid=turn.uid), spec=PodSpec(node_name=turn.node))
