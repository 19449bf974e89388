"""The real thing, end to end, on the cluster of KUBECONFIG.

Runs on any cluster whose API server may be used for it and whose nodes have the image:

    make image && ctr -n k8s.io images import dist/hitless-image.tar      # on every node
    KUBECONFIG=… make cluster

docs/cluster.md lists what can be set (``HITLESS_…``). Where no network agent is known, one of ours is put into the
cluster and restarted, on a cluster of one node a world of our own is put behind it (``stage.py``, ``world.py``).
Everything is removed again; what a suite that was killed left is removed by the next one (``ground.py``).
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster import ground, judging
from tests.cluster import stage as staging
from tests.cluster.ground import ACCOUNTS, IMAGE, NAMESPACE, PATIENCE, POLICY, STAGE
from tests.cluster.stage import Stage

from hitless.kube.api import connect

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]

HITLESS = (sys.executable, "-P", "-m", "hitless")
RESTARTS = os.environ.get("HITLESS_RESTART", "1") == "1"

if not os.environ.get("KUBECONFIG"):
    pytest.skip("KUBECONFIG names no cluster", allow_module_level=True)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    ground.load()
    ground.run(ground.take)
    ground.RECORDER.start()
    try:
        ground.run(ground.tidy)
        built: Stage = ground.run(lambda api: staging.build(api, STAGE, NAMESPACE))
        if built.missing:
            pytest.skip(built.missing)
        yield built
    finally:
        try:
            hitless("drill", "--cleanup", "--yes", "--namespace", NAMESPACE)
            ground.run(ground.tidy)
        finally:
            ground.RECORDER.close()
            ground.run(ground.release)


@pytest.fixture
def calm(stage: Stage) -> Stage:
    """The stage, when a drill would not refuse: the one before has just restarted the agent."""
    against = ground.run(lambda api: staging.calm(api, stage.agent))
    assert not against, f"a drill would refuse: {'; '.join(against)}"
    return stage


def hitless(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HITLESS, *words],
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
        env={**os.environ, **environment},
    )


def words(stage: Stage, *more: str) -> list[str]:
    common = ["drill", "--cluster", "--namespace", NAMESPACE, "--image", IMAGE, "--pull-policy", POLICY]
    return [*common, *stage.words, *more]


def leftovers() -> list[str]:
    """What the suite's drills still hold; asked through the product's own port."""
    from hitless.cluster.manifests import selector
    from hitless.errors import ApiError
    from hitless.kube.api import Api
    from hitless.kube.objects import CONFIG_MAPS, NAMESPACES, PODS

    async def look(api: Api) -> list[str]:
        found = [f"pod {one.name}" for one in await api.all(PODS, NAMESPACE, labels=selector())]
        found += [f"configmap {one.name}" for one in await api.all(CONFIG_MAPS, NAMESPACE, labels=selector())]
        try:
            there = await api.get(NAMESPACES, NAMESPACE)
        except ApiError as error:
            assert error.status == 404
        else:
            if there.label(next(iter(ground.LABEL))) != "true":  # else it is the suite's own
                found.append(f"namespace {NAMESPACE}")
        return found

    found: list[str] = ground.run(look)
    return found


def until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(1)
    return False


def drilled(stage: Stage, out: Path, *options: str, **environment: str) -> tuple[dict[str, Any], str]:
    """The drill's one agent, and its standard error; a drill that was disturbed is given a second chance."""
    tries: list[str] = []
    while True:
        shutil.rmtree(out, ignore_errors=True)
        done = hitless(*words(stage, "--yes", "--json", "--quiet", *options, "--out", str(out)), **environment)
        assert done.returncode in (0, 1, 2), done.stdout + done.stderr
        (agent,) = json.loads(done.stdout)["agents"]
        judgement = judging.judge(agent["reasons"], foreign=bool(stage.agent)) if done.returncode == 2 else "accepted"
        if judgement == "accepted":
            found: dict[str, Any] = agent
            return found, done.stderr
        tries.append("; ".join(agent["reasons"]))
        if judgement == "failed" or len(tries) == 2:
            pytest.fail("\n".join([*tries, judging.hint(agent["reasons"]), done.stderr]), pytrace=False)
        assert until(lambda: not any(one.startswith("pod ") for one in leftovers()), PATIENCE), leftovers()
        ground.run(lambda api: staging.calm(api, stage.agent))


