"""The options of ``hitless drill --cluster`` and their values.

Problem: one command drills the lab and clusters, and options of one have no meaning for the other. Promise: a given
option without effect is refused, and so are two that contradict each other; the values are one object. The cluster is
not imported or queried here. Next stages: ``drill_cluster``, ``drill_cleanup``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from hitless import __version__
from hitless.cli import window_gate
from hitless.cli.numbers import number
from hitless.cluster.choices import DEFAULT_NAMESPACE, Choices
from hitless.errors import InputError

__all__ = ["DEFAULT_IMAGE", "asked", "choices", "options"]

DEFAULT_IMAGE = f"ghcr.io/hitless/hitless:{__version__}"

_LAB_ONLY = (
    "agents",
    "agent_name",
    "ready_command",
    "ready_http",
    "judge",
    "stop_for",
    "backend",
    "services",
    "forward_policy",
    "agent_commands",
    "overlay",
    "underlay",
    "replace_by",
)
_BOTH = frozenset({"count", "at_once"})
"""Options of ``--cluster`` that are also valid in the lab."""

_TYPED = click.core.ParameterSource.COMMANDLINE
_CLEANUP = frozenset(
    {"cluster", "cleanup", "dry_run", "yes", "force", "kubeconfig", "context"}
    | {"namespaces", "probe_namespace", "as_object", "quiet", "progress_"}
)
"""The options that are valid with --cleanup; all others are about a drill."""
_NO_DRY_RUN = {"yes": "asks for nothing", "as_object": "prints YAML"}
"""Options that contradict a drill's dry run, and why."""

_F = TypeVar("_F", bound=Callable[..., Any])


def options(command: _F) -> _F:
    """The options of ``--cluster``."""
    for option in reversed(
        (
            click.option("--cluster", is_flag=True, help="Drill a Kubernetes cluster's own agent."),
            click.option("--cleanup", is_flag=True, help="List what drills left in a cluster, ask, and remove it."),
            click.option("--dry-run", is_flag=True, help="With --cluster or --cleanup: say all, change nothing."),
            click.option("--yes", is_flag=True, help="With --cluster or --cleanup: do not ask."),
            click.option("--force", is_flag=True, help="With --cleanup: drills that are alive too."),
            click.option("--kubeconfig", type=click.Path(path_type=Path), help="[default: KUBECONFIG, ~/.kube/config]"),
            click.option("--context", metavar="NAME", help="The context of the kubeconfig."),
            click.option("--node", "nodes", multiple=True, metavar="NAME", help="A node to drill; repeat."),
            number(
                "--nodes",
                limits=(1, 10_000),
                unset="1",
                help="So many nodes; in the lab with an agent on each, and 2 with --overlay.",
                name="count",
            ),
            click.option("--node-selector", default="", metavar="KEY=VALUE,…", help="Of the nodes with these labels."),
            click.option("--agent", default="", metavar="NAMESPACE/DAEMONSET", help="[default: found by what it runs]"),
            number("--at-once", limits=(1, 10_000), default=1, help="Nodes whose agents are restarted at a time."),
            click.option("--to", multiple=True, metavar="URL|node", help="Far ends. [default: ours on another node]"),
            click.option("--abort-after", metavar="LOSSES|SECONDSs", help="Stop when that is lost: 500, or 10s."),
            click.option(
                "--namespace",
                "namespaces",
                multiple=True,
                metavar="NAME",
                help=f"Where the drill's pods go; with --cleanup repeat.  [default: {DEFAULT_NAMESPACE}]",
            ),
            click.option(
                "--probe-namespace",
                default="",
                metavar="NAME",
                help="Where the probes' pods go.  [default: --namespace]",
            ),
            click.option("--image", default=DEFAULT_IMAGE, show_default=True, help="The pods' image."),
            click.option(
                "--pull-policy",
                type=click.Choice(["IfNotPresent", "Never", "Always"]),
                default="IfNotPresent",
                show_default=True,
                help="When the nodes pull the image.",
            ),
            click.option("--pull-secret", "pull_secrets", multiple=True, metavar="NAME", help="For the image; repeat."),
            click.option("--round-robin", is_flag=True, help="The nodes whose turn it is: for drills on a schedule."),
            click.option("--post-events", is_flag=True, help="Report the result as Kubernetes Events of the nodes."),
            click.option("--push-metrics", default="", metavar="URL", help="Give the result to this Pushgateway."),
            click.option("--watch-profile", metavar="NAME", help="Whose rules the watch reads. [default: by the CNI]"),
        )
    ):
        command = option(command)
    return command


def asked(ctx: click.Context, given: Mapping[str, Any]) -> bool:
    """Whether the drill is of a cluster; raises ``InputError`` for options that do not apply."""
    meant = bool(given["cluster"] or given["cleanup"])
    names = {str(one.name): one.opts[0] for one in ctx.command.params}
    typed = {name: flag for name, flag in names.items() if ctx.get_parameter_source(name) is _TYPED}
    if given["cleanup"]:
        for name, flag in typed.items():
            if name not in _CLEANUP:
                raise InputError("does not go with --cleanup, which drills nothing", where=flag)
        if given["dry_run"] and given["yes"]:
            raise InputError("contradicts --dry-run, which removes nothing", where="--yes", expected="one of the two")
        return True
    for name, flag in typed.items():
        if name == "agent" and not meant:
            raise InputError("is for clusters", where=flag, expected="--agents NAME,… in the lab, or --cluster with it")
        if name in (_LAB_ONLY if meant else given) and name not in _BOTH:
            raise InputError("does not go with" + (" --cluster" if meant else "out --cluster"), where=flag)
        if name == "force":
            raise InputError("does not go without --cleanup", where=flag)
        if name in _NO_DRY_RUN and given["dry_run"]:
            raise InputError(f"contradicts --dry-run, which {_NO_DRY_RUN[name]}", where=flag)
    return meant


def choices(ctx: click.Context, given: Mapping[str, Any]) -> Choices:
    """The values of the options of ``--cluster``."""
    rate, family = (ctx.get_parameter_source(name) is _TYPED for name in ("rate", "family"))
    return Choices(**given, rate_given=rate, family_given=family, windows=window_gate.configmap())
