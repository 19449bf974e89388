"""Prepares a drill of a cluster: the survey, the objections, the agreement; or a dry run.

Problem: an operator has a cluster and one question. Promise: nothing is changed before the cluster was surveyed,
every objection was shown, and the operator agreed; a dry run gives every object, call and right as YAML and changes
nothing; what a drill created is removed at its end. ``Operator`` is the port to the operator; the command line
implements it. Next stage: ``hitless.cli.drill_cluster``.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

from hitless.cluster import other_drills, registry
from hitless.cluster.choices import Choices
from hitless.cluster.dry_run import dry_run
from hitless.cluster.heartbeat import driver
from hitless.cluster.manifests import PodOptions, far_addresses
from hitless.cluster.schedule import announce, last_turn, push, remember
from hitless.cluster.target import Abort, ClusterTarget, helper_nodes, placed
from hitless.cluster.validation import abort_after, check
from hitless.drill import DrillPlan
from hitless.drill.permits import Permit
from hitless.errors import ApiError, HitlessError, InputError, MissingError
from hitless.evidence import RecordedDrill, Verdict
from hitless.evidence.phrases import plural
from hitless.evidence.reports import render
from hitless.kube.api import Api, Patience, connect
from hitless.kube.contexts import Connection, read
from hitless.kube.objects import NAMESPACES, Node
from hitless.probe.targets import is_far_end
from hitless.restarts.agents import AgentPods
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.cni import Survey, survey_cluster
from hitless.survey.nodes import choose, objections

__all__ = ["ASKED", "Operator", "Prepared", "prepare"]

_T = TypeVar("_T")

ASKED = 20.0
"""Seconds of retries before anything is done, when the server does not respond."""
PATIENCE = 120.0
"""Seconds for an agent's pod to end, to be made again, and to be ready: on a small node Cilium takes a minute."""


class Operator(Protocol):
    """The user of the command."""

    def warn(self, text: str) -> None:
        """Report something that does not end the drill."""

    def show(self, text: str) -> None:
        """Print a dry run."""

    def agree(self, question: str) -> bool:
        """Ask whether it may begin; raises ``InputError`` without a terminal."""

    def allow(self, nodes: Mapping[str, Mapping[str, str]], choices: Choices) -> Permit:
        """Whether these nodes (their labels by name) may be drilled now, by the windows; ``MissingError`` if not."""

    async def at_work(self, api: Api) -> list[str]:
        """Rollouts that are running in the cluster: reasons not to begin."""

    def wait_for(self, work: Coroutine[Any, Any, _T], connection: Connection) -> _T:
        """Run the first requests to a server."""

    def place_of(self, connection: Connection) -> str:
        """Which cluster is meant, for a question."""


@dataclass(frozen=True)
class Prepared:
    """A drill that was checked and agreed to: ``target`` creates what all nodes share and gives the target; ``after``
    posts Events and metrics."""

    agent: str
    plan: DrillPlan
    target: Callable[[], AbstractAsyncContextManager[ClusterTarget]]
    after: Callable[[RecordedDrill, Verdict], Awaitable[None]]
    permit: Permit


