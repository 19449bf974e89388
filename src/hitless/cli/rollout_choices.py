"""The options of ``hitless rollout``, and their values. Nothing of a cluster is imported or read here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from hitless.cli import progress, window_gate
from hitless.cli.drill_choices import DEFAULT_IMAGE
from hitless.cli.numbers import number
from hitless.cli.output_paths import FileParameter, FolderParameter
from hitless.cluster.choices import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from hitless.operations.rollout.values import RolloutChoices

__all__ = ["SECTIONS", "ClusterAccess", "chosen", "driving", "reaching", "starting"]

_F = TypeVar("_F", bound=Callable[..., Any])

SECTIONS = {
    "Which nodes, in which order": ("nodes", "node_selector", "first", "zones", "width", "steps"),
    "How each is measured": ("probe", "bake", "ready_within", "rate", "family", "to", "watch_profile"),
    "When it stops": ("require_guard", "accept_inconclusive"),
    "When (maintenance windows)": ("window", "configmap", "window_cluster", "needs", "skip_outside", "force_window"),
    "The cluster": (
        "agent", "kubeconfig", "context", "namespace", "probe_namespace", "image_", "pull_policy", "pull_secrets",
    ),
    "The result": (
        "plan", "yes", "take_over", "force", "out", "metrics_file", "push_metrics",
        "post_events", "as_object", "progress_", "quiet", "--help",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Which cluster is meant."""

    kubeconfig: Path | None
    context: str | None


def _all(command: _F, options: tuple[Callable[[Any], Any], ...]) -> _F:
    for option in reversed(options):
        command = option(command)
    return command


def reaching(command: _F) -> _F:
    """What every command of a rollout takes."""
    return _all(
        command,
        (
            click.option("--kubeconfig", type=click.Path(path_type=Path), help="[default: KUBECONFIG, ~/.kube/config]"),
            click.option("--context", metavar="NAME", help="The context of the kubeconfig."),
            click.option("--json", "as_object", is_flag=True, help="Print one JSON object."),
        ),
    )


def driving(command: _F) -> _F:
    """What every command takes that restarts something."""
    return _all(
        reaching(command),
        (
            click.option("--plan", is_flag=True, help="Show every step, call, object and right; change nothing."),
            click.option("--yes", is_flag=True, help="Do not ask."),
            number("--steps", limits=(1, 100_000), unset="all", help="Stop after so many steps; resume goes on."),
            click.option("--out", type=FolderParameter(), metavar="DIR", help="Logs and reports of all steps go here."),
            click.option(
                "--metrics-file",
                type=FileParameter(),
                metavar="FILE",
                help="Metrics for node_exporter's textfile collector (*.prom), rewritten after each step.",
            ),
            click.option("--push-metrics", default="", metavar="URL", help="The same, to a Pushgateway."),
            progress.options,
            window_gate.options,
        ),
    )


def starting(command: _F) -> _F:
    """What shapes a new rollout."""
    return _all(
        driving(command),
        (
            click.option("--agent", default="", metavar="NAMESPACE/DAEMONSET", help="[default: found by what it runs]"),
            click.option("--first", multiple=True, metavar="NODE", help="These nodes before all others; repeat."),
            click.option("--zones", default="", metavar="A,B", help="Zones in this order; the others follow by name."),
            number("--width", limits=(1, 100), default=1, help="Nodes at a time, of one zone; the first is alone."),
            number("--probe", limits=(1.0, 600.0), default=5.0, help="Measure so long before each restart."),
            number("--bake", limits=(3.0, 3600.0), default=10.0, help="Measure so long after each restart."),
            number("--ready-within", limits=(1.0, 3600.0), default=120.0, help="Until the agent must be ready again."),
            number("--rate", limits=(1, 20_000), default=1000, help="New flows per second."),
            click.option(
                "--family", type=click.Choice(["ipv4", "ipv6", "dual"]), help="Of the probes.  [by the nodes]"
            ),
            click.option("--to", multiple=True, metavar="URL|node", help="Far ends. [default: ours on another node]"),
            click.option("--watch-profile", default="", metavar="NAME", help="Whose rules to watch. [by the CNI]"),
            click.option("--require-guard", is_flag=True, help="Restart no node without a guard that is ready."),
            click.option("--accept-inconclusive", is_flag=True, help="Go on after an inconclusive step."),
            click.option("--post-events", is_flag=True, help="Report each step as Kubernetes Events of its nodes."),
            click.option(
                "--namespace",
                default=DEFAULT_NAMESPACE,
                show_default=True,
                metavar="NAME",
                help="Where the pods that measure go.",
            ),
            click.option("--probe-namespace", default="", metavar="NAME", help="Where the probes' go. [--namespace]"),
            click.option("--image", "image_", default=DEFAULT_IMAGE, show_default=True, help="Of these pods."),
            click.option(
                "--pull-policy",
                type=click.Choice(["IfNotPresent", "Never", "Always"]),
                default="IfNotPresent",
                show_default=True,
                help="When the nodes pull it.",
            ),
            click.option("--pull-secret", "pull_secrets", multiple=True, metavar="NAME", help="For it; repeat."),
        ),
    )


def chosen(given: dict[str, Any], nodes: tuple[str, ...] = (), node_selector: str = "") -> RolloutChoices:
    """The choices of a new rollout, checked; raises ``InputError``. ``family`` empty: by the nodes."""
    from hitless.cluster import validation
    from hitless.errors import InputError
    from hitless.operations.rollout.values import RolloutChoices

    if nodes and node_selector:
        raise InputError("goes by labels, and --node by name", where="--node-selector", expected="one of the two")
    validation.check_rollout(
        namespaces=(given["namespace"], given["probe_namespace"]),
        nodes=(*nodes, *given["first"]),
        secrets=given["pull_secrets"],
        agent=given["agent"],
        selector=node_selector,
        image=given["image_"],
        profile=given["watch_profile"] or None,
        to=given["to"],
    )
    family: Literal["ipv4", "ipv6", "dual"] = given["family"] or "ipv4"
    return RolloutChoices(
        width=int(given["width"]),
        zones=tuple(filter(None, (one.strip() for one in given["zones"].split(",")))),
        first=given["first"],
        nodes=nodes,
        node_selector=node_selector,
        probe=float(given["probe"]),
        bake=float(given["bake"]),
        patience=float(given["ready_within"]),
        rate=int(given["rate"]),
        family=family,
        to=given["to"],
        require_guard=given["require_guard"],
        accept_inconclusive=given["accept_inconclusive"],
        post_events=given["post_events"],
        namespace=given["namespace"],
        probe_namespace=given["probe_namespace"],
        image=given["image_"],
        pull_policy=given["pull_policy"],
        pull_secrets=given["pull_secrets"],
        watch_profile=given["watch_profile"],
    )
