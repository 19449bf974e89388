"""``hitless rollout`` of the real flanneld: a stop at the first loss without the guard; with it, a killed driver.

Promise: the driver is killed at every step and followed by another; each node is restarted once; pods that probe all
the time, whoever drives, lose nothing. Next stage: ``checks``.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.real_cluster import traffic
from tools.real_cluster.drills import far_end
from tools.real_cluster.folder import HUB, NAMESPACE, ROOT, Folder, fail, within
from tools.real_cluster.images import agent_tag
from tools.real_cluster.node import Node
from tools.real_cluster.running import HITLESS, Row, environment, in_cluster

_AGENT = ("kube-system", "rke2-canal")
_RECORD = ("kube-system", "hitless-rollout")
_PATIENCE = 240.0
_ZONE = "topology.kubernetes.io/zone"
_WITNESS_RATE = 50
_LOOK = 0.1
_QUICK = ("--probe", "3", "--bake", "5", "--rate", "300", "--pull-policy", "Never", "--to", f"farend://{HUB}:7800")

State = Mapping[str, Any]


def stops(folder: Folder, nodes: list[Node]) -> Row:
    """Without the guard: a restart costs connections, so that it must stop after the first node."""
    before = _pods(folder)
    with far_end(folder):
        done = _run(folder, "restart", *_QUICK, "--yes", "--json", "--out", str(_out(folder, "stops")))
    told = _verdict(done)
    again = _run(folder, "restart", *_QUICK, "--yes")
    _run(folder, "end", "--yes")
    gone = [node for node, uid in _pods(folder).items() if before.get(node) != uid]
    lost = sum(one["lost"] for one in told["nodes"])
    held = done.returncode == 1 and len(gone) == 1 and told["state"] == "stopped" and again.returncode == 3
    return Row(f"{len(gone)} of {len(nodes)} nodes restarted, {lost} lost there; {told['stopped']}", held=held)


def resumes(folder: Folder, nodes: list[Node]) -> Row:
    """With the guard: a new template, its driver killed at every step and resumed, then undone."""
    with far_end(folder), traffic.running(folder, nodes, _WITNESS_RATE) as pods:
        begun = time.time()
        forward = _Round(folder, nodes, _patch(folder))
        forward.drive()
        undo = _run(folder, "undo", "--yes", "--json", "--out", str(_out(folder, "undo")))
        back = _verdict(undo)
        counts = pods.report().between(begun, time.time())
    strategy = _get(folder, "daemonset", *_AGENT)["spec"]["updateStrategy"]
    counted = Counter(forward.gone.values())
    figures = (
        f"killed {len(forward.killed)} times ({', '.join(forward.killed)}), pods that went by node: "
        f"{dict(sorted(forward.gone.items()))}; undone: {back['verdict']}; witnesses lost pod to pod {counts['pods']}, "
        f"outside {counts['outside']}; "
        f"verdicts {', '.join(forward.verdicts)}; updateStrategy {strategy['type']}"
    )
    held = counted == {1: len(nodes)} and forward.ended and undo.returncode == 0
    held = held and all(one.sent and not one.lost for one in counts.values())
    held = held and strategy == forward.strategy and len(forward.killed) >= 6
    return Row(figures, held=held)


def image(folder: Folder, nodes: list[Node]) -> Row:
    """flanneld's image replaced by ours and back, zone by zone in the order that was asked for, two nodes at a time."""
    if not (folder.images / "hitless-flanneld.tar").exists():
        fail("dist/hitless-flanneld.tar is not there: make image IMAGE_ARGS=--flanneld")
    zones = {node.name: "b" if node.number == 1 else "a" for node in nodes}
    wanted = sorted((node.name for node in nodes), key=lambda name: (zones[name] != "b", name))
    for name, zone in zones.items():
        folder.kubectl("label", "node", name, f"{_ZONE}={zone}", "--overwrite")
    before = _get(folder, "daemonset", *_AGENT)["spec"]
    order: list[str] = []
    with far_end(folder), traffic.running(folder, nodes, _WITNESS_RATE) as pods:
        begun = time.time()
        # a busy machine makes a step inconclusive: the pods that probe all the time tell what was lost
        options = ["--zones", "b,a", "--width", "2", "--require-guard", "--accept-inconclusive", *_QUICK]
        options += ["--yes", "--json"]
        out = str(_out(folder, "image"))
        there = _verdict(_run(folder, "image", f"kube-flannel={agent_tag()}", *options, "--out", out))
        images = {one["spec"]["containers"][0]["image"] for one in _agents(folder)}
        order = [one.name.partition("-")[2] for one in sorted(Path(out).iterdir()) if one.is_dir()]
        back = _verdict(_run(folder, "undo", "--yes", "--json", "--out", str(_out(folder, "image-undo"))))
        told = pods.report()
        counts = told.between(begun, time.time())
    for name in zones:
        folder.kubectl("label", "node", name, f"{_ZONE}-")
    after = _get(folder, "daemonset", *_AGENT)["spec"]
    figures = (
        f"there: {there['verdict']}, steps began with {', '.join(order)}, images {', '.join(sorted(images))}; back: "
        f"{back['verdict']}; witnesses lost pod to pod {counts['pods']}, outside {counts['outside']}"
    )
    held = there["state"] == back["state"] == "ended" and images == {agent_tag()} and order[0] == wanted[0]
    held = held and after["updateStrategy"] == before["updateStrategy"]
    held = held and all(one.sent and not one.lost for one in counts.values())
    return Row(figures, held=held and after["template"] == before["template"])