def prepare(choices: Choices, plan: DrillPlan, grace: float | None, operator: Operator) -> Prepared | None:
    """Survey the cluster, raise objections, ask; None after a dry run, or when the answer was no."""
    restart = plan.method
    if not isinstance(restart, ApiMethod):
        raise InputError(f"{restart} is for the lab", where="--restart", expected=", ".join(ApiMethod))
    _check(choices, grace)
    plan = replace(plan, patience=PATIENCE)
    # The context that is current now is meant, whichever is when the question has been answered.
    connection = read(choices.kubeconfig, choices.context)
    choices = replace(choices, context=connection.context)

    own_far_end = not choices.to or "node" in choices.to

    survey, chosen, against, missing, dead = operator.wait_for(
        _see(choices, restart, own_far_end, operator), connection
    )
    if not choices.family_given and not any("ipv4" in node.internal_ips for node in survey.nodes):
        plan = replace(plan, families=("ipv6",))
    pods = _pods(choices, plan, survey, restart)
    if own_far_end:
        _can_have_far_end(survey, chosen, pods, choices.at_once)
    labels = {node.name: node.metadata.labels or {} for node in chosen}
    if choices.dry_run:
        try:
            operator.allow(labels, choices)
        except MissingError as error:
            against.append(str(error).removeprefix("not now: "))
        operator.show(dry_run(choices, plan, pods, survey, chosen, restart, grace, own_far_end, against, missing))
        return None
    if against:
        raise MissingError(f"not now: {'; '.join(against)}", remedy="nothing was touched; wait, or fix that first")
    permit = operator.allow(labels, choices)
    if not choices.yes and not operator.agree(_question(operator.place_of(connection), plan, survey, chosen, restart)):
        return None

    @asynccontextmanager
    async def target() -> AsyncIterator[ClusterTarget]:
        mine = other_drills.registration(
            choices.namespace, survey, chosen, restart, own_far_end=own_far_end, at_once=choices.at_once
        )
        async with (
            connect(choices.kubeconfig, choices.context) as api,
            registry.entered(api, pods.identity, mine, warn=operator.warn) as others,
        ):
            await _still_free(api, mine, others, dead, operator)
            if choices.round_robin:  # before it begins: a node whose drill breaks off does not hold up the others
                await remember(api, choices.namespace, chosen[-1].name)
            async with placed(
                api, survey, chosen, pods, own_far_end=own_far_end, tell=operator.warn, at_once=choices.at_once
            ) as places:
                yield ClusterTarget(
                    api,
                    survey,
                    chosen,
                    pods,
                    plan,
                    AgentPods(api, survey.cni, None if grace is None else int(grace)),
                    restart,
                    places,
                    [one for one in choices.to if one != "node"],
                    choices.at_once,
                    Abort(*abort_after(choices.abort_after)),
                )

    async def after(recorded: RecordedDrill, verdict: Verdict) -> None:
        await _announce(choices, recorded, verdict, [node.name for node in chosen], pods.identity, operator)

    name = survey.cni.daemon_set.name if survey.cni.daemon_set else survey.cni.name
    return Prepared(name, plan, target, after, permit)


async def _see(
    choices: Choices, restart: ApiMethod, own_far_end: bool, operator: Operator
) -> tuple[Survey, tuple[Node, ...], list[str], bool, set[str]]:
    """Survey the cluster: the chosen nodes, the reasons not to begin, whether a dry run's namespace is missing, and
    which entries of the register are left from dead drills."""
    async with connect(choices.kubeconfig, choices.context, patience=Patience(total=ASKED)) as api:
        survey = await survey_cluster(api, agent=choices.agent)
        last = await _turn(api, choices.namespace) if choices.round_robin else None
        chosen = choose(survey, choices.nodes, choices.count, choices.node_selector, after=last)
        await AgentPods(api, survey.cni).pods([node.name for node in chosen])
        places = (choices.namespace, choices.probe_namespace or choices.namespace)
        found = await other_drills.by_pods(
            api, places, survey, chosen, restart, own_far_end=own_far_end, tell=operator.warn
        )
        mine = other_drills.registration(
            choices.namespace, survey, chosen, restart, own_far_end=own_far_end, at_once=choices.at_once
        )
        seen = {identity for identity, _ in found}
        alive, dead = await other_drills.blocking(api, mine, tell=operator.warn, ignored=seen)
        against = [*found.values(), *alive.values(), *await operator.at_work(api)]
        against[:0] = objections(survey, chosen, by_rollout=entry_of(restart).by_rollout)
        missing = choices.dry_run and await _missing(api, choices.namespace)
        return survey, chosen, against, missing, dead


async def _still_free(
    api: Api,
    mine: registry.RegisteredDrill,
    others: Mapping[str, registry.RegisteredDrill],
    dead: set[str],
    operator: Operator,
) -> None:
    """Raises ``MissingError`` where another drill or a rollout began since the cluster was surveyed."""
    alive, gone = await other_drills.blocking(api, mine, tell=operator.warn, others=others, dead=dead)
    against = [*alive.values(), *await operator.at_work(api)]
    if against:
        raise MissingError(
            f"not now: {'; '.join(against)}",
            remedy="it began meanwhile; nothing was restarted; wait until it has ended",
        )
    for identity in gone:
        await registry.leave(api, identity)


