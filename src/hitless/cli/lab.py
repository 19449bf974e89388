"""``hitless lab``: a small cluster in network namespaces. up, exec, status, down.

Promise: ``up`` makes a whole lab or nothing, and says what is missing; what was made stays until ``down``, also
if the output of ``up`` was lost; ``exec`` becomes the command (same standard streams and exit code); ``down``
removes everything, also after a crash. Labs side by side have names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from hitless.cli.exits import HELP, Exit
from hitless.cli.groups import Group
from hitless.cli.interrupts import as_interrupt, undisturbed
from hitless.cli.lab_agents import agent_options, lease_source, orders, wiring_options
from hitless.cli.lab_view import describe, draw
from hitless.cli.numbers import number
from hitless.cli.sections import Sections
from hitless.errors import InputError, MissingError
from hitless.kernel import processes
from hitless.lab import building, features, supervision
from hitless.lab.agents import AGENTS
from hitless.lab.keeper_client import KeeperHandle, guests
from hitless.lab.plans import LIMITS, LabPlan, Stack, check_name
from hitless.lab.states import MARK, LabState, Store
from hitless.model.families import Backend

__all__ = ["command"]

_AGENTS_WITHIN = 60.0  # seconds for an agent to become ready with 5,000 Services on two slow cores
_SILENT = 2.0  # seconds without a message
_REMEDY = (
    "the lab was taken down again. To look why: hitless lab up without an agent, then start it by hand with "
    "hitless lab exec node0 -- …"
)

_NAME = "lab"  # of a lab whose maker gave it none
_name = click.option("--name", default=_NAME, show_default=True, help="Name of the lab; several can be up at once.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(
    cls=Group,
    help="A small cluster in network namespaces: up, exec, status, down.\n\n" + HELP,
    epilog="Examples: hitless lab up --agent flannel-0.28; hitless lab exec node0 -- ip addr; hitless lab down.",
)
def command() -> None:
    pass


@command.command(
    cls=Sections,
    help="Build a lab; it stays until `hitless lab down`.",
    examples={
        "hitless lab up --agent flannel-0.28": "one node, one pod, an agent that is a stand-in",
        "hitless lab up --nodes 3 --pods 2 --backend legacy --name big": "a second one beside it",
        "hitless lab up --nodes 2 --overlay vxlan --agent hitless --agent-command "
        "'node1=flanneld -etcd-endpoints={etcd} -iface={iface} -ip-masq'": "a mixed cluster, with an etcd of its own",
        "hitless lab up --check": "what does this machine lack for it?",
    },
)
@_name
@number("--nodes", limits=LIMITS["nodes"], default=1, help="Nodes.")
@number("--pods", limits=LIMITS["pods_per_node"], default=1, help="Pods on each node.")
@click.option("--family", type=click.Choice([str(each) for each in Stack]), default="dual", show_default=True)
@click.option(
    "--backend",
    type=click.Choice([str(each) for each in Backend]),
    default="nft",
    show_default=True,
    help="iptables-nft, iptables-legacy, or native nftables (the node's own rules are iptables-nft then).",
)
@number("--services", limits=LIMITS["services"], default=0, help="Services in kube-proxy's rules.")
@number("--far-addresses", limits=LIMITS["far_addresses"], default=4, help="Addresses of the far end, per family.")
@click.option(
    "--forward-policy",
    type=click.Choice(["accept", "drop"]),
    default="accept",
    show_default=True,
    help="drop: only the agent's FLANNEL-FWD lets pod traffic pass.",
)
@wiring_options
@agent_options
@click.option("--check", is_flag=True, help="Say what this machine has and lacks for such a lab; build nothing.")
@_json
def up(
    name: str,
    nodes: int,
    pods: int,
    family: str,
    backend: str,
    services: int,
    far_addresses: int,
    forward_policy: str,
    overlay: str | None,
    underlay: str,
    agents: tuple[str, ...],
    agent_commands: tuple[str, ...],
    ready: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> int:
    plan = LabPlan(
        nodes,
        pods,
        Stack(family),
        Backend(backend),
        services,
        far_addresses,
        forward_policy,
        overlay=overlay or "",
        wiring=underlay,
        leases=lease_source(agent_commands),
    )
    if check:
        return _check(plan, as_json)
    ordered = orders(agents, agent_commands, ready, plan)
    begin = time.monotonic()
    with as_interrupt():
        state = _build(Store(), check_name(name), plan, ordered)
    try:
        _present(state, time.monotonic() - begin, as_json)
    except OSError:  # the reader is gone, or the disk is full: the output is lost, and not the lab
        with contextlib.suppress(OSError):
            click.echo(f"{_title(name)} is up nevertheless; to remove it: hitless lab down{_option(name)}", err=True)
        raise
    return Exit.PASS


def _present(state: LabState, seconds: float, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(describe(state), indent=2))
        return
    click.echo(f"{_title(state.name)} is up ({seconds:.1f} s)\n")
    cluster = state.cluster()
    draw(cluster)
    ready_on: dict[str, list[str]] = {}
    for node, each in supervision.read_status(state.keep).items():
        ready_on.setdefault(str(each["agent"]), []).append(node)
    for agent, nodes in ready_on.items():
        click.echo(f"\n{agent} is ready on {', '.join(nodes)}{_stand_in(agent)}")
    if not state.agent:
        click.echo("\nno network agent runs: pods reach the outside only with one, e.g. --agent flannel-0.28")
    pod = cluster.pods[0].name if cluster.pods else "node0"
    option = _option(state.name)
    target = cluster.far_end.address if state.agent or not cluster.pods else cluster.nodes[0].address
    click.echo(f"\ntry:  hitless lab exec{option} {pod} -- ping -c1 {target}")
    click.echo(f"then: hitless lab down{option}")


def _stand_in(name: str) -> str:
    """That the agent is none, where it replays another's commands."""
    agent = AGENTS.get(name)
    return f" (a stand-in: replays {agent.replays})" if agent is not None and agent.replays else ""


