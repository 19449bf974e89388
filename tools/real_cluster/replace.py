"""flanneld's DaemonSet runs our agent, node by node, and flanneld again, while pods on all nodes open connections.

Promise: each step is counted for itself, pod to pod and pod to outside, with what changed in the kernel meanwhile; one
restart of flanneld alone comes first, so that it is seen that a loss would be noticed. Next stage: ``checks``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from tools.real_cluster import canal, changes, traffic
from tools.real_cluster.drills import far_end
from tools.real_cluster.folder import PODS, ROOT, Folder, fail, say
from tools.real_cluster.images import agent_tag
from tools.real_cluster.node import Node
from tools.real_cluster.running import Row, in_cluster

_SYSTEM = "kube-system"
_CHART = "hitless-agent"
_CONTAINER = "kube-flannel"
_RATE = 200  # on each node, each way
_HOLD = 5.0  # seconds after each step
_ROUNDS = 6
_PATIENCE = 120.0
_HELM = str(ROOT / ".venv/bin/helm")
_GUARD = ("--namespace", "hitless-system")
_INSTALL = ("upgrade", "--install", "hitless", "deploy/chart", "--create-namespace", "--wait")
_CHANGES = 3  # so many are shown


@dataclass(frozen=True)
class _Phase:
    """A step's name and interval. ``free``: nothing may be lost. ``still``: nothing may change in the kernel."""

    name: str
    begin: float
    end: float
    free: bool
    still: bool


@dataclass
class _Run:
    folder: Folder
    nodes: Sequence[Node]
    phases: list[_Phase] = field(default_factory=list)
    figures: list[tuple[_Phase, dict[str, traffic.Count], list[str]]] = field(default_factory=list)
    late: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, *, free: bool = True, still: bool = False) -> Iterator[None]:
        begin = time.time()
        yield
        time.sleep(_HOLD)
        self.phases.append(_Phase(name, begin, time.time(), free, still))
        say(f"replace: {name}: {self.phases[-1].end - begin:.0f} s")

    def each(self, restart: Callable[[Node], None]) -> None:
        """A step on one node after another; between them the cluster is mixed."""
        for node in self.nodes:
            restart(node)
            time.sleep(_HOLD)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """With the guard on every node."""
        with ExitStack() as stack:
            with self.phase("guard installed"):
                stack.enter_context(_guard(self.folder))
            yield


def by_image(folder: Folder, nodes: list[Node]) -> Row:
    """The DaemonSet's image is replaced by ours, and given back."""
    _need_image(folder)
    canals = _Pods(folder, "k8s-app=canal")
    flannel = _get(folder, "daemonset", canal.NAME, "{.spec.template.spec.containers[0].image}")
    with _measured(folder, nodes) as one:
        with one.phase("flanneld restarted, no guard", free=False):
            canals.restart(nodes[0])
        before = _attributes(folder)
        with one.guarded() if _removes_rules(flannel) else nullcontext(), one.phase("flanneld replaced"):
            _set_image(folder, agent_tag(), "OnDelete")
            one.each(canals.restart)
        attributes = _attributes(folder)
        _restarts(one, canals)
        with one.guarded(), one.phase("given back, guarded"):
            _set_image(folder, flannel, "OnDelete")
            one.each(canals.restart)
        _set_image(folder, flannel, "RollingUpdate")
        after = _attributes(folder)
    return _row(one, "" if before == attributes == after else f"annotations changed: {before} {attributes} {after}")


