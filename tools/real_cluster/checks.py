"""What is run on the real cluster: the cluster tests, the chart, and drills with and without the guard."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tools.real_cluster.folder import HUB, NAMESPACE, PODS, ROOT, Folder, say, within
from tools.real_cluster.node import Node

_HITLESS = str(ROOT / ".venv/bin/hitless")
_ROUNDS = 5


def run_all(folder: Folder, nodes: list[Node]) -> int:
    """All of them; 0 when each held. A table on standard output says what was measured."""
    rows: list[tuple[str, str, bool]] = []
    begun = time.monotonic()
    tests = [str(ROOT / ".venv/bin/pytest"), "-q", "-o", "faulthandler_timeout=0", "tests/cluster"]
    done = _in_cluster(folder, tests)
    rows.append(("tests/cluster", f"exit {done} after {time.monotonic() - begun:.0f} s", done == 0))
    say("a drill without the guard")
    rows.append(_drill(folder, "drill, real flanneld", must_pass=False))
    rows.append(_install_guard(folder, len(nodes)))
    say("a drill with the guard")
    rows.append(_drill(folder, "drill, with the guard", must_pass=True))
    width = max(len(name) for name, _, _ in rows)
    for name, what, right in rows:
        print(f"{name:{width}}  {'ok    ' if right else 'FAILED'}  {what}")
    return 0 if all(right for _, _, right in rows) else 1


def _in_cluster(folder: Folder, command: list[str]) -> int:
    """Run in the control plane's namespace, output to this terminal; the exit code."""
    environment = {**os.environ, "KUBECONFIG": str(folder.kubeconfig)}
    return subprocess.run(within(NAMESPACE, command), check=False, cwd=ROOT, env=environment).returncode


def _drill(folder: Folder, name: str, *, must_pass: bool) -> tuple[str, str, bool]:
    """Restart the agent of one node under load, with a far end on the control plane, which has no route to pods."""
    far_end = [_HITLESS, "farend", "--bind", HUB, "--leaks", PODS]
    environment = {**os.environ, "KUBECONFIG": str(folder.kubeconfig)}
    with tempfile.TemporaryDirectory() as temporary:
        with (folder.logs / "farend.log").open("ab") as log:
            serving = subprocess.Popen(within(NAMESPACE, far_end), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            out = Path(temporary) / "drill"
            command = [_HITLESS, "drill", "--cluster", "--yes", "--to", f"farend://{HUB}:7800", "--json"]
            command += ["--rounds", str(_ROUNDS), "--out", str(out), "--pull-policy", "Never"]
            done = subprocess.run(
                within(NAMESPACE, command), check=False, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            )
        finally:
            serving.terminate()
            serving.wait()
    try:
        agents = json.loads(done.stdout)["agents"]
        lost = sum(one["lost"] for one in agents)
        tried = sum(one["attempted"] for one in agents)
        figures = f"{lost:,} of {tried:,} connections lost in {_ROUNDS} restarts (exit {done.returncode})"
    except (ValueError, KeyError):
        return name, f"no figures (exit {done.returncode}): {done.stdout[-200:]}", False
    return name, figures, done.returncode == 0 and lost == 0 if must_pass else done.returncode in (0, 1)


def _install_guard(folder: Folder, nodes: int) -> tuple[str, str, bool]:
    """The chart, by a real helm, until its DaemonSet is ready."""
    helm = [str(ROOT / ".venv/bin/helm"), "upgrade", "--install", "hitless", "deploy/chart"]
    helm += ["--namespace", "hitless-system", "--create-namespace", "--set", "image.pullPolicy=Never"]
    begun = time.monotonic()
    code = _in_cluster(folder, [*helm, "--wait", "--timeout", "5m"])
    took = time.monotonic() - begun
    return "chart installed", f"ready on {nodes} nodes after {took:.0f} s (exit {code})", code == 0
