"""``hitless drill --cluster``, the command itself, in a process of its own against the fake API server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cluster.clusters import cluster, gateway, until

from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import RbacRule, Rights, rules_of

HITLESS = (sys.executable, "-P", "-m", "hitless")
QUICK = ["--baseline", "1", "--settle", "0.2", "--recovery", "3", "--rounds", "1", "--rate", "100", "--streams", "0"]


class Shell:
    """Runs the command with a kubeconfig for the fake."""

    def __init__(self, fake: FakeNodes, folder: Path) -> None:
        self.fake, self.folder = fake, folder
        self.runs = 0
        (folder / "kubeconfig").write_text(fake.api.kubeconfig())

    async def begin(self, *words: str, stdin: int = asyncio.subprocess.DEVNULL) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        line = [*HITLESS, "drill", "--kubeconfig", str(self.folder / "kubeconfig"), "--quiet", *words]
        if "--cleanup" not in words:
            self.runs += 1
            line += ["--cluster", "--out", str(self.folder / f"out{self.runs}")]
        return await asyncio.create_subprocess_exec(*line, stdin=stdin, stdout=pipe, stderr=pipe)

    async def run(self, *words: str) -> tuple[int, str, str]:
        process = await self.begin(*words)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def left(self) -> list[str]:
        """What drills hold."""
        store = self.fake.api.store
        found = [*store.all("pods"), *store.all("configmaps"), *store.all("namespaces")]
        return [one["metadata"]["name"] for one in found if "hitless" in one["metadata"]["name"]]

    def touched(self) -> list[str]:
        """The requests that change something."""
        reading = ("get", "list", "watch")
        return [str(one) for one in self.fake.api.rights.requests if one.verb not in reading]


def play(story: Callable[[Shell], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(3, **options) as fake:
            await story(Shell(fake, folder))

    asyncio.run(run())


@pytest.mark.parametrize("restart", ["delete-pod", "kill"])
def test_a_drill_runs_with_the_rights_that_its_dry_run_printed_and_no_others(tmp_path: Path, restart: str) -> None:
    async def story(shell: Shell) -> None:
        code, printed, err = await shell.run("--dry-run", "--restart", restart, "--node", "node-1")
        assert code == 0, err
        assert shell.touched() == []
        for announced in ("exec in the pods", "delete the pods and the ConfigMap", "rke2-canal"):
            assert announced in printed
        documents = [one for one in yaml.safe_load_all(printed) if one]
        # a small node may take two minutes to bring its agent back, and as long until the rules carry again
        assert all(one["spec"]["activeDeadlineSeconds"] > 5 * 240 for one in documents if one["kind"] == "Pod")
        shell.fake.api.rights = Rights(rules_of(documents))
        words = ["--yes", "--json", "--restart", restart, "--node", "node-1", *QUICK]
        code, out, err = await shell.run(*words)
        assert code == 1, out + err
        assert shell.fake.api.rights.denied == []
        kinds = {"pods": "Pod", "configmaps": "ConfigMap", "namespaces": "Namespace"}
        made = {one.resource for one in shell.fake.api.rights.requests if one.verb == "create"}
        assert {kinds[one] for one in made if "/" not in one} <= {one["kind"] for one in documents}
        await until(lambda: shell.left() == [])

    play(story, tmp_path, start_delay=0.1)


@pytest.mark.parametrize(
    ("words", "wanted", "there"),
    [
        (["--round-robin"], "get patch configmaps", True),
        (["--post-events", "--node", "node-1"], "create events", False),
    ],
)
def test_a_dry_run_prints_the_rights_of_each_option_and_to_make_a_namespace_only_when_it_is_missing(
    tmp_path: Path, words: list[str], wanted: str, there: bool
) -> None:
    async def story(shell: Shell) -> None:
        if there:
            shell.fake.api.store.create("namespaces", "", {"metadata": {"name": "hitless-drill"}})
        code, printed, err = await shell.run("--dry-run", *words)
        assert code == 0, err
        rules = rules_of([one for one in yaml.safe_load_all(printed) if one])
        *verbs, resource = wanted.split()
        assert set(verbs) <= {rule.verb for rule in rules if rule.resource == resource}
        assert any(rule.verb == "create" for rule in rules if rule.resource == "namespaces") is not there
        assert ("make it first" in printed) is not there

    play(story, tmp_path)


def test_a_far_end_outside_keeps_its_own_record_and_a_drill_that_loses_nothing_passes(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        words = ["--yes", "--json", "--node", "node-1", "--to", "farend://198.51.100.1:7800", *QUICK]
        code, out, err = await shell.run(*words)
        assert code == 0, out + err

    play(story, tmp_path, gap=0.0)


def test_without_a_yes_nothing_is_touched(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        code, _, err = await shell.run(*QUICK)
        assert code == 3
        assert "--yes" in err
        assert shell.touched() == []

    play(story, tmp_path)


def test_the_cluster_that_was_asked_about_is_the_one_that_is_drilled(tmp_path: Path) -> None:
    """Somebody works on another cluster, in another terminal, while the question stands."""

    async def story(shell: Shell) -> None:
        ours, theirs = os.openpty()
        drill = await shell.begin(*QUICK, stdin=theirs)
        os.close(theirs)
        try:
            assert drill.stderr is not None
            asked = (await drill.stderr.readuntil(b"[y/N]")).decode()
            config = shell.folder / "kubeconfig"
            document = json.loads(config.read_text())
            assert "Restart" in asked and document["clusters"][0]["cluster"]["server"] in asked
            document["clusters"].append({"name": "other", "cluster": {"server": "http://127.0.0.1:9"}})
            document["contexts"].append({"name": "other", "context": {"cluster": "other", "user": "fake"}})
            config.write_text(json.dumps(document | {"current-context": "other"}))
            os.write(ours, b"y\n")
            async with asyncio.timeout(90):
                await until(lambda: shell.left() != [])
            drill.send_signal(signal.SIGINT)
            await drill.communicate()
            await until(lambda: shell.left() == [])
        finally:
            os.close(ours)
            if drill.returncode is None:
                drill.kill()
                await drill.communicate()

    play(story, tmp_path)


def test_a_budget_an_unready_node_and_an_unready_agent_stop_it_before_anything_is_made(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        store = shell.fake.api.store
        budget = {
            "metadata": {"name": "keep"},
            "spec": {"selector": {"matchLabels": {"k8s-app": "canal"}}},
            "status": {"disruptionsAllowed": 0},
        }
        store.create("poddisruptionbudgets.policy", "kube-system", budget)
        shell.fake.add_node("node-x", ready=False)
        store.change("daemonsets.apps", "kube-system", "rke2-canal", lambda one: one["status"].update(numberReady=2))
        code, _, err = await shell.run("--yes", *QUICK)
        assert code == 3
        for words in (
            "keep allows no disruption",
            "node-x is not ready",
            "2 of 3 pods are ready",
            "nothing was touched",
        ):
            assert words in err
        assert shell.touched() == []

    play(story, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_drill_removes_all_it_made_and_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    async def story(shell: Shell) -> None:
        process = await shell.begin("--yes", *QUICK, "--baseline", "60")
        await until(lambda: any("-probe-" in name for name in shell.fake.spools))
        process.send_signal(number)
        await process.communicate()
        assert process.returncode == 130
        await until(lambda: shell.left() == [])

    play(story, tmp_path)


def test_what_a_crashed_drill_left_is_removed_by_cleanup_and_nothing_else(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        process = await shell.begin("--yes", *QUICK, "--baseline", "60")
        await until(lambda: any("-probe-" in name for name in shell.fake.spools))
        process.kill()
        await process.communicate()
        assert len(shell.left()) >= 4
        others = len(shell.fake.api.store.all("pods", "kube-system"))
        code, out, err = await shell.run("--cleanup", "--yes")
        assert code == 0, err
        assert "removed namespace hitless-drill" in out
        await until(lambda: shell.left() == [])
        assert len(shell.fake.api.store.all("pods", "kube-system")) == others
        assert (await shell.run("--cleanup"))[1].strip() == "nothing was left"

    play(story, tmp_path)


def test_too_many_losses_abort_it_and_say_so(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        words = [*QUICK, "--rounds", "5", "--settle", "1", "--abort-after", "5"]
        code, out, err = await shell.run("--yes", "--json", "--node", "node-1", *words)
        assert code == 1, err
        (agent,) = json.loads(out)["agents"]
        assert agent["restarts"] < 5
        told = [*json.loads(out)["notes"], *agent["reasons"]]
        assert any("aborted: " in one and "--abort-after 5" in one for one in told)
        await until(lambda: shell.left() == [])

    play(story, tmp_path, gap=2.0)


def test_grace_is_what_was_asked_for(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        seen: list[int | None] = []
        terminate = shell.fake.terminate

        def note(pod: dict[str, Any], grace: int | None) -> None:
            if pod["metadata"]["name"].startswith("rke2-canal"):
                seen.append(grace)
            terminate(pod, grace)

        shell.fake.terminate = note  # type: ignore[method-assign]
        for words, wanted in ((["--grace", "7"], 7), (["--grace", "0", "--restart", "evict"], 0), ([], None)):
            await shell.run("--yes", "--node", "node-1", *QUICK, *words)
            assert seen.pop() == wanted

    play(story, tmp_path)


def test_scheduled_runs_take_turns_and_tell_events_the_log_and_metrics(tmp_path: Path) -> None:
    """What the CronJob runs, with exactly the rights of its roles: one node a run, in turn."""

    async def story(shell: Shell) -> None:
        from hitless.cluster import rehearsal
        from hitless.cluster.manifests import PodOptions
        from hitless.kube.api import connect
        from hitless.restarts.methods import ApiMethod
        from hitless.survey.cni import survey_cluster

        store = shell.fake.api.store
        store.create("namespaces", "", {"metadata": {"name": "hitless-system"}})
        async with connect(tmp_path / "kubeconfig") as api:
            pods = PodOptions("x", namespace="hitless-system")
            grants = rehearsal.grants(pods, await survey_cluster(api), ApiMethod.DELETE_POD, turn=True, tells=True)
        shell.fake.api.rights = Rights([*rules_of(grants), RbacRule("get", "", "namespaces")])
        pushed: list[tuple[str, str]] = []
        words = ["--yes", "--round-robin", "--post-events", "--json", "--namespace", "hitless-system", *QUICK]
        nodes = []
        async with gateway(pushed) as url:
            for _ in range(3):
                code, out, err = await shell.run(*words, "--push-metrics", url)
                assert code == 1, err
                assert json.loads(out)["verdict"] == "fail"
                nodes.append(store.get("configmaps", "hitless-system", "hitless-drill-turn")["data"]["last"])
        assert nodes == ["node-0", "node-1", "node-2"]
        told = store.all("events", "default")
        assert sorted(one["involvedObject"]["name"] for one in told) == ["node-0", "node-1", "node-2"]
        assert {one["reason"] for one in told} == {"DrillFailed"}
        assert [path for path, _ in pushed] == [f"/metrics/job/hitless_drill/node/node-{n}" for n in range(3)]
        assert all("hitless_drill" in text for _, text in pushed)
        assert shell.fake.api.rights.denied == []
        assert store.all("pods", "hitless-system") == []

    play(story, tmp_path)


def test_an_unknown_agent_is_asked_for_by_name(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        code, _, err = await shell.run("--yes", *QUICK)
        assert code == 3
        assert "--agent NAMESPACE/DAEMONSET, one of kube-system/mynet" in err
        code, out, err = await shell.run("--yes", "--json", "--agent", "kube-system/mynet", *QUICK)
        assert code in (0, 2), err  # 2 on a machine too busy to measure
        assert json.loads(out)["agents"][0]["agent"] == "mynet"

    agent = {
        "metadata": {"name": "mynet", "namespace": "kube-system"},
        "spec": {
            "selector": {"matchLabels": {"app": "mynet"}},
            "template": {
                "metadata": {"labels": {"app": "mynet"}},
                "spec": {"containers": [{"name": "net", "image": "example.org/mynet:1"}]},
            },
        },
    }
    play(story, tmp_path, agent=agent, gap=0.0)


@pytest.mark.parametrize(("option", "value"), [("--abort-after", "soon"), ("--to", "far.example")])
def test_what_is_wrong_is_said_before_the_server_is_asked(tmp_path: Path, option: str, value: str) -> None:
    async def story(shell: Shell) -> None:
        code, _, err = await shell.run("--yes", option, value)
        assert code == 3
        assert err.startswith(f"hitless: {option}: '{value}'")
        assert not shell.fake.api.rights.requests

    play(story, tmp_path)