def by_chart(folder: Folder, nodes: list[Node]) -> Row:
    """flanneld's DaemonSet is deleted, the agent's chart installed, and the other way round."""
    _need_image(folder)
    canals, agents = _Pods(folder, "k8s-app=canal"), _Pods(folder, "app.kubernetes.io/name=hitless-agent")
    image = _get(folder, "daemonset", canal.NAME, "{.spec.template.spec.containers[0].image}")
    version = image.rpartition(":v")[2].partition("-")[0]
    helm = [_HELM, "--namespace", _SYSTEM]
    with _measured(folder, nodes) as one:
        before = _attributes(folder)
        guarded = one.guarded() if _removes_rules(image) else nullcontext()
        with guarded, one.phase("DaemonSet deleted, chart installed"):
            folder.kubectl("-n", _SYSTEM, "delete", "daemonset", canal.NAME)
            canals.gone()
            settings = f"network={PODS},cniConfDir=,healthzPort=8081,image.pullPolicy=Never"
            _helm(folder, [*helm, "install", _CHART, "deploy/agent-chart", "--wait", "--set", settings])
        attributes = _attributes(folder)
        _restarts(one, agents)
        with one.guarded(), one.phase("chart uninstalled, flanneld back, guarded"):
            _helm(folder, [*helm, "uninstall", _CHART, "--wait"])
            agents.gone()
            canal.install(folder, version)
        after = _attributes(folder)
    return _row(one, "" if before == attributes == after else f"annotations changed: {before} {attributes} {after}")


def _removes_rules(image: str) -> bool:
    """Whether this flanneld removes its rules when it ends (before 0.27): then only the guard carries new flows."""
    numbers = [int(one) for one in image.rpartition(":v")[2].partition("-")[0].split(".")[:2]]
    return numbers < [0, 27]


def _restarts(one: _Run, pods: _Pods) -> None:
    """Ours restarted on one node after another, and on all at once, several times."""
    for number in range(1, _ROUNDS + 1):
        with one.phase(f"agent restarted, node by node, {number}", still=True):
            one.each(pods.restart)
        with one.phase(f"all agents at once, {number}", still=True):
            pods.restart_all()


@contextmanager
def _measured(folder: Folder, nodes: Sequence[Node]) -> Iterator[_Run]:
    """The steps' run, under traffic; their figures are there when it is left."""
    one = _Run(folder, nodes)
    with far_end(folder), changes.watched(nodes) as seen, traffic.running(folder, nodes, _RATE) as pods:
        yield one
        told = pods.report()
        one.figures = [
            (each, told.between(each.begin, each.end), seen.between(each.begin, each.end)) for each in one.phases
        ]
        one.late = {each.name: told.late(each.begin, each.end) for each in one.phases}


@contextmanager
def _guard(folder: Folder) -> Iterator[None]:
    """The guard on every node while it is entered, with its standby; one that is there already stays."""
    there = in_cluster(folder, [_HELM, *_GUARD, "status", "hitless"]).returncode == 0
    if not there:
        _helm(folder, [_HELM, *_GUARD, *_INSTALL, "--set", "image.pullPolicy=Never"])
    try:
        yield
    finally:
        if not there:
            _helm(folder, [_HELM, *_GUARD, *_INSTALL, "--set", "image.pullPolicy=Never,guard.remove=true"])
            _helm(folder, [_HELM, *_GUARD, "uninstall", "hitless", "--wait"])


def _row(one: _Run, wrong: str) -> Row:
    """The figures of all steps; each step's own are said."""
    zero = traffic.Count()
    sums = dict.fromkeys(traffic.WAYS, zero)
    failed = [wrong] if wrong else []
    control = ""
    for phase, counts, seen in one.figures:
        say(f"  {phase.name}: lost pod to pod {counts['pods']}, outside {counts['outside']}; {len(seen)} changes")
        for line in seen[:_CHANGES]:
            say(f"    {line}")
        if not phase.free:
            control = f"{phase.name}: {sum(counts.values(), zero)}; "
            continue
        sums = {way: sums[way] + counts[way] for way in sums}
        if any(count.lost or not count.sent for count in counts.values()):
            late = f"a far end in a pod stood still for {one.late[phase.name]:.1f} s at most"
            failed.append(f"{phase.name}: {'; '.join(map(str, counts.values()))}; {late}")
        if phase.still and seen:
            failed.append(f"{phase.name}: {len(seen)} changes: {seen[0]}")
    still = sum(phase.still for phase in one.phases)
    figures = (
        f"{control}then lost pod to pod {sums['pods']}, outside {sums['outside']} in {len(one.phases)} steps; "
        f"no change of links, routes, neighbours or rules in {still} of them that restart the agent"
    )
    return Row("; ".join([*failed, figures]), held=not failed)


