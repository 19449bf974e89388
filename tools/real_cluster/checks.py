"""What is run on the real cluster, part by part, with a table of what each gave.

A part that fails, or breaks off, hides no other: its row says so. Next stage: people, and the note of a release.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.real_cluster import drills, replace, rollouts
from tools.real_cluster.folder import ROOT, Folder, say
from tools.real_cluster.node import Node
from tools.real_cluster.running import HITLESS, Row, captured, in_cluster, last_line

_ROUNDS = 5
_GUARDED_ROUNDS = 10
_READY_WITHIN = 30.0
"""Seconds from the start of a guard's container to Ready, on a machine that does other things too."""


@dataclass(frozen=True)
class Part:
    """One thing that is run."""

    name: str
    what: str
    run: Callable[[Folder, list[Node]], Row]


def run_all(folder: Folder, nodes: list[Node], names: Sequence[str] = ()) -> int:
    """The parts (all, or those named) in their order; 0 when each held. The table goes to standard output."""
    rows: list[tuple[str, Row, float]] = []
    for part in PARTS:
        if names and part.name not in names:
            continue
        say(f"{part.name}: {part.what}")
        begun = time.monotonic()
        row = _guarded(part, folder, nodes)
        rows.append((part.name, row, time.monotonic() - begun))
        say(f"{part.name}: {'ok' if row.held else 'FAILED'}: {row.figures}")
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    print(f"{platform.release()}, {os.cpu_count()} cores, load {load}")
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, row, took in rows:
        print(f"{name:{width}}  {'ok    ' if row.held else 'FAILED'}  {took:5.0f} s  {row.figures}")
    return 0 if rows and all(row.held for _, row, _ in rows) else 1


def _guarded(part: Part, folder: Folder, nodes: list[Node]) -> Row:
    try:
        return part.run(folder, nodes)
    except SystemExit as ended:
        return Row(f"broke off (exit {ended.code}), see above", held=False)
    except Exception as error:  # noqa: BLE001 - the border of a part: the others are run all the same
        traceback.print_exc()
        return Row(f"broke off: {type(error).__name__}: {error}", held=False)


def _looks(folder: Folder, nodes: list[Node]) -> Row:
    """``doctor`` of the cluster and of each node, ``advise``, and what the watch says of each node's pods."""
    wrong, told = [], []
    done = in_cluster(folder, [HITLESS, "doctor", "--cluster", "--json"])
    wrong += _diagnosis("the cluster", done)
    done = in_cluster(folder, [HITLESS, "advise", "--cluster", "--json"])
    try:
        advice = json.loads(done.stdout)
        told.append(f"advise: {advice['subject']}: {advice['status']}")
        if done.returncode not in (0, 1):
            wrong.append(f"advise: exit {done.returncode}")
    except (ValueError, KeyError):
        wrong.append(f"advise: exit {done.returncode}: {done.stderr[-200:]}")
    for node in nodes:
        states = _states(node)
        found = sorted({str(one["state"]) for one in states})
        told.append(f"{node.name}: {', '.join(found) or 'no state'}")
        if found != ["carried"]:
            wrong.append(f"{node.name}: watch --once: {[one.get('reason', '') for one in states]}")
        wrong += _diagnosis(node.name, captured(node.inside(HITLESS, "doctor", "--json")))
    return Row("; ".join(wrong or told), held=not wrong)


def _states(node: Node) -> list[dict[str, str]]:
    """What the watch says of the node's pod networks; with the profile that it names where the default does not fit."""
    command = node.inside(HITLESS, "watch", "--once", "--json")
    events = [json.loads(line) for line in captured(command).stdout.splitlines()]
    named = [re.search(r"--profile ([a-z0-9-]+)", one["text"]) for one in events if one["type"] == "note"]
    if profile := next(filter(None, named), None):
        done = captured([*command, "--profile", profile[1]])
        events = [json.loads(line) for line in done.stdout.splitlines()]
    return [one for one in events if one["type"] == "state"]


def _diagnosis(of: str, done: subprocess.CompletedProcess[str]) -> list[str]:
    """What ``doctor`` could not tell, or says is broken."""
    try:
        told = json.loads(done.stdout)
        bad = [f"{one['title']}: {one['text']}" for one in told["findings"] if one["state"] not in ("ok", "note")]
    except (ValueError, KeyError):
        return [f"{of}: doctor: exit {done.returncode}: {done.stderr.strip()[-200:]}"]
    if done.returncode == 0 and told["verdict"] == "ok":
        return []
    return [f"{of}: doctor: {told['verdict']} (exit {done.returncode}): {'; '.join(bad)}"]