def test_advice_for_the_cluster_is_given() -> None:
    done = hitless("advise", "--cluster", "--json")
    assert done.returncode in (0, 1, 2), done.stderr
    assert json.loads(done.stdout)["schema"] == 1


def test_a_dry_run_makes_nothing_and_prints_what_the_server_accepts_strictly(stage: Stage) -> None:
    done = hitless(*words(stage, "--dry-run", "--restart", "kill"))
    assert done.returncode == 0, done.stderr
    documents = [one for one in yaml.safe_load_all(done.stdout) if one]
    kinds = {one["kind"] for one in documents}
    made = set() if stage.keeps else {"Namespace"}
    assert {*made, "ConfigMap", "Pod", "ClusterRole", "Role", "RoleBinding"} <= kinds
    assert leftovers() == []
    refused = _refusals(documents, "privileged", drop=("Namespace",))
    assert not refused, str(refused)


def test_probes_are_admitted_where_only_restricted_pods_are_and_watches_are_not(stage: Stage) -> None:
    done = hitless(*words(stage, "--dry-run"))
    pods = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "Pod"]
    refused = _refusals(pods, "restricted")
    if not refused:
        pytest.skip("this server enforces no Pod Security: it takes host network where only restricted pods may be")
    roles = {one["metadata"]["name"]: one["metadata"]["labels"]["app.kubernetes.io/component"] for one in pods}
    assert {roles[name] for name in refused} <= {"watch", "farend"}
    assert any("PodSecurity" in why for why in refused.values())


def test_the_plain_manifests_and_their_pods_are_taken(stage: Stage) -> None:
    documents = [
        one
        for path in sorted((Path(__file__).parents[2] / "deploy/manifests").glob("*.yaml"))
        for one in yaml.safe_load_all(path.read_text())
        if one
    ]
    assert {"DaemonSet", "CronJob", "ClusterRole", "Role", "ServiceAccount"} <= {one["kind"] for one in documents}
    guard, driver = (_only_pod(documents, kind) for kind in ("DaemonSet", "CronJob"))
    refused = _refusals([*documents, guard, driver], "privileged", drop=("Namespace",))
    refused |= _refusals([driver], "restricted")
    assert not refused, str(refused)  # in full: pytest would shorten it