@dataclass
class _Round:
    """One rollout, whose driver is killed whenever it is a step further."""

    folder: Folder
    nodes: list[Node]
    patch: Path
    gone: Counter[str] = field(default_factory=Counter)
    killed: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)
    ended: bool = False
    strategy: Any = None
    _known: dict[str, str] = field(default_factory=dict)

    def drive(self) -> None:
        self._known = _pods(self.folder)
        self.strategy = _get(self.folder, "daemonset", *_AGENT)["spec"]["updateStrategy"]
        moments = self._moments()
        verb = ["patch", str(self.patch), "--require-guard", *_QUICK]
        for name, come in moments.items():
            process = self._begin(*verb)
            if self._until(process, come):
                process.send_signal(signal.SIGKILL)
                self.killed.append(name)
            process.wait()
            verb = ["resume"]
            if _state(self.folder).get("phase") == "ended":
                break
        else:
            self._until(process := self._begin(*verb), lambda _: False)
            process.wait()
        state = _state(self.folder)
        self.ended = state.get("phase") == "ended"
        self.verdicts = [str(one.get("verdict", "none")) for one in state.get("turns", ())]
        self._count()

    def _moments(self) -> dict[str, Callable[[State], bool]]:
        """When it is killed: each is a step of what is written down, or of what can be seen."""

        def courses(state: State) -> list[str]:
            return [str(one.get("course", "pending")) for one in state.get("turns", ())]

        def went(number: int) -> Callable[[State], bool]:
            return lambda _: self.gone.total() >= number

        return {
            "written down": lambda state: bool(state),
            "changed": lambda state: state.get("phase") == "rolling",
            "intent 1": lambda state: "restarting" in courses(state),
            "deleted 1": went(1),
            "done 1": lambda state: courses(state).count("done") >= 1,
            "intent 2": lambda state: courses(state).count("done") >= 1 and "restarting" in courses(state),
            "deleted 2": went(2),
            "done 2": lambda state: courses(state).count("done") >= 2,
        }

    def _begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [HITLESS, "rollout", *arguments, "--yes", "--out", str(_out(self.folder, "resumes", fresh=False))]
        with (self.folder.logs / "rollout.log").open("ab") as log:
            return subprocess.Popen(
                within(NAMESPACE, command),
                cwd=ROOT,
                env=environment(self.folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _until(self, process: subprocess.Popen[bytes], come: Callable[[State], bool]) -> bool:
        """Whether the moment came before the driver ended; pods that go are counted meanwhile."""
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < end:
            self._count()
            if come(_state(self.folder)):
                return process.poll() is None
            time.sleep(_LOOK)
        return False

    def _count(self) -> None:
        for node, uid in _pods(self.folder).items():
            if self._known.get(node, uid) != uid:
                self.gone[node] += 1
            self._known[node] = uid


def _run(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    return in_cluster(folder, [HITLESS, "rollout", *arguments])


def _verdict(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"the rollout ended with {done.returncode}: {done.stderr.strip()[-400:]}") from None
    return found


def _out(folder: Folder, name: str, *, fresh: bool = True) -> Path:
    out = folder.make("rollouts") / name
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    return out


def _patch(folder: Folder) -> Path:
    """Another template: a variable that flanneld does not read."""
    shutil.rmtree(_out(folder, "resumes"), ignore_errors=True)
    path = folder.make("rollouts") / "patch.json"
    variables = [{"name": "ROLLED_OUT", "value": str(time.time_ns())}]
    path.write_text(json.dumps({"spec": {"containers": [{"name": "kube-flannel", "env": variables}]}}))
    return path


def _get(folder: Folder, kind: str, place: str, name: str) -> dict[str, Any]:
    done = folder.kubectl("-n", place, "get", kind, name, "-o=json", "--ignore-not-found", check=False)
    found: dict[str, Any] = json.loads(done.stdout or "{}")
    return found


def _state(folder: Folder) -> State:
    """What is written down; nothing where that cannot be read just now."""
    found: State = json.loads((_get(folder, "configmap", *_RECORD).get("data") or {}).get("state.json", "{}"))
    return found


def _agents(folder: Folder) -> list[dict[str, Any]]:
    done = folder.kubectl("-n", _AGENT[0], "get", "pods", "-l", "k8s-app=canal", "-o=json")
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return found


def _pods(folder: Folder) -> dict[str, str]:
    """The agent's pods: by node their uids, of those that are not being deleted."""
    done = folder.kubectl("-n", _AGENT[0], "get", "pods", "-l", "k8s-app=canal", "-o=json", check=False)
    pods = json.loads(done.stdout or '{"items": []}')["items"]
    return {
        one["spec"].get("nodeName", ""): one["metadata"]["uid"]
        for one in pods
        if "deletionTimestamp" not in one["metadata"]
    }
