"""Drills of the real cluster, with a far end on the control plane, which has no route back to pods."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.real_cluster.folder import HUB, NAMESPACE, PODS, ROOT, Folder, within
from tools.real_cluster.node import Node
from tools.real_cluster.running import HITLESS, Row, environment, in_cluster

_DRILLS = "hitless-drill"  # the namespace that a drill makes
_PATIENCE = 120.0


def drill(folder: Folder, name: str, rounds: int, *, must_pass: bool) -> Row:
    """Restart the agent of one node under load. ``must_pass``: nothing may be lost; else any clear verdict will do.

    Its log and reports stay in the folder, until the next one of this ``name``.
    """
    out = folder.make("drills") / name
    shutil.rmtree(out, ignore_errors=True)
    with far_end(folder):
        done = in_cluster(folder, _command(rounds, out))
    try:
        told = json.loads(done.stdout)
        agents = told["agents"]
        lost, outside = (sum(one[name] for one in agents) for name in ("lost", "lost_outside"))
        tried = sum(one["attempted"] for one in agents)
        gaps = sum(one.get("gaps", 0) for one in agents)
    except (ValueError, KeyError) as error:
        return Row(f"no figures (exit {done.returncode}, {error!r}): {done.stderr.strip()[-300:]}", held=False)
    figures = f"{lost:,} of {tried:,} connections lost in {rounds} restarts ({gaps} gaps of the agent's rules)"
    if bridged := sum(one.get("bridged_flows", 0) for one in agents):
        figures += f", {bridged:,} flows in {sum(one['bridged_gaps'] for one in agents)} gaps carried by the standby"
    if outside:
        figures += f", {outside:,} more to anything outside"
    figures += f"; verdict {told.get('verdict', done.returncode)}"
    if done.returncode == 2:
        figures += f": {'; '.join(map(str, agents[0].get('reasons', ())))[:300]}"
    held = done.returncode == 0 and lost == 0 if must_pass else done.returncode in (0, 1)
    return Row(figures, held=held and tried > 0)


def cleanup(folder: Folder, nodes: list[Node]) -> Row:
    """Kill a drill's driver in the middle (SIGKILL); what it left is listed as dead, removed, and gone."""
    with far_end(folder), tempfile.TemporaryDirectory() as temporary:
        with (folder.logs / "killed-drill.log").open("ab") as log:
            driver = subprocess.Popen(
                within(NAMESPACE, _command(20, Path(temporary) / "drill")),
                cwd=ROOT,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _until_running(folder, driver)
            alive = _cleaned(folder, "--dry-run")
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    dead = _cleaned(folder, "--dry-run")
    removed = _cleaned(folder, "--yes")
    left = _left(folder)
    after = _cleaned(folder, "--dry-run")
    states = [str(one["drills"][0]["state"]) if one["drills"] else "none" for one in (alive, dead)]
    figures = (
        f"told {states[0]} while it ran, {states[1]} after SIGKILL; {len(removed['removed'])} objects removed, "
        f"{len(after['drills'])} drills and {left or 'no namespace'} left"
    )
    held = states == ["alive", "dead"] and bool(removed["removed"]) and not after["drills"] and not left
    return Row(figures, held=held)


def _left(folder: Folder) -> str:
    """The drills' namespace, if it is still there after a while: what is deleted ends when its pods have."""
    end = time.monotonic() + _PATIENCE
    while True:
        found = folder.kubectl("get", "namespace", _DRILLS, "--ignore-not-found", "-o=name").stdout.strip()
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def _cleaned(folder: Folder, *arguments: str) -> dict[str, list[dict[str, object]]]:
    done = in_cluster(folder, [HITLESS, "drill", "--cleanup", "--json", *arguments])
    if done.returncode not in (0, 1):
        raise RuntimeError(
            f"drill --cleanup {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()[-300:]}"
        )
    found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return found


def _until_running(folder: Folder, driver: subprocess.Popen[bytes]) -> None:
    """Until the drill's pods run."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if driver.poll() is not None:
            raise RuntimeError(f"the drill ended with {driver.returncode} before it was killed")
        done = folder.kubectl("-n", _DRILLS, "get", "pods", "-o=jsonpath={.items[*].status.phase}", check=False)
        if done.stdout.split().count("Running") >= 2:
            return
        time.sleep(0.5)
    raise RuntimeError(f"the drill's pods do not run after {_PATIENCE:.0f} s")


@contextmanager
def far_end(folder: Folder) -> Iterator[None]:
    """A far end on the control plane while it is entered."""
    command = [HITLESS, "farend", "--bind", HUB, "--leaks", PODS]
    with (folder.logs / "farend.log").open("ab") as log:
        serving = subprocess.Popen(within(NAMESPACE, command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        serving.terminate()
        serving.wait()


def _command(rounds: int, out: Path) -> list[str]:
    command = [HITLESS, "drill", "--cluster", "--yes", "--to", f"farend://{HUB}:7800", "--json"]
    return [*command, "--rounds", str(rounds), "--out", str(out), "--pull-policy", "Never"]
