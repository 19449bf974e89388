"""The image and every pod of ours in a real containerd, as a kubelet would have them; ``hitless node-drill`` by ctr.

By their own manifests: users, capabilities, no-new-privs, read-only root, seccomp's default profile, volumes, sysctls.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import stage
from tests.image.kubelet import EXITED, PROGRAMS, Kubelet, Running, programs, status
from tests.image.test_image import ARCHIVE, missing
from tests.kernel.lab.worlds import need
from tools.build_image import Layout

from hitless import lab
from hitless.cluster import manifests
from hitless.kernel import processes

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
PAUSE = "localhost/pause:1"
NETWORK, SUBNET = "10.42.0.0/16", "10.42.0.0/24"
NET_ADMIN = 1 << 12
HITLESS = (sys.executable, "-P", "-m", "hitless")
FACTS = ("Uid", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


def pause(folder: Path) -> Path:
    """The sandbox's image: ours with another command, since no registry has one for us."""
    with tarfile.open(ARCHIVE) as packed:
        blobs = {one.name: file.read() for one in packed if (file := packed.extractfile(one)) is not None}

    def document(described: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(blobs[f"blobs/{described['digest'].replace(':', '/')}"])
        return found

    here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    top = document(json.loads(blobs["index.json"])["manifests"][0])
    several = [document(one) for one in top["manifests"]] if "manifests" in top else [top]
    manifest = next(one for one in several if document(one["config"])["architecture"] == here)
    config = document(manifest["config"])
    config["config"]["Entrypoint"] = ["/usr/bin/python3", "-ISc", "__import__('signal').sigwait([15])"]
    layout = Layout(PAUSE)
    layer = blobs[f"blobs/{manifest['layers'][0]['digest'].replace(':', '/')}"]
    assert f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}" == config["rootfs"]["diff_ids"][0]
    kind = "application/vnd.oci.image"
    described = {
        **manifest,
        "config": layout.document(config, f"{kind}.config.v1+json"),
        "layers": [layout.blob(layer, f"{kind}.layer.v1.tar+gzip")],
    }
    platform = {"architecture": here, "os": "linux"}
    layout.manifests.append({**layout.document(described, f"{kind}.manifest.v1+json"), "platform": platform})
    layout.write(folder / "pause.tar")
    return folder / "pause.tar"


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    if not ARCHIVE.exists():
        missing(f"there is no image archive at {ARCHIVE}: make image")
    if lacks := set(PROGRAMS) - set(programs()):
        missing(f"containerd's programs are not all here: {', '.join(sorted(lacks))}; tools/setup test")
    plan = lab.LabPlan(nodes=1, pods_per_node=1)
    need(plan)
    folder = tmp_path_factory.mktemp("cri")
    with lab.up(plan) as built:
        kubelet = Kubelet(built.nodes[0], folder, PAUSE)
        try:
            kubelet.ctr("images", "import", str(ARCHIVE))
            kubelet.ctr("images", "import", str(pause(folder)))
            yield kubelet
        finally:
            kubelet.close()


def pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "test"}, "spec": {**spec, "nodeName": "node0"}}


def ready(kubelet: Kubelet, running: Running, probe: str) -> None:
    for _ in kubelet.patience(f"{running.pod['metadata']['name']} being ready: {kubelet.log(running)}"):
        if kubelet.exec(running, "/usr/bin/python3", "-sP", "-c", probe)[0] == 0:
            return


@pytest.fixture(scope="module")
def agent(kubelet: Kubelet) -> Running:
    """The stand-in of tests/cluster, by its own manifest."""
    spec = stage._agent("test", {"node0": (NETWORK, SUBNET)})["spec"]["template"]["spec"]
    running = kubelet.start(pod("agent", spec))
    ready(kubelet, running, stage.READY)
    return running


@pytest.fixture(scope="module")
def world(kubelet: Kubelet) -> Running:
    """The world behind a single node, of tests/cluster: a privileged pod."""

    class Node:
        name = "node0"

    running = kubelet.start(stage._world("test", Node))  # type: ignore[arg-type]
    ready(kubelet, running, stage.REACHED)
    return running


def test_the_image_is_found_under_the_name_that_the_manifests_say(kubelet: Kubelet) -> None:
    assert manifests.IMAGE in kubelet.ctr("images", "ls", "-q").stdout.split()
    (line,) = [one for one in kubelet.ctr("images", "check").stdout.splitlines() if one.startswith(manifests.IMAGE)]
    assert "complete" in line
    assert line.split()[-1] == "true", "unpacked"
    identity, user = kubelet.image(manifests.IMAGE)
    assert (identity.startswith("sha256:"), user) == (True, 65532)  # a number: runAsNonRoot can be judged
    assert kubelet.image("ghcr.io/hitless/hitless:none") == ("", 0)