def _option(name: str) -> str:
    return "" if name == _NAME else f" --name {name}"


def _build(store: Store, name: str, plan: LabPlan, ordered: Sequence[supervision.Order]) -> LabState:
    """Build, write down, cut loose, wait for the agent; a failure or Ctrl-C in between leaves nothing."""
    reserved: list[LabState] = []

    def reserve(keep: KeeperHandle) -> None:
        state = LabState.new(name, keep, plan)
        store.reserve(state)
        reserved.append(state)

    try:
        lab = building.up(plan, stays=True, started=reserve)
        try:
            agent = ", ".join(f"{one.node}={one.name or one.command}".removeprefix("=") for one in ordered)
            state = dataclasses.replace(reserved[0], agent=agent)
            state = store.finish(state, lab.members)
            if ordered:
                lab.keeper.spawn(
                    [sys.executable, "-P", "-m", "hitless.lab.supervision"],
                    environment={MARK: state.mark},
                    stdin=supervision.encode(ordered, state),
                    log=supervision.LOG,
                )
                named = {one.node for one in ordered}
                _wait_for_agents(state.keep, plan.nodes if "" in named else len(named))
            lab.keeper.stay()
        except BaseException:
            with undisturbed():
                lab.close()
            raise
    except BaseException:
        if reserved:
            with undisturbed():
                store.down(name)
        raise
    return state


def _check(plan: LabPlan, as_json: bool) -> int:
    found = features.probe(plan)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) | {"present": each.present} for each in found], indent=2))
    else:
        for each in found:
            click.echo(f"{'yes' if each.present else 'NO '}  {each.name}")
            if not each.present:
                click.echo(f"     {each.problem}; {each.remedy}")
    return Exit.PASS if all(each.present for each in found) else Exit.ERROR


def _wait_for_agents(keep: KeeperHandle, nodes: int) -> None:
    """Until all are ready; raises ``MissingError`` with their messages when one is not, or not in time."""
    begin, reported = time.monotonic(), False
    while (waited := time.monotonic() - begin) < _AGENTS_WITHIN:
        statuses = supervision.read_status(keep)
        if len(statuses) == nodes and all(each["ready"] for each in statuses.values()):
            return
        if failed := [f"{node}: {each['detail']}" for node, each in statuses.items() if each["step"] == "failed"]:
            raise MissingError("; ".join(failed), remedy=_REMEDY)
        if waited > _SILENT and not reported:
            reported = True
            click.echo("the lab is built; waiting for the agent to become ready …", err=True)
        time.sleep(0.05)
    raise MissingError(f"the agent is not ready after {_AGENTS_WITHIN:g} s", remedy=_REMEDY)


def _title(name: str) -> str:
    return "the lab" if name == _NAME else f"lab {name}"