def _tests(folder: Folder, nodes: list[Node]) -> Row:
    """tests/cluster, whole."""
    command = [str(ROOT / ".venv/bin/pytest"), "-q", "-o", "faulthandler_timeout=0", "tests/cluster"]
    done = in_cluster(folder, command, shown=True)
    return Row(f"exit {done.returncode}: {last_line(done.stdout)}", held=done.returncode == 0)


def _install(folder: Folder, nodes: list[Node]) -> Row:
    """The chart, by a real helm, until its DaemonSet is ready; how long each pod took from its start to Ready."""
    begun = time.monotonic()
    done = in_cluster(folder, [*_HELM, "--wait", "--timeout", "5m"])
    took = time.monotonic() - begun
    slowest, count = _slowest_ready(folder)
    figures = f"{count} guards, Ready {slowest:.0f} s after their start at most; helm {took:.0f} s"
    if done.returncode != 0:
        return Row(f"helm: exit {done.returncode}: {done.stderr.strip()[-300:]}", held=False)
    return Row(figures, held=count == len(nodes) and slowest <= _READY_WITHIN)


_HELM = (
    *(str(ROOT / ".venv/bin/helm"), "upgrade", "--install", "hitless", "deploy/chart"),
    *("--namespace", "hitless-system", "--create-namespace", "--set", "image.pullPolicy=Never"),
)


def _rollout(folder: Folder, nodes: list[Node]) -> Row:
    """A rollout of the guard over all nodes."""
    system = ("-n", "hitless-system")
    begun = time.monotonic()
    folder.kubectl(*system, "rollout", "restart", "daemonset/hitless-guard")
    done = folder.kubectl(*system, "rollout", "status", "daemonset/hitless-guard", "--timeout=5m", check=False)
    took = time.monotonic() - begun
    slowest, count = _slowest_ready(folder)
    figures = f"{len(nodes)} nodes, one after another, in {took:.0f} s; Ready {slowest:.0f} s after start at most"
    return Row(figures, held=done.returncode == 0 and count == len(nodes) and slowest <= _READY_WITHIN)


def _slowest_ready(folder: Folder) -> tuple[float, int]:
    """Seconds from the start of a guard's container to Ready, the slowest pod's, and how many are ready."""
    done = folder.kubectl("-n", "hitless-system", "get", "pods", "-l", "app.kubernetes.io/component=guard", "-o=json")
    found = []
    for pod in json.loads(done.stdout)["items"]:
        status = pod["status"]
        ready = [one["lastTransitionTime"] for one in status.get("conditions", ()) if _is_ready(one)]
        begun = [one["state"]["running"]["startedAt"] for one in status.get("containerStatuses", ()) if one["ready"]]
        if ready and begun and "deletionTimestamp" not in pod["metadata"]:
            found.append(max(0.0, _seconds(ready[0]) - min(map(_seconds, begun))))
    return max(found, default=0.0), len(found)


def _is_ready(condition: dict[str, str]) -> bool:
    return condition["type"] == "Ready" and condition["status"] == "True"


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def _unguarded(folder: Folder, nodes: list[Node]) -> Row:
    return drills.drill(folder, "unguarded", _ROUNDS, must_pass=False)


def _guarded_drill(folder: Folder, nodes: list[Node]) -> Row:
    return drills.drill(folder, "guarded", _GUARDED_ROUNDS, must_pass=True)


PARTS = (
    Part("looks", "doctor and advise of the cluster, doctor and watch --once on every node", _looks),
    Part("tests", "tests/cluster", _tests),
    Part("drill", f"{_ROUNDS} restarts of the real flanneld on one node, without the guard", _unguarded),
    Part("cleanup", "a drill whose driver is killed, listed and removed by drill --cleanup", drills.cleanup),
    Part("stops", "hitless rollout of the real flanneld, without the guard: the first loss ends it", rollouts.stops),
    Part("replace", "flanneld's image replaced by the agent's, node by node, and given back", replace.by_image),
    Part("agent-chart", "the agent's chart in flanneld's place, and flanneld again", replace.by_chart),
    Part("chart", "the chart, installed by helm", _install),
    Part("rollout", "a rollout of the guard", _rollout),
    Part("resumes", "hitless rollout with the guard, its driver killed at every step, and undone", rollouts.resumes),
    Part("image", "hitless rollout of flanneld's image: the agent's, by zones, and undone", rollouts.image),
    Part("guarded", f"{_GUARDED_ROUNDS} restarts of the real flanneld on one node, with the guard", _guarded_drill),
)

__all__ = ["PARTS", "Part", "run_all"]