def _only_pod(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The pod of the only object of this kind, for an account that is there."""
    (spec,) = (one["spec"] for one in documents if one["kind"] == kind)
    template = spec["jobTemplate"]["spec"]["template"] if kind == "CronJob" else spec["template"]
    metadata = {**template["metadata"], "name": kind.lower()}
    pod = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod}


def _refusals(documents: list[dict[str, Any]], level: str, drop: tuple[str, ...] = ()) -> dict[str, str]:
    """What the server says to these objects in a namespace of that level, asked with dryRun and strict validation."""
    from hitless.kube.api import Api
    from hitless.kube.objects import NAMESPACES

    place = f"{NAMESPACE}-{level}"

    async def ask(api: Api) -> dict[str, str]:
        await api.create(NAMESPACES, staging.namespace(place, level))
        refused: dict[str, str] = {}
        try:
            await staging.account(api, place)
            minor = await ground.minor(api)
            asked = [ground.in_words_of(one, minor) for one in documents if one["kind"] not in drop]
            for document in copy.deepcopy(asked):
                if "rbac" in document["apiVersion"]:  # the dry run's names may be taken, by what was granted to a drill
                    document["metadata"]["name"] += f"-{ground.TOKEN}"
                cluster_wide = document["kind"].startswith(("Cluster", "Namespace"))
                if not cluster_wide:
                    document["metadata"]["namespace"] = place
                params = {"dryRun": "All", "fieldValidation": "Strict"}
                answer = await api.client.post(_path(document), params=params, json=document)
                if not answer.is_success:
                    refused[document["metadata"]["name"]] = answer.text
        finally:
            await ground.away(api, place)
        return refused

    refused: dict[str, str] = ground.run(ask)
    return refused


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
@pytest.mark.parametrize("restart", ["delete-pod", "kill", "evict", "rollout-restart"])
def test_a_drill_measures_restarts_and_leaves_nothing(calm: Stage, restart: str, tmp_path: Path) -> None:
    options = ["--rounds", "2", "--rate", "200", "--settle", "2", "--abort-after", "60s", "--restart", restart]
    agent, _ = drilled(calm, tmp_path / "out", *options)
    assert agent["rounds"] == 2 * calm.nodes, agent["reasons"]
    assert agent["attempted"] > 200
    events = [json.loads(line) for line in (tmp_path / "out/events.jsonl").read_text().splitlines()]
    sent = sum(one["sent"] for one in events if one["type"] == "attempts" and one.get("stream") == "probe")
    summaries = {one.get("stream") for one in events if one["type"] == "summary"}
    assert {"probe", "control_host", "control_pods", *(["watch"] if calm.rules else [])} <= summaries
    assert sent >= agent["attempted"]
    assert any("the clock of" in one.get("text", "") for one in events)
    assert until(lambda: leftovers() == [], PATIENCE), leftovers()


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
def test_a_drill_needs_no_right_but_those_that_a_dry_run_prints(calm: Stage, tmp_path: Path) -> None:
    if os.pathsep in os.environ["KUBECONFIG"]:
        pytest.skip("KUBECONFIG names several files: this test writes one like it, for another user")
    done = hitless(*words(calm, "--dry-run"))
    wanted = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    documents = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] in wanted]
    path = tmp_path / "kubeconfig"
    with _granted(documents, path, keeps=calm.keeps):
        options = ["--rounds", "1", "--rate", "100", "--settle", "1"]
        agent, said = drilled(calm, tmp_path / "out", *options, KUBECONFIG=str(path))
        assert agent["rounds"] == calm.nodes, agent["reasons"]
    assert "forbidden" not in said


class _granted:
    """A kubeconfig for an account with exactly these rights; all of it is taken back."""

    def __init__(self, documents: list[dict[str, Any]], path: Path, *, keeps: bool) -> None:
        self._documents, self._path, self._keeps = documents, path, keeps

    def __enter__(self) -> None:
        try:
            self._grant()
        except BaseException:
            self.__exit__()
            raise

    def _grant(self) -> None:
        from hitless.kube.api import Api
        from hitless.kube.objects import NAMESPACES

        async def grant(api: Api) -> str:
            # the account cannot live in the namespace that the drill itself makes and removes
            made = await api.create(NAMESPACES, staging.namespace(ACCOUNTS, "restricted"))
            if not self._keeps:
                await api.create(NAMESPACES, staging.namespace(NAMESPACE, "privileged"))
                await staging.account(api, NAMESPACE)
            owner = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "name": ACCOUNTS,
                "uid": made.metadata.uid if made else "",
            }
            for document in self._documents:
                _rename(document, owner)
                answer = await api.client.post(_path(document), json=document)
                assert answer.is_success, answer.text
            request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
            path = f"/api/v1/namespaces/{ACCOUNTS}/serviceaccounts/{NAMESPACE}/token"
            answer = await api.client.post(path, json=request)
            assert answer.is_success, answer.text
            return str(answer.json()["status"]["token"])

        token = ground.run(grant)
        config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        for one in config["clusters"]:  # the copy lies elsewhere
            authority = one["cluster"].get("certificate-authority")
            if authority:
                one["cluster"]["certificate-authority"] = str(
                    Path(os.environ["KUBECONFIG"]).parent.absolute() / authority
                )
        current = next(one for one in config["contexts"] if one["name"] == config["current-context"])
        current["context"] = {"cluster": current["context"]["cluster"], "user": "drill"}
        config["users"] = [{"name": "drill", "user": {"token": token}}]
        config["contexts"] = [current]
        self._path.write_text(yaml.safe_dump(config))
        asyncio.run(self._in_force())

    async def _in_force(self) -> None:
        """Wait until the account may do it: a server learns of accounts and roles a moment after they are made."""
        roles = [one["metadata"]["namespace"] for one in self._documents if one["kind"] == "Role"]
        paths = ["/api/v1/nodes", *(f"/api/v1/namespaces/{place}/pods" for place in roles)]
        async with connect(self._path) as api:
            for _ in range(120):
                answers = [await api.client.get(path, params={"limit": "1"}) for path in paths]
                if all(one.is_success for one in answers):
                    return
                await asyncio.sleep(0.5)
        raise AssertionError(f"the rights are not in force after a minute: {[one.text for one in answers]}")

    def __exit__(self, *_: object) -> None:
        from hitless.kube.api import Api

        async def take_back(api: Api) -> None:
            for document in self._documents:
                await api.client.delete(f"{_path(document)}/{document['metadata']['name']}")
            await ground.away(api, ACCOUNTS, *([] if self._keeps else [NAMESPACE]))

        ground.run(take_back)


def _rename(document: dict[str, Any], owner: dict[str, str]) -> None:
    """The suite's own name: the dry run's may be taken. Whatever happens, it goes with the namespace of the account."""
    metadata = document["metadata"]
    metadata["name"] = NAMESPACE
    if document["kind"] == "ServiceAccount":
        metadata["namespace"] = ACCOUNTS
    else:
        metadata["ownerReferences"] = [owner]
    for subject in document.get("subjects", ()):
        subject |= {"name": NAMESPACE, "namespace": ACCOUNTS}
    if "roleRef" in document:
        document["roleRef"]["name"] = NAMESPACE


def _path(document: dict[str, Any]) -> str:
    base = "/api/v1" if document["apiVersion"] == "v1" else f"/apis/{document['apiVersion']}"
    place = document["metadata"].get("namespace")
    return f"{base}{f'/namespaces/{place}' if place else ''}/{document['kind'].lower()}s"


def _begun(stage: Stage, folder: Path) -> subprocess.Popen[bytes]:
    options = ["--yes", "--quiet", "--baseline", "60", "--rate", "100", "--out", str(folder / "out")]
    with (folder / "said").open("wb") as file:
        return subprocess.Popen([*HITLESS, *words(stage, *options)], stdout=file, stderr=subprocess.STDOUT)


def said(folder: Path) -> str:
    """What that drill said."""
    return (folder / "said").read_text(errors="replace")


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
def test_an_interrupted_drill_cleans_up(calm: Stage, tmp_path: Path) -> None:
    process = _begun(calm, tmp_path)
    try:
        assert until(lambda: len(leftovers()) > 3, PATIENCE), said(tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130, said(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert until(lambda: leftovers() == [], PATIENCE), leftovers()


@pytest.mark.skipif(not RESTARTS, reason="HITLESS_RESTART=0")
def test_what_a_killed_drill_left_is_swept(calm: Stage, tmp_path: Path) -> None:
    process = _begun(calm, tmp_path)
    try:
        assert until(lambda: len(leftovers()) > 3, PATIENCE), said(tmp_path)
    finally:
        process.kill()
        process.wait()
    assert leftovers()
    done = hitless("drill", "--cleanup", "--yes", "--namespace", NAMESPACE)
    assert done.returncode == 0, done.stderr
    assert until(lambda: leftovers() == [], PATIENCE), leftovers()


def test_an_image_that_is_not_there_is_said_and_nothing_is_restarted(calm: Stage, tmp_path: Path) -> None:
    options = ["--yes", "--quiet", "--image", "localhost/no-such-image:1", "--pull-policy", "Never"]
    done = hitless(*words(calm, *options, "--out", str(tmp_path / "out")))
    assert done.returncode == 3, done.stderr
    assert "ErrImageNeverPull" in done.stderr
    assert until(lambda: leftovers() == [], PATIENCE), leftovers()