def _check(choices: Choices, grace: float | None) -> None:
    if grace is not None and not float(grace).is_integer():
        raise InputError(f"{grace} is not a whole number", where="--grace", expected="whole seconds, with --cluster")
    check(choices)


async def _announce(
    choices: Choices, recorded: RecordedDrill, verdict: Verdict, nodes: list[str], identity: str, operator: Operator
) -> None:
    """Post Events and metrics; a failure is a warning, and changes neither the verdict nor the reports."""

    if choices.post_events:
        try:
            async with connect(choices.kubeconfig, choices.context, answered=True) as api:
                await announce(api, verdict, nodes, identity)
        except HitlessError as error:
            operator.warn(f"the Events could not be posted: {error}")
    if choices.push_metrics:
        try:
            await push(
                choices.push_metrics, render("prometheus", recorded, verdict), "hitless_drill", "node", nodes[-1]
            )
        except HitlessError as error:
            operator.warn(f"the metrics could not be pushed: {error}")


def _can_have_far_end(survey: Survey, chosen: tuple[Node, ...], pods: PodOptions, at_once: int) -> None:

    expected = "--to URL of something outside the cluster, e.g. https://example.org/ or farend://HOST (hitless farend)"
    if len(survey.nodes) < 2:
        raise InputError(
            "the cluster has one node, and a far end must be outside of it", where="--to", expected=expected
        )
    if not survey.cni.facts.translates_between_nodes:
        name = survey.cni.facts.title
        raise InputError(f"{name} does not translate flows between nodes", where="--to", expected=expected)
    for place in helper_nodes(survey, chosen, at_once):
        if not far_addresses(pods, place.internal_ips):
            raise InputError(f"node {place.name} has no {pods.family} address", where="--family", expected="one it has")


async def _missing(api: Api, namespace: str) -> bool:
    """Whether the drill would have to create its namespace; without permission to read it, the dry run assumes so."""

    try:
        await api.get(NAMESPACES, namespace)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return True
    return False


async def _turn(api: Api, namespace: str) -> str:

    try:
        await api.get(NAMESPACES, namespace)
    except ApiError as error:
        if error.status != 404:
            raise
        raise InputError(
            f"there is no namespace {namespace}", where="--round-robin", expected="one that stays, to keep the turn in"
        ) from error
    return await last_turn(api, namespace)


def _pods(choices: Choices, plan: DrillPlan, survey: Survey, restart: ApiMethod) -> PodOptions:

    profile = choices.watch_profile or survey.cni.profile
    family: Literal["ipv4", "ipv6", "dual"] = "dual" if len(plan.families) > 1 else "ipv4"
    if plan.families == ("ipv6",):
        family = "ipv6"
    wanted = [one for one in survey.cni.networks if ("ipv6" if ":" in one else "ipv4") in plan.families]
    method = entry_of(restart)
    nodes = 1 if method.everywhere else max(1, choices.count or len(choices.nodes) or 1)
    length = plan.baseline + plan.recovery + plan.rounds * (plan.settle + 2 * plan.patience + method.held) + 300
    ours = not choices.to or any(one == "node" or is_far_end(one) for one in choices.to)
    return PodOptions(
        identity=secrets.token_hex(4),
        namespace=choices.namespace,
        probe_namespace=choices.probe_namespace,
        image=choices.image,
        pull_policy=choices.pull_policy,
        pull_secrets=choices.pull_secrets,
        rate=plan.rate if choices.rate_given or ours else None,
        streams=plan.streams if ours else 0,
        family=family,
        networks=tuple(wanted),
        profile=profile,
        seconds=int(length * nodes),
        see_processes=method.sees_processes,
        rules=survey.cni.known or choices.watch_profile is not None,
        driver=driver(),
    )


def _question(place: str, plan: DrillPlan, survey: Survey, chosen: tuple[Node, ...], restart: ApiMethod) -> str:
    names = ", ".join(node.name for node in chosen)
    everywhere = "on every node, one after another, " if entry_of(restart).everywhere else ""
    return (
        f"Restart {survey.cni.title} {everywhere}on {names} of {place}, {plural(plan.rounds, 'time')} by {restart}? "
        "While it restarts, the pods there may lose connections"
    )
