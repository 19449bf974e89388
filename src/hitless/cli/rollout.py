"""``hitless rollout``: a network DaemonSet restarted or changed node by node, driven from here, written down in the
cluster.

Exit codes: 0 every node was restarted and nothing was lost, 1 something was lost (it stopped there), 2 it stopped, or
the cost is not known, 3 error: nothing was begun.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hitless.cli import rollout_choices, rollout_view, rollout_work
from hitless.cli.exits import Exit
from hitless.cli.groups import Group
from hitless.cli.rollout_choices import SECTIONS, ClusterAccess
from hitless.cli.sections import Sections
from hitless.errors import InputError

if TYPE_CHECKING:
    from hitless.kube.api import Api
    from hitless.operations.rollout.record import StoredRollout
    from hitless.operations.rollout.values import Rollout, RolloutChange
    from hitless.survey.cni import Survey

__all__ = ["command"]

_CODES = (
    "Exit codes: 0 every node was restarted and nothing was lost, 1 something was lost (it stopped there), 2 it "
    "stopped for another reason or cannot tell, 3 error (nothing was begun), 130 interrupted."
)


@click.group(
    cls=Group,
    help="Restart or change a network DaemonSet node by node: each node probed before, during and after, a stop at the "
    "first loss. Progress is recorded in the cluster (ConfigMap kube-system/hitless-rollout), so that any operator can "
    "continue a rollout, and two never run at once.\n\n" + _CODES,
)
def command() -> None:
    pass


def _start(
    ctx: click.Context, given: dict[str, Any], change: Any, nodes: tuple[str, ...] = (), labels: str = ""
) -> int:
    choices = rollout_choices.chosen(given, nodes, labels)

    async def state(api: Api, survey: Survey, _: StoredRollout | None) -> Rollout:
        import msgspec

        from hitless.operations.rollout import preconditions

        completed = choices
        if not given["family"] and not any("ipv4" in node.internal_ips for node in survey.nodes):
            completed = msgspec.structs.replace(choices, family="ipv6")
        new, _seen = await preconditions.new(api, survey, change(survey), completed)
        return new

    return rollout_work.carry_out(rollout_work.Request(ctx, given, state))


@command.command(
    "restart",
    cls=Sections,
    sections=SECTIONS,
    epilog=_CODES,
    help="Restart the agent's pod on every node, one after another. Its DaemonSet is not changed.",
    examples={
        "hitless rollout restart --plan": "every step, call, object and right; nothing is changed",
        "hitless rollout restart --require-guard --width 2": "two nodes of a zone at a time, with a guard on each",
        "hitless rollout restart --first worker-1 --steps 1": "one node, to check it; then: hitless rollout resume",
    },
)
@click.option("--node", "nodes", multiple=True, metavar="NAME", help="These nodes only; repeat.")
@click.option("--node-selector", default="", metavar="KEY=VALUE,…", help="The nodes with these labels only.")
@rollout_choices.starting
@click.pass_context
def restart(ctx: click.Context, /, nodes: tuple[str, ...], node_selector: str, **given: Any) -> int:
    def change(_: Survey) -> RolloutChange:
        from hitless.operations.rollout.values import RolloutChange

        return RolloutChange("restart", "restart")

    return _start(ctx, given, change, nodes, node_selector)


@command.command(
    "image",
    cls=Sections,
    sections=SECTIONS,
    epilog=_CODES,
    help="Give containers of the DaemonSet other images, node by node. Meanwhile updateStrategy is OnDelete.",
    examples={
        "hitless rollout image kube-flannel=docker.io/flannel/flannel:v0.28.9 --plan": "what would be done",
        "hitless rollout undo": "the former revision again, node by node",
    },
)
@click.argument("images", nargs=-1, required=True, metavar="CONTAINER=IMAGE…")
@rollout_choices.starting
@click.pass_context
def image(ctx: click.Context, /, images: tuple[str, ...], **given: Any) -> int:
    def change(survey: Survey) -> RolloutChange:
        from hitless.operations.rollout import preconditions

        assert survey.cni.daemon_set is not None
        return preconditions.image(survey.cni.daemon_set, images)

    return _start(ctx, given, change)


@command.command(
    "patch",
    cls=Sections,
    sections=SECTIONS,
    epilog=_CODES,
    help="Change the DaemonSet's pod template by a strategic merge patch (YAML or JSON), node by node: arguments, "
    "environment, another ConfigMap.",
    examples={"hitless rollout patch arguments.yaml --plan": "what would be done with the patch in that file"},
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@rollout_choices.starting
@click.pass_context
def patch(ctx: click.Context, /, file: Path, **given: Any) -> int:
    def change(_: Survey) -> RolloutChange:
        from hitless.operations.rollout import preconditions

        return preconditions.patch(_document(file), str(file))

    return _start(ctx, given, change)


def _document(file: Path) -> Any:
    import yaml

    from hitless.kernel import files

    try:
        return yaml.safe_load(files.read(file).decode())
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(file)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:300]
        raise InputError(f"is not YAML: {problem}", where=str(file), expected="a patch of the pod template") from error


_GOES_ON = {
    "Go on": ("take_over", "steps", "plan", "yes"),
    "When (maintenance windows)": SECTIONS["When (maintenance windows)"],
    "Options": (),
}


def _going_on(ctx: click.Context, given: dict[str, Any], take_over: bool, *, undo: bool) -> int:
    async def state(api: Api, survey: Survey, found: StoredRollout | None) -> Rollout:
        from hitless.operations.rollout import node_order, observation, preconditions

        assert found is not None, "checked before"
        if undo:
            return await preconditions.undone(api, found.state)
        if found.state.phase == "ended":
            raise InputError(
                "the rollout has ended: nothing is left to do",
                where="rollout resume",
                expected="a rollout that stopped (hitless rollout status)",
            )
        if found.state.phase != "rolling":
            return found.state
        seen = await observation.see(api, found.state.namespace, found.state.name)
        return node_order.reconciled(found.state, seen)

    return rollout_work.carry_out(rollout_work.Request(ctx, given, state, resumes=True, take_over=take_over))


@command.command(
    "resume",
    cls=Sections,
    sections=_GOES_ON,
    epilog=_CODES,
    help="Continue the recorded rollout, also another operator's. No node is restarted twice.",
    examples={
        "hitless rollout resume": "after it stopped, or its driver died",
        "hitless rollout resume --take-over": "its driver is cut off, or yours from now on",
    },
)
@click.option("--take-over", is_flag=True, help="Also while another driver is active, or where that is not known.")
@rollout_choices.driving
@click.pass_context
def resume(ctx: click.Context, /, take_over: bool, **given: Any) -> int:
    return _going_on(ctx, given, take_over, undo=False)


@command.command(
    "undo",
    cls=Sections,
    sections=_GOES_ON,
    epilog=_CODES,
    help="Put the former revision back on every node that has the new one, node by node.",
    examples={"hitless rollout undo": "after a stop, or when it has ended"},
)
@click.option("--take-over", is_flag=True, help="Also while another driver is active, or where that is not known.")
@rollout_choices.driving
@click.pass_context
def undo(ctx: click.Context, /, take_over: bool, **given: Any) -> int:
    return _going_on(ctx, given, take_over, undo=True)


@command.command(
    "status",
    cls=Sections,
    help="Show the rollout: who drives it, which nodes are done, why it stopped. Changes nothing.\n\n" + _CODES,
    examples={"hitless rollout status --json": "for machines"},
)
@rollout_choices.reaching
def status(kubeconfig: Path | None, context: str | None, as_object: bool) -> int:
    async def work() -> StoredRollout:
        from hitless.kube.api import Patience, connect
        from hitless.operations.rollout import record

        async with connect(kubeconfig, context, patience=Patience(total=20.0)) as api:
            return record.found_or_missing(await record.read_record(api))

    found = asyncio.run(work())
    return rollout_view.show(found.state, None, as_object=as_object, driver=found.driver)


@command.command(
    "end",
    cls=Sections,
    help="Give up a stopped rollout: the DaemonSet's updateStrategy as it was. With RollingUpdate its controller then "
    "restarts, by itself and unmeasured, every pod that has not the latest revision.",
    examples={"hitless rollout end": "asks first"},
)
@click.option("--take-over", is_flag=True, help="Also while another driver is active, or where that is not known.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@rollout_choices.reaching
def end(kubeconfig: Path | None, context: str | None, as_object: bool, take_over: bool, yes: bool) -> int:
    from hitless.cli.rollout_end import give_up

    state = give_up(ClusterAccess(kubeconfig, context), take_over=take_over, yes=yes)
    if state is None:
        return Exit.PASS
    rollout_view.show(state, None, as_object=as_object)
    return Exit.PASS
