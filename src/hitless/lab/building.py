"""Building a lab, and taking it down: the plan becomes namespaces, links, routes and rules.

Problem: measurements in a half-built lab are wrong, and a lab that is not taken down stays. Promise: ``up`` returns a
complete lab, or raises and leaves nothing behind; when something is missing on this machine the error names it and the
remedy (``hitless.lab.features``). The lab ends with ``close`` (or the ``with`` block), with this process, or with its
keeper: always as a whole, because one keeper holds everything (``hitless.kernel.keeper``). Next stages:
``hitless.drill`` runs agents, watch and probe in it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType

from hitless.errors import KernelError, ProgramError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.lab import features, kube, overlays, plain_names, topology
from hitless.lab.clusters import LabFarEnd, LabNode, LabPod, Underlay
from hitless.lab.keeper_client import Keeper, KeeperHandle
from hitless.lab.members import LabMembers, view
from hitless.lab.overlays import SHARED
from hitless.lab.plans import LabPlan
from hitless.model.families import Backend, Family

__all__ = ["Lab", "LabMembers", "restore", "up", "up_async", "view"]

_WORKERS = 4  # more do not help: the kernel serialises link changes (rtnl), and two are waiting for programs to start


class Lab:
    """A running lab; ``close`` or leaving the ``with`` block takes it down."""

    def __init__(self, members: LabMembers, keeper: Keeper) -> None:
        self.members = members
        self.keeper = keeper
        self.cluster = view(members, keeper.keep)

    @property
    def plan(self) -> LabPlan:
        """What it was built from."""
        return self.cluster.plan

    @property
    def nodes(self) -> tuple[LabNode, ...]:
        """Its nodes, node0 first."""
        return self.cluster.nodes

    @property
    def pods(self) -> tuple[LabPod, ...]:
        """Every pod of every node."""
        return self.cluster.pods

    @property
    def far_end(self) -> LabFarEnd:
        """The addresses outside the cluster."""
        return self.cluster.far_end

    @property
    def underlay(self) -> Underlay:
        """The switch between nodes and far end."""
        return self.cluster.underlay

    def close(self) -> None:
        """Take the lab down: every namespace, and every process that still runs in one."""
        self.keeper.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def up(
    plan: LabPlan | None = None, *, stays: bool = False, started: Callable[[KeeperHandle], None] = lambda _keep: None
) -> Lab:
    """Build the lab of ``plan``; on an error nothing is left.

    Raises ``MissingError`` when this machine lacks a program, a kernel feature or a permission. ``stays`` prepares for
    ``Keeper.stay``: the lab may then outlive this process. ``started`` is called with the keeper before anything is
    built.
    """
    plan = plan or LabPlan()
    features.require_programs(plan)
    keeper = Keeper(stays=stays)
    try:
        started(keeper.keep)
        return Lab(_build(plan, keeper), keeper)
    except (KernelError, ProgramError) as error:
        keeper.close()
        features.explain(plan, error)
        raise
    except BaseException:
        keeper.close()
        raise


@asynccontextmanager
async def up_async(plan: LabPlan | None = None) -> AsyncIterator[Lab]:
    """As ``up``, for an event loop: built and taken down in a thread, so that the loop is not blocked."""
    lab = await asyncio.to_thread(up, plan)
    try:
        yield lab
    finally:
        await asyncio.to_thread(lab.close)


def _build(plan: LabPlan, keeper: Keeper) -> LabMembers:
    programs = plain_names.replaced(plan.rules_backend)
    shared = SHARED if plan.overlay else ""
    held = {
        name: keeper.make(
            name, mount=place == "node", sysctls=topology.sysctls(place), programs=programs, shared=shared
        )
        for name, place in _places(plan)
    }
    members = LabMembers(plan, held)
    keep = keeper.keep

    def net(name: str) -> str:
        return f"/proc/{keep.pid}/fd/{held[name].net}"

    def ip(name: str, text: str) -> None:
        _batch(held[name].namespace(keep), text)

    # all links of the underlay first: a node configures its end of them
    ip("underlay", topology.underlay(plan, lambda i: net(plan.node_name(i)), net("far-end")))

    def node(i: int) -> None:
        name = plan.node_name(i)
        ip(name, topology.node(plan, i, lambda p: net(plan.pod_name(i, p))))
        for p in range(plan.pods_per_node):
            ip(plan.pod_name(i, p), topology.pod(plan, i, p))

    tasks: list[Callable[[], None]] = [lambda: ip("far-end", topology.far_end(plan))]
    tasks += [partial(node, i) for i in range(plan.nodes)]

    def rules(i: int, family: Family, shared: str) -> None:
        text = shared + kube.own_rules(plan, family, i)
        # flush: the tables are empty, and iptables-nft takes ten times as long for 28,000 rules with --noflush
        restore(held[plan.node_name(i)].namespace(keep), plan.rules_backend, family, text, flush=True)

    for family in plan.families if plan.kubernetes else ():
        shared = kube.cluster_rules(plan, family)
        tasks += [partial(rules, i, family, shared) for i in range(plan.nodes)]
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="lab") as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()
    if plan.overlay:
        overlays.prepare(members, keeper)
    return members


def _batch(namespace: Namespace, text: str) -> None:
    """``ip -batch``, with the failing line in the error: the program reports only its number."""
    command = ["ip", "-batch", "-"]
    try:
        processes.run(command, namespace=namespace, stdin=text)
    except ProgramError as error:
        failed = re.search(r"^Command failed -:(\d+)", error.stderr, re.MULTILINE)
        if failed is None:
            raise
        line = text.splitlines()[int(failed[1]) - 1]
        reason = error.stderr.splitlines()[0]
        raise ProgramError(command, error.returncode, f"{namespace.name}: {line}: {reason}") from error


def _places(plan: LabPlan) -> list[tuple[str, str]]:
    places = [("underlay", "underlay"), ("far-end", "far_end")]
    for i in range(plan.nodes):
        places.append((plan.node_name(i), "node"))
        places += [(plan.pod_name(i, p), "pod") for p in range(plan.pods_per_node)]
    return places


def restore(namespace: Namespace, backend: Backend, family: Family, text: str, *, flush: bool = False) -> None:
    """Load rules with one ``iptables-restore`` (``--noflush`` unless ``flush``): one transaction per table."""
    line = [backend.tool(family, "-restore"), "--wait", *([] if flush else ["--noflush"])]
    processes.run(line, namespace=namespace, stdin=text, timeout=300)
