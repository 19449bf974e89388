"""What ``hitless drill --cluster --dry-run`` prints.

Problem: administrators want to read, grant and keep what a drill will do before it does anything. Promise: one YAML
stream that kubectl can read, with every object and every permission, and the calls and objections as comments; it is
made by the same functions as the drill itself (``rehearsal``). Changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hitless.drill import DrillPlan

if TYPE_CHECKING:
    from hitless.cluster.choices import Choices
    from hitless.cluster.manifests import PodOptions
    from hitless.kube.objects import Node
    from hitless.restarts.methods import ApiMethod
    from hitless.survey.cni import Survey

__all__ = ["dry_run"]


def dry_run(
    choices: Choices,
    plan: DrillPlan,
    pods: PodOptions,
    survey: Survey,
    chosen: tuple[Node, ...],
    restart: ApiMethod,
    grace: float | None,
    own_far_end: bool,
    against: list[str],
    missing: bool,
) -> str:
    """The whole drill as YAML with comments; ``against``: the reasons not to begin now."""
    import yaml

    from hitless.cluster import rehearsal
    from hitless.evidence.phrases import plural

    rehearsed = rehearsal.rehearse(
        pods,
        survey,
        chosen,
        restart,
        to=choices.to,
        own_far_end=own_far_end,
        rounds=plan.rounds,
        makes_namespace=missing,
        turn=choices.round_robin,
        tells=choices.post_events,
        windows=choices.windows,
        at_once=choices.at_once,
    )
    names = ", ".join(node.name for node in chosen)
    lines = [f"# {survey.cni.title}: {plural(plan.rounds, 'round')} of {restart} on {names}"]
    lines += [f"# not now: {one}" for one in against]
    lines += ["# Calls, in their order:", *(f"#   {call}" for call in rehearsed.calls)]
    if grace is not None:
        lines.append(f"# with a grace period of {int(grace)} s")
    rights = "The rights that it needs"
    if missing:
        rights += f"; where {pods.namespace} is not there yet: make it first, the account and a Role live in it"
    parts = [("Objects that are made", rehearsed.objects), (rights, rehearsed.rights)]
    for title, documents in parts:
        lines.append(f"# {title}:")
        lines.append(yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True).rstrip())
    return "\n".join(lines)
