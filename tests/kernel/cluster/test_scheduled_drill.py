"""The chart's CronJob, run: its container's own command, as process 1, with the files that a kubelet mounts, against
an API server that grants what the chart's roles grant and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cluster.clusters import NET_CONF, canal, gateway, until

from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import Rights, rules_of
from hitless.testing.api_server import FakeApi

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/chart"
NAMESPACE = "hitless-system"
MOUNTED = "/run/secrets/kubernetes.io/serviceaccount"

# The pod, but for its image: process 1, a read-only root with an empty /tmp, no capability, no new privilege.
POD = f"""set -e
mount --make-rprivate /
mount -t tmpfs none /run
mkdir -p {MOUNTED}
mount --bind "$1" {MOUNTED}
case "$3" in /tmp/*) # a checkout that lies there stays in sight
  mkdir -p "$2/${{3#/tmp/}}"
  mount --bind "$3" "$2/${{3#/tmp/}}" ;;
esac
mount --rbind "$2" /tmp
mount -o remount,bind,ro /
shift 3
exec env -i "$@"
"""


@dataclass
class Cluster:
    """The fake, and what the chart makes in it."""

    api: FakeApi
    nodes: FakeNodes
    folder: Path
    documents: list[dict[str, Any]]
    pushed: list[tuple[str, str]]
    runs: int = 0
    testing: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """The pod of the CronJob's Job, or that of `helm test`."""
        if self.testing:
            (test,) = (one for one in self.documents if one["kind"] == "Pod")
            found: dict[str, Any] = test["spec"]
            return found
        (job,) = (one for one in self.documents if one["kind"] == "CronJob")
        pod: dict[str, Any] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        return pod

    async def begin(self) -> asyncio.subprocess.Process:
        (container,) = self.spec["containers"]
        assert container["command"][0] == "hitless"
        words = [sys.executable, "-P", "-m", *container["command"], *container["args"]]
        host, _, port = self.api.url.removeprefix("https://").partition(":")
        given = {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        given |= {one["name"]: one["value"] for one in container.get("env", [])}
        self.runs += 1
        empty = self.folder / f"tmp{self.runs}"
        empty.mkdir()
        line = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", POD, "pod"]
        line += [str(self.folder / "account"), str(empty), str(ROOT)]
        line += [f"{key}={value}" for key, value in given.items()]
        line += ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *words]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*line, stdout=pipe, stderr=pipe)

    async def run(self) -> tuple[int, str, str]:
        process = await self.begin()
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def left(self) -> list[str]:
        """What drills hold, but for whose turn it is."""
        found = [*self.api.store.all("pods", NAMESPACE), *self.api.store.all("configmaps", NAMESPACE)]
        return [one["metadata"]["name"] for one in found if one["metadata"]["name"] != "hitless-drill-turn"]

    def turn(self) -> str:
        return str(self.api.store.get("configmaps", NAMESPACE, "hitless-drill-turn")["data"]["last"])


def render(setting: str) -> list[dict[str, Any]]:
    helm = ROOT / ".venv/bin/helm"
    command = [str(helm), "template", "hitless", str(CHART), "--namespace", NAMESPACE]
    for one in ("guard.enabled=false", "drill.enabled=true", setting):
        command += ["--set", one]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def account(folder: Path) -> ssl.SSLContext:
    """What a kubelet mounts for a ServiceAccount, and the server's side of it."""
    place = folder / "account"
    place.mkdir()
    (place / "token").write_text("a token")
    (place / "namespace").write_text(NAMESPACE)
    key = folder / "server.key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=kube-apiserver", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(key), "-out", str(place / "ca.crt")]
    subprocess.run(words, capture_output=True, check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(place / "ca.crt", key)
    return tls


def play(story: Callable[[Cluster], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def run() -> None:
        pushed: list[tuple[str, str]] = []
        tls = account(folder)
        async with asyncio.timeout(150), gateway(pushed) as url, FakeApi(bookmark_every=0.2).serve(tls) as api:
            nodes = FakeNodes(api)
            for number in range(2):
                nodes.add_node(f"node-{number}")
            api.store.create("namespaces", "", {"metadata": {"name": NAMESPACE}})
            config = {"metadata": {"name": "rke2-canal-config"}, "data": {"net-conf.json": NET_CONF}}
            api.store.create("configmaps", "kube-system", config)
            nodes.add_daemon_set(canal())
            documents = render(f"drill.pushgateway={url}")
            user = f"system:serviceaccount:{NAMESPACE}:hitless-drill"
            api.rights = Rights(rules_of(documents), user=user)
            api.faults.token = "a token"
            try:
                await story(Cluster(api, nodes, folder, documents, pushed))
            finally:
                await nodes.close()

    asyncio.run(run())


def admitted(event: dict[str, Any]) -> None:
    """What a real server asks of an Event of the core group, beside its schema."""
    import kubernetes_validate

    kubernetes_validate.validate(event, "1.34", strict=True)
    about = event["involvedObject"]
    assert (about["kind"], about.get("namespace", ""), event["metadata"]["namespace"]) == ("Node", "", "default")
    assert len(event["message"]) <= 1024
    assert len(event["reason"]) <= 128
    assert event["type"] in ("Normal", "Warning")
    assert "eventTime" not in event, "with it the server asks for reportingController, reportingInstance and action"


def test_each_run_drills_the_next_node_with_the_charts_rights_and_tells_everybody(tmp_path: Path) -> None:
    """A fail fails the Job (backoffLimit 0, restartPolicy Never: any code but 0 does), a pass is its success."""

    async def story(cluster: Cluster) -> None:
        reasons = {"pass": "DrillPassed", "fail": "DrillFailed", "inconclusive": "DrillInconclusive"}
        told = []
        for turn, cluster.nodes.gap in (("node-0", 0.3), ("node-1", 0.0)):
            code, out, err = await cluster.run()
            verdict = json.loads(out)["verdict"]
            assert code == {"pass": 0, "fail": 1, "inconclusive": 2}[verdict], err
            assert (verdict == "fail") == (turn == "node-0"), "the second may not be measured where a machine is busy"
            assert cluster.turn() == turn
            assert cluster.left() == []
            told.append((turn, reasons[verdict], "Normal" if verdict == "pass" else "Warning"))
        events = sorted(cluster.api.store.all("events", "default"), key=lambda one: str(one["involvedObject"]["name"]))
        for event in events:
            admitted(event)
        assert [(one["involvedObject"]["name"], one["reason"], one["type"]) for one in events] == told
        assert [path for path, _ in cluster.pushed] == [f"/metrics/job/hitless_drill/node/node-{n}" for n in range(2)]
        assert all("hitless_drill_verdict" in text for _, text in cluster.pushed)
        rights = cluster.api.rights
        ended = [one for one in rights.requests if (one.verb, one.resource) == ("delete", "pods")]
        assert len([one for one in ended if one.namespace == "kube-system"]) == 2, "one agent's pod a run"
        assert (rights.denied, rights.unused) == ([], []), "the chart grants what is needed, and nothing else"
        assert cluster.spec["restartPolicy"] == "Never"

    play(story, tmp_path)


async def first_process(unshare: asyncio.subprocess.Process) -> int:
    """The container's process 1, by its number here."""
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children")
    found: list[str] = []

    def look() -> bool:
        found[:] = children.read_text().split()
        return bool(found)

    await until(look)
    return int(found[0])


def test_a_job_that_is_ended_removes_its_pods_within_the_grace_period_and_the_turn_goes_on(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        process = await cluster.begin()
        await until(lambda: any("-probe-" in name for name in cluster.nodes.spools))
        os.kill(await first_process(process), signal.SIGTERM)
        async with asyncio.timeout(cluster.spec["terminationGracePeriodSeconds"]):
            await process.communicate()
        assert process.returncode == 130
        await until(lambda: cluster.left() == [])
        assert cluster.turn() == "node-0", "else a node whose drill never ends would hold up all others"
        assert cluster.api.rights.denied == []

    play(story, tmp_path)


def test_a_job_that_is_ended_while_it_looks_at_the_cluster_begins_nothing(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.api.faults.hang(60)
        process = await cluster.begin()
        first = await first_process(process)
        await until(lambda: cluster.api.faults.unanswered > 0)
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(cluster.spec["terminationGracePeriodSeconds"]):
            await process.communicate()
        assert process.returncode == 130
        assert not [one for one in cluster.api.rights.requests if one.verb not in ("get", "list", "watch")]

    play(story, tmp_path)


def test_helm_test_finds_what_the_schedule_will_need_and_says_what_it_lacks(tmp_path: Path) -> None:
    async def story(cluster: Cluster) -> None:
        cluster.testing = True
        code, out, err = await cluster.run()
        assert code == 0, err
        assert "rke2-canal" in out
        rights = cluster.api.rights
        assert {one.verb for one in rights.requests} <= {"get", "list", "watch"}
        cluster.api.rights = Rights([one for one in rights.rules if one.resource != "daemonsets"], user=rights.user)
        code, _, err = await cluster.run()
        assert code == 3
        assert 'cannot list resource "daemonsets" in API group "apps"' in err

    play(story, tmp_path)
