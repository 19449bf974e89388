"""The real thing, end to end, on the cluster of KUBECONFIG.

Runs on any cluster whose API server may be used for it and whose nodes have the image:

    make image && ctr -n k8s.io images import dist/hitless-image.tar      # on every node
    KUBECONFIG=… make cluster

HITLESS_IMAGE names the image (default: the one of `make image`), HITLESS_PULL_POLICY its policy (default: Never),
HITLESS_TO a far end (default: ours on another node; needed on a cluster of one node), HITLESS_NODES how many nodes to
drill at most (default 1), HITLESS_RESTART=0 leaves out the tests that restart the network agent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

HITLESS = (sys.executable, "-P", "-m", "hitless")
IMAGE = os.environ.get("HITLESS_IMAGE", "ghcr.io/hitless/hitless:latest")
POLICY = os.environ.get("HITLESS_PULL_POLICY", "Never")
RESTARTS = os.environ.get("HITLESS_RESTART", "1") == "1"
NAMESPACE = f"hitless-e2e-{os.getpid()}"

if not os.environ.get("KUBECONFIG"):
    pytest.skip("KUBECONFIG names no cluster", allow_module_level=True)


def hitless(*words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HITLESS, *words], capture_output=True, text=True, timeout=timeout, check=False)


def drill(*words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    to = [word for one in os.environ.get("HITLESS_TO", "").split() for word in ("--to", one)]
    common = ["--cluster", "--namespace", NAMESPACE, "--image", IMAGE, "--pull-policy", POLICY, *to]
    return hitless("drill", *common, *words, timeout=timeout)


@pytest.fixture(autouse=True, scope="module")
def _clean() -> Any:
    yield
    hitless("drill", "--cleanup", "--namespace", NAMESPACE)


def leftovers() -> list[str]:
    """What the drill's namespace still holds; asked through the product's own port."""
    import asyncio

    from hitless.cluster.api import connect
    from hitless.cluster.manifests import selector
    from hitless.cluster.objects import CONFIG_MAPS, NAMESPACES, PODS
    from hitless.errors import ApiError

    async def look() -> list[str]:
        async with connect() as api:
            found = [f"pod {one.name}" for one in await api.all(PODS, labels=selector())]
            found += [f"configmap {one.name}" for one in await api.all(CONFIG_MAPS, labels=selector())]
            try:
                await api.get(NAMESPACES, NAMESPACE)
            except ApiError as error:
                assert error.status == 404
            else:
                found.append(f"namespace {NAMESPACE}")
            return found

    return asyncio.run(look())


def until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(1)
    return False


def test_advice_for_the_cluster_is_given() -> None:
    done = hitless("advise", "--cluster", "--json")
    assert done.returncode in (0, 1, 2), done.stderr
    assert json.loads(done.stdout)["schema"] == 1


def test_a_dry_run_prints_objects_and_rights_that_the_server_accepts_and_makes_nothing() -> None:
    done = drill("--dry-run")
    assert done.returncode == 0, done.stderr
    documents = [one for one in yaml.safe_load_all(done.stdout) if one]
    kinds = {one["kind"] for one in documents}
    assert {"Namespace", "ConfigMap", "Pod", "ClusterRole", "Role", "RoleBinding"} <= kinds
    assert leftovers() == []


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
@pytest.mark.parametrize("restart", ["delete-pod", "kill", "evict"])
def test_a_drill_measures_restarts_and_leaves_nothing(restart: str, tmp_path: Path) -> None:
    nodes = os.environ.get("HITLESS_NODES", "1")
    words = ["--yes", "--json", "--quiet", "--rounds", "2", "--rate", "200", "--settle", "2", "--abort-after", "60s"]
    done = drill(*words, "--restart", restart, "--nodes", nodes, "--out", str(tmp_path / "out"))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told = json.loads(done.stdout)
    (agent,) = told["agents"]
    assert agent["rounds"] == 2 * int(nodes), agent["reasons"]
    assert agent["attempted"] > 1000
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").open()]
    sent = sum(one["sent"] for one in events if one["type"] == "attempts" and one.get("stream") == "probe")
    summaries = {one.get("stream") for one in events if one["type"] == "summary"}
    assert {"probe", "watch", "control_host", "control_pods"} <= summaries
    assert sent >= agent["attempted"]
    assert any("the clock of" in one.get("text", "") for one in events)
    assert until(lambda: leftovers() == [], 120), leftovers()


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
def test_an_interrupted_drill_cleans_up(tmp_path: Path) -> None:
    to = [word for one in os.environ.get("HITLESS_TO", "").split() for word in ("--to", one)]
    words = ["drill", "--cluster", "--yes", "--quiet", "--namespace", NAMESPACE, "--image", IMAGE, *to]
    words += ["--pull-policy", POLICY, "--baseline", "60", "--rate", "100", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*HITLESS, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(leftovers()) > 3, 120)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        process.kill()
        process.wait()
    assert until(lambda: leftovers() == [], 120), leftovers()


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
def test_what_a_killed_drill_left_is_swept(tmp_path: Path) -> None:
    to = [word for one in os.environ.get("HITLESS_TO", "").split() for word in ("--to", one)]
    words = ["drill", "--cluster", "--yes", "--quiet", "--namespace", NAMESPACE, "--image", IMAGE, *to]
    words += ["--pull-policy", POLICY, "--baseline", "60", "--rate", "100", "--out", str(tmp_path / "out")]
    process = subprocess.Popen([*HITLESS, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: len(leftovers()) > 3, 120)
    finally:
        process.kill()
        process.wait()
    assert leftovers()
    done = hitless("drill", "--cleanup", "--namespace", NAMESPACE)
    assert done.returncode == 0, done.stderr
    assert until(lambda: leftovers() == [], 120), leftovers()


def test_an_image_that_is_not_there_is_said_and_nothing_is_restarted(tmp_path: Path) -> None:
    done = hitless(
        *("drill", "--cluster", "--yes", "--quiet", "--namespace", NAMESPACE, "--to", "tcp://192.0.2.1:9"),
        *("--image", "localhost/no-such-image:1", "--pull-policy", "Never", "--out", str(tmp_path / "out")),
    )
    assert done.returncode == 3
    assert "ErrImageNeverPull" in done.stderr
    assert until(lambda: leftovers() == [], 120), leftovers()