@command.command(
    "exec",
    cls=Sections,
    examples={"hitless lab exec node0-pod0 -- ping -c1 198.51.100.1": "from a pod"},
    help="Run a command in a place of the lab: node0, node0-pod0, underlay, far-end.",
    short_help="Run a command in a place of the lab.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@_name
@click.argument("place")
@click.argument("argv", metavar="COMMAND…", nargs=-1, type=click.UNPROCESSED, required=True)
def exec_(name: str, place: str, argv: Sequence[str]) -> int:
    # click passes "--" on, and the program that enters the place would take it for its own
    line = list(argv[1:] if argv[0] == "--" else argv)
    if not line:
        raise InputError("names no command", where="lab exec", expected=f"lab exec {place} -- PROGRAM ARGS…")
    if argv[0] != "--" and argv[0].startswith("-"):
        expected = f"options in front of it: hitless lab exec --name NAME {place} -- PROGRAM ARGS…"
        raise InputError("comes after the place", where=argv[0].partition("=")[0], expected=expected)
    state = Store().read(name)
    places = state.cluster().places
    if place not in places:
        raise InputError(f"{place!r} is not a place of lab {name}", expected=", ".join(places))
    # entering a mount namespace forgets the working directory
    held = next(each for each in state.held if each.name == place)
    with contextlib.suppress(FileNotFoundError):  # it is gone
        here = Path.cwd()
        if (held.root_path(state.keep) / str(here).lstrip("/")).is_dir():
            line = ["env", f"--chdir={here}", *line]
    sys.stdout.flush()
    processes.replace(line, namespace=places[place], environment={MARK: state.mark})


@command.command(
    cls=Sections,
    help="Show the labs of this user, the dead ones too.",
    examples={"hitless lab status --json": "for machines"},
)
@click.option("--name", default="", help="Only this one.")
@_json
def status(name: str, as_json: bool) -> int:
    store = Store()
    found = []
    for known in [name] if name else store.names():
        try:
            found.append(store.read(known))
        except InputError as error:
            if name:
                raise
            click.echo(f"hitless: {error}", err=True)
    if as_json:
        click.echo(json.dumps([describe(state) for state in found], indent=2))
        return Exit.PASS
    if not found:
        click.echo("no lab is up")
    for state in found:
        kind = "up" if state.alive and state.held else "being built" if state.alive else "dead (hitless lab down)"
        plan = state.plan
        click.echo(
            f"{state.name}: {kind}, {plan.nodes} node(s), {plan.nodes * plan.pods_per_node} pod(s), {plan.family}, "
            f"{plan.backend}, {plan.services} Services{f', {plan.overlay}' if plan.overlay else ''}"
        )
        for node, each in (supervision.read_status(state.keep) if state.alive else {}).items():
            step = "ready" if each["ready"] else each["step"]
            line = f"{each['agent']} {step}, process {each['pid']}, {each['restarts']} restart(s)"
            click.echo(f"  {node}: {line}{_stand_in(str(each['agent']))}")
    return Exit.PASS


@command.command(
    cls=Sections,
    help="Take a lab down, whatever state it is in.",
    examples={
        "hitless lab down": "the one without a name",
        "hitless lab down --all --dry-run": "what would be taken down",
    },
)
@click.option("--name", default=_NAME, show_default=True, help="Which lab.")
@click.option("--all", "every", is_flag=True, help="All labs of this user, but for those that are in use.")
@click.option("--force", is_flag=True, help="With --all: those that are being built, or in which commands run, too.")
@click.option("--dry-run", is_flag=True, help="Say what would be taken down, and change nothing.")
@click.pass_context
def down(ctx: click.Context, name: str, every: bool, force: bool, dry_run: bool) -> int:
    if every and ctx.get_parameter_source("name") is click.core.ParameterSource.COMMANDLINE:
        raise InputError("names one lab, and --all takes every one", where="--name", expected="one of the two")
    if force and not every:
        raise InputError("is for --all; a lab that is named is taken down in any case", where="--force")
    store = Store()
    names = list(store.names()) if every else [check_name(name)]
    in_use = {each: why for each in names if every and not force and (why := _in_use(store, each))}
    for each, why in in_use.items():
        click.echo(f"{_title(each)} is left alone: {why}; --force, or hitless lab down --name {each}, ends it")
    ending = [each for each in names if each not in in_use]
    if dry_run:
        there = [each for each in ending if each in store.names()]
        for each in there:
            click.echo(f"{_title(each)} would be taken down")
    else:
        there = [each for each in ending if store.down(each)]
        for each in there:
            click.echo(f"{_title(each)} is gone")
    if not there and not in_use:
        click.echo("no lab was up" if every else f"{_title(name)} was not up")
    return Exit.PASS


def _in_use(store: Store, name: str) -> str:
    """What runs in a lab besides its own processes, empty where nothing does."""
    try:
        state = store.read(name)
    except InputError:  # damaged: it cannot be used
        return ""
    if not state.alive:
        return ""
    if not state.held:
        return "it is being built"
    pids = guests(state.keep, state.inodes)
    return f"commands run in it (process {', '.join(str(pid) for pid in pids[:5])})" if pids else ""


@command.command(
    "stand-in",
    help="Run a stand-in for a network agent here (in a lab's node: with `hitless lab exec`).",
    short_help="Run a stand-in for a network agent here.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("argv", metavar="[WORDS]...", nargs=-1, type=click.UNPROCESSED)
def stand_in(argv: Sequence[str]) -> int:
    from hitless.lab.standins.__main__ import main

    try:
        return main(list(argv))
    except SystemExit as error:  # argparse has printed what is wrong
        return Exit.ERROR if error.code else Exit.PASS