def test_every_pod_of_a_drill_and_the_guard_works_whole_with_what_its_manifest_allows_it(
    kubelet: Kubelet, agent: Running, world: Running
) -> None:
    choices = manifests.PodOptions(
        "test", rate=200, streams=2, networks=(NETWORK,), profile="canal", see_processes=True
    )
    owner = manifests.owner(choices, "test")
    probe = kubelet.start(manifests.probe_pod(choices, "node0", owner, [stage.WORLD]))
    watch = kubelet.start(manifests.watch_pod(choices, "node0", owner, [stage.WORLD]))
    documents = yaml.safe_load_all((ROOT / "deploy/manifests/guard.yaml").read_text())
    spec = next(one for one in documents if one and one["kind"] == "DaemonSet")["spec"]["template"]["spec"]
    arguments = spec["containers"][0]["args"]
    spec["containers"][0]["args"] = [one for one in arguments if one != "--events"]  # there is no API server here
    status_of_guard = spec["containers"][0]["readinessProbe"]["exec"]["command"]
    guard = kubelet.start(pod("guard", spec))

    facts = {
        one: status(kubelet.python(running, "print(open('/proc/self/status').read())"), FACTS)
        for one, running in (("probe", probe), ("watch", watch), ("guard", guard))
    }
    for name, user, capabilities in (("probe", 65532, 0), ("watch", 0, NET_ADMIN), ("guard", 0, NET_ADMIN)):
        told = facts[name]
        assert told["Uid"].split() == [str(user)] * 4
        assert int(told["CapEff"], 16) == int(told["CapBnd"], 16) == capabilities
        assert (told["CapAmb"], told["NoNewPrivs"], told["Seccomp"]) == ("0" * 16, "1", "2")

    for running in (probe, watch):
        spool = kubelet.folder / f"pods/uid-{running.pod['metadata']['name']}/spool/events"
        for _ in kubelet.patience(f"an attempt of {running.pod['metadata']['name']}"):
            if spool.exists() and b'"attempts"' in spool.read_bytes():
                break
    for _ in kubelet.patience(f"the guard's standby: {kubelet.log(guard)}"):
        code, said, _ = kubelet.exec(guard, *status_of_guard)
        if code == 0 and json.loads(said)["families"]["ipv4"]["protected"]:
            break

    # drill --restart kill: the watch pod sees the host's processes, and ends another container's first one
    signal = ("hitless", "relay", "signal", "--container", f"containerd://{agent.container}", "--signal", "KILL")
    assert kubelet.exec(watch, *signal)[0] == 0
    for _ in kubelet.patience("the agent's end"):
        if kubelet.state(agent.container) == (EXITED, 137):
            break
    kubelet.start_again(agent)
    ready(kubelet, agent, stage.READY)
    for _ in kubelet.patience("a gap, which flannel's start makes"):
        family = json.loads(kubelet.exec(guard, *status_of_guard)[1])["families"]["ipv4"]
        if family["gaps"]:
            break
    assert family["uncovered_gaps"] == 0

    events = {**spooled(kubelet, probe), **spooled(kubelet, watch)}
    assert [one["state"] for one in events["watch"] if one["type"] == "state"] == ["carried"], events["watch"]
    totals = {name: lines[-1]["totals"] for name, lines in events.items() if lines[-1]["type"] == "summary"}
    assert {"probe", "watch", "control_host"} == set(totals)
    icmp = [one for one in events["probe"] if one.get("kind") == "icmp" and one["type"] == "attempts"]
    assert sum(one["ok"] for one in icmp) > 0, (totals["probe"], icmp)
    assert totals["probe"]["sent"] > 100
    assert totals["control_host"]["sent"] > 0
    assert [kubelet.stop(one) for one in (probe, watch, guard)] == [0, 0, 0]
    words = [*HITLESS, "guard", "--run-dir", "/run/hitless-guard", "remove"]
    processes.run(words, namespace=kubelet.node.namespace)


def spooled(kubelet: Kubelet, running: Running) -> dict[str, list[dict[str, Any]]]:
    """What a pod's tools wrote, ended and read as the driver does, by tool."""
    assert kubelet.exec(running, "hitless", "relay", "stop", "--spool", "/spool")[0] == 0
    code, out, error = kubelet.exec(running, "hitless", "relay", "read", "--spool", "/spool")
    assert code == 0, error
    found: dict[str, list[dict[str, Any]]] = {}
    for line in out.splitlines():
        name, _, text = line.partition("\t")
        found.setdefault(name, []).append(json.loads(text))
    assert "relay" not in found, found["relay"]
    return found


def test_node_drill_restarts_a_container_by_ctr_as_the_kubelet_would(
    kubelet: Kubelet, agent: Running, world: Running, tmp_path: Path
) -> None:
    done = threading.Event()

    def restart() -> None:
        while not done.wait(0.1):
            if kubelet.state(agent.container)[0] == EXITED:
                kubelet.start_again(agent)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        words = ["node-drill", "--yes", "--json", "--quiet", "--to", stage.WORLD, "--restart-container", "agent"]
        words += ["--runtime", "ctr", "--network", NETWORK, "--rounds", "1", "--rate", "100", "--streams", "0"]
        words += ["--baseline", "1", "--settle", "0.5", "--recovery", "3", "--out", str(tmp_path / "out")]
        environment = {"PATH": kubelet.path, "CONTAINERD_ADDRESS": str(kubelet.socket)}
        drill = processes.run(
            [*HITLESS, *words], namespace=kubelet.node.namespace, environment=environment, check=False, timeout=150
        )
    finally:
        done.set()
        thread.join()
    assert drill.returncode == 1, drill.stdout + drill.stderr
    (told,) = json.loads(drill.stdout)["agents"]
    assert (told["agent"], told["rounds"]) == ("agent", 1)
    assert told["gaps"] >= 1, "this flannel takes its rules away at SIGTERM"
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    steps = [one for one in events if one["type"] == "restart"]
    assert [one["step"] for one in steps] == ["stop", "started", "ready"]
    assert steps[1]["evidence"], "a restart counts by evidence"
    reasons = [one["reason"] for one in events if one["type"] == "gap"]
    assert any("FLANNEL-POSTRTG" in one or "POSTROUTING" in one for one in reasons), reasons
