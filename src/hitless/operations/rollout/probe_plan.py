"""The probe pods and the plan that a rollout's steps are measured with. Pure.

Everything comes from the recorded choices and from the cluster, so that every driver of a rollout measures
the same. Next stage: ``step_drill``.
"""

from __future__ import annotations

from hitless.cluster import heartbeat
from hitless.cluster.manifests import IMAGE, PodOptions
from hitless.cluster.target import helper_nodes
from hitless.drill.plans import DrillPlan
from hitless.errors import InputError
from hitless.operations.rollout.values import RolloutChoices
from hitless.probe.targets import is_far_end
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import Survey

__all__ = ["check_far_end", "own_far_end", "plan", "pods"]

_SETTLE = 0.5
_SLACK = 300
_STREAMS = 4


def own_far_end(choices: RolloutChoices) -> bool:
    """Whether a far end of ours runs on a node of the cluster."""
    return not choices.to or "node" in choices.to


def plan(choices: RolloutChoices) -> DrillPlan:
    """A drill of one round: the probe before is its baseline, the bake time its recovery."""
    families = ("ipv4", "ipv6") if choices.family == "dual" else (choices.family,)
    return DrillPlan(
        rounds=1,
        method=ApiMethod.DELETE_POD,
        baseline=choices.probe,
        settle=_SETTLE,
        recovery=choices.bake,
        patience=choices.patience,
        rate=choices.rate,
        streams=_STREAMS,
        families=families,
    )


def pods(choices: RolloutChoices, survey: Survey, identity: str) -> PodOptions:
    """What shapes the pods of one driver's steps."""
    ours = not choices.to or any(one == "node" or is_far_end(one) for one in choices.to)
    profile = choices.watch_profile
    if not profile and survey.cni.known:
        profile = "flannel-nftables" if survey.cni.nftables else survey.cni.name
    wanted = [one for one in survey.cni.networks if choices.family in ("dual", "ipv6" if ":" in one else "ipv4")]
    length = choices.probe + choices.bake + _SETTLE + 3 * choices.patience + _SLACK
    return PodOptions(
        identity=identity,
        namespace=choices.namespace,
        probe_namespace=choices.probe_namespace,
        image=choices.image or IMAGE,
        pull_policy=choices.pull_policy,
        pull_secrets=choices.pull_secrets,
        rate=choices.rate if ours else None,
        streams=_STREAMS if ours else 0,
        family=choices.family,
        networks=tuple(wanted),
        profile=profile,
        seconds=int(length),
        rules=survey.cni.known or bool(choices.watch_profile),
        driver=heartbeat.driver(),
    )


def check_far_end(choices: RolloutChoices, survey: Survey) -> None:
    """Raises ``InputError`` where no far end of ours can be outside of the pods' network."""
    if not own_far_end(choices):
        return
    expected = "--to URL of something outside the cluster, e.g. https://example.org/ or farend://HOST (hitless farend)"
    if len(survey.nodes) < 2:
        raise InputError(
            "the cluster has one node, and a far end must be outside of it", where="--to", expected=expected
        )
    if survey.cni.name == "cilium":
        raise InputError("Cilium does not translate flows between nodes", where="--to", expected=expected)
    families = {"ipv4", "ipv6"} if choices.family == "dual" else {choices.family}
    for place in helper_nodes(survey, survey.nodes, choices.width):
        if not families & set(place.internal_ips):
            raise InputError(f"node {place.name} has no {choices.family} address", where="--family", expected="its own")