@dataclass(frozen=True)
class _Pods:
    """The pods of a DaemonSet, by label."""

    folder: Folder
    label: str

    def restart(self, node: Node) -> None:
        """Delete the pod of a node and wait for the next one to be ready."""
        before = self._seen()
        self._delete(f"--field-selector=spec.nodeName={node.name}")
        self._until(lambda now: node.name in now and now[node.name] not in before.values(), node.name)

    def restart_all(self) -> None:
        """Delete all at once."""
        before = self._seen()
        self._delete()
        self._until(lambda now: set(now) == set(before) and not {*now.values()} & {*before.values()}, "all nodes")

    def gone(self) -> None:
        """Wait until there is none."""
        self._until(lambda _: not self._items(), "their end")

    def _delete(self, *arguments: str) -> None:
        self.folder.kubectl("-n", _SYSTEM, "delete", "pod", "-l", self.label, "--wait=false", *arguments)

    def _items(self) -> list[dict[str, dict[str, object]]]:
        done = self.folder.kubectl("-n", _SYSTEM, "get", "pods", "-l", self.label, "-o=json", check=False)
        found: list[dict[str, dict[str, object]]] = json.loads(done.stdout or '{"items": []}')["items"]
        return found

    def _seen(self) -> dict[str, object]:
        """By node the uid of a pod that is ready and not being deleted."""
        return {
            str(one["spec"].get("nodeName", "")): one["metadata"]["uid"]
            for one in self._items()
            if "deletionTimestamp" not in one["metadata"] and _ready(one["status"])
        }

    def _until(self, true: Callable[[dict[str, object]], bool], where: str) -> None:
        end = time.monotonic() + _PATIENCE
        while not true(self._seen()):
            if time.monotonic() > end:
                told = self.folder.kubectl("-n", _SYSTEM, "get", "pods", "-l", self.label, "-o=wide", check=False)
                fail(f"pods {self.label}: waited {_PATIENCE:.0f} s for {where}:\n{told.stdout}")
            time.sleep(0.3)


def _ready(status: dict[str, object]) -> bool:
    conditions = status.get("conditions", ())
    assert isinstance(conditions, list | tuple)
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _set_image(folder: Folder, image: str, strategy: str) -> None:
    rolling = {"rollingUpdate": {"maxUnavailable": 1}} if strategy == "RollingUpdate" else {"rollingUpdate": None}
    template = {"spec": {"containers": [{"name": _CONTAINER, "image": image}]}}
    patch = json.dumps({"spec": {"updateStrategy": {"type": strategy, **rolling}, "template": template}})
    folder.kubectl("-n", _SYSTEM, "patch", "daemonset", canal.NAME, "-p", patch)


def _get(folder: Folder, kind: str, name: str, path: str) -> str:
    return folder.kubectl("-n", _SYSTEM, "get", kind, name, f"-o=jsonpath={path}").stdout


def _attributes(folder: Folder) -> dict[str, dict[str, str]]:
    """By node, what flannel's annotations say."""
    items = json.loads(folder.kubectl("get", "nodes", "-o=json").stdout)["items"]
    return {
        one["metadata"]["name"]: {
            name: text for name, text in one["metadata"]["annotations"].items() if "flannel" in name
        }
        for one in items
    }


def _helm(folder: Folder, command: list[str]) -> None:
    done = in_cluster(folder, command)
    if done.returncode != 0:
        fail(f"{' '.join(command[1:6])} …: exit {done.returncode}: {done.stderr.strip()[-400:]}")


def _need_image(folder: Folder) -> None:
    if not (folder.images / "hitless-flanneld.tar").exists():
        fail("dist/hitless-flanneld.tar is not there: make image IMAGE_ARGS=--flanneld")
