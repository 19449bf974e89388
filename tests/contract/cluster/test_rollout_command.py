"""``hitless rollout``, the command itself, in a process of its own against the fake API server and its nodes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cluster.clusters import cluster, until

from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import Rights, rules_of
from hitless.testing.api_store import Document, Stored

HITLESS = (sys.executable, "-P", "-m", "hitless", "rollout")
QUICK = ("--probe", "1", "--bake", "3", "--rate", "100", "--progress", "lines")
IMAGE = "kube-flannel=flannel:v0.28.9"


class Shell:
    """Runs the command with a kubeconfig for the fake, and counts the agent's pods that went."""

    def __init__(self, fake: FakeNodes, folder: Path) -> None:
        self.fake, self.folder, self.runs = fake, folder, 0
        self.gone: Counter[str] = Counter()
        self.at_first: Callable[[], None] = lambda: None
        """Called in the moment in which the first of them is gone: whoever rolls out cannot know it yet."""
        (folder / "kubeconfig").write_text(fake.api.kubeconfig())
        fake.api.store.listeners.append(self._seen)

    def _seen(self, event: Stored) -> None:
        if event.resource == "pods" and event.type == "DELETED" and "canal" in event.document["metadata"]["name"]:
            self.gone[event.document["spec"]["nodeName"]] += 1
            if self.gone.total() == 1:
                self.at_first()

    async def begin(self, verb: str, *words: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self.runs += 1
        out = ["--out", str(self.folder / f"out{self.runs}")] if verb not in ("status", "end") else []
        line = [*HITLESS, verb, "--kubeconfig", str(self.folder / "kubeconfig"), *words, *out]
        return await asyncio.create_subprocess_exec(*line, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)

    async def run(self, verb: str, *words: str) -> tuple[int, str, str]:
        process = await self.begin(verb, *words)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    @property
    def strategy(self) -> Document:
        found: Document = self.fake.api.store.objects[("daemonsets.apps", "kube-system", "rke2-canal")]["spec"]
        return found["updateStrategy"]  # type: ignore[no-any-return]

    def left(self) -> list[str]:
        """What is left of the pods that measured."""
        store = self.fake.api.store
        found = [*store.all("pods"), *store.all("configmaps"), *store.all("namespaces")]
        return [one["metadata"]["name"] for one in found if "hitless-drill" in one["metadata"]["name"]]


def play(story: Callable[[Shell], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(2, **options) as fake:
            shell = Shell(fake, folder)
            fake.api.store.change(
                *("daemonsets.apps", "kube-system", "rke2-canal"),
                lambda one: one["spec"].__setitem__("updateStrategy", {"type": "RollingUpdate"}),
            )
            await until(lambda: sum("status" in pod for pod in fake.api.store.all("pods")) == 2)
            await story(shell)

    asyncio.run(run())


@pytest.mark.parametrize("words", [("restart", "--post-events"), ("image", IMAGE)], ids=["restart", "image"])
def test_it_runs_with_the_rights_that_its_plan_printed_and_no_others(tmp_path: Path, words: tuple[str, ...]) -> None:
    async def story(shell: Shell) -> None:
        code, printed, err = await shell.run(*words, "--plan")
        assert code == 0, err
        reading = ("get", "list", "watch")
        assert [one for one in shell.fake.api.rights.requests if one.verb not in reading] == []
        assert "# step 1: node-1 (no guard)\n# step 2: node-0 (no guard)" in printed
        documents = [one for one in yaml.safe_load_all(printed) if one]
        shell.fake.api.rights = Rights(rules_of(documents))
        code, out, err = await shell.run(*words, "--yes", "--json", *QUICK)
        told = json.loads(out)
        assert (code, told["verdict"], told["state"]) == (0, "pass", "ended"), err
        assert dict(shell.gone) == {"node-0": 1, "node-1": 1}
        await until(lambda: shell.left() == [])  # its kubelets end them within the second that they were given
        assert [str(one) for one in shell.fake.api.rights.denied] == []
        assert [str(rule) for rule in shell.fake.api.rights.unused] == []
        assert shell.strategy == {"type": "RollingUpdate"}
        logs = sorted(path.parent.name for path in (tmp_path / "out2").glob("*/report.json"))
        assert logs == ["001-node-1", "002-node-0"]
        posted = {one["involvedObject"]["name"]: one for one in shell.fake.api.store.all("events")}
        assert set(posted) == ({"node-0", "node-1"} if "--post-events" in words else set())
        for one in posted.values():
            assert (
                one["reason"] == "RolloutStepPassed"
                and "restart of kube-system/rke2-canal: pass, 0 of " in one["message"]
            )

    play(story, tmp_path, gap=0.0, start_delay=0.3)  # slow enough for every watch to be needed


def test_it_stops_at_the_first_loss_is_refused_a_second_time_and_undone(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        code, out, err = await shell.run("image", IMAGE, "--yes", *QUICK)
        assert (code, dict(shell.gone)) == (1, {"node-1": 1}), err
        assert "FAIL: image kube-flannel=flannel:v0.28.9 of kube-system/rke2-canal: 1 of 2 nodes, stopped" in out
        assert "why: the first loss: node-1: lost " in out
        assert "has updateStrategy OnDelete until then: hitless rollout resume, undo or end" in out
        code, out, err = await shell.run("restart", "--yes", *QUICK)
        assert (code, out, shell.gone.total()) == (3, "", 1)
        assert "a rollout of kube-system/rke2-canal (image kube-flannel=flannel:v0.28.9) is under way, stopped" in err
        assert (await shell.run("status"))[0] == 1
        shell.fake.gap = 0.0
        code, out, err = await shell.run("undo", "--yes", "--json")
        told = json.loads(out)
        assert (code, told["verdict"], told["state"], told["direction"]) == (0, "pass", "ended", "undo"), err
        assert dict(shell.gone) == {"node-1": 2}
        assert shell.strategy == {"type": "RollingUpdate"}

    play(story, tmp_path)


async def killed_after_a_delete(shell: Shell) -> None:
    """A rollout whose driver is killed when it has deleted the first node's pod, before it can judge that."""
    process = await shell.begin("restart", "--yes", *QUICK)
    shell.at_first = lambda: process.send_signal(signal.SIGSTOP)  # it lives, and comes no further
    await until(lambda: shell.gone.total() == 1)
    code, _, err = await shell.run("resume", "--yes")
    assert (code, "drives it (its process runs on this machine)" in err) == (3, True), err
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    assert shell.left() != []


@pytest.mark.parametrize("gap", [0.0, 0.5], ids=["nothing lost", "lost while nobody drove"])
def test_what_a_restart_cost_is_known_although_its_driver_was_killed(tmp_path: Path, gap: float) -> None:
    """Its pods probe on, and whoever goes on hears them from their first line on."""

    async def story(shell: Shell) -> None:
        await killed_after_a_delete(shell)
        shell.fake.gap = 0.0
        code, out, err = await shell.run("resume", "--yes", "--json")
        assert out, err
        told = json.loads(out)
        nodes = {one["node"]: one for one in told["nodes"]}
        assert not any(one["unseen"] for one in nodes.values())
        assert nodes["node-1"]["attempted"] > 100, err
        if gap:
            assert (code, told["state"], told["verdict"]) == (1, "stopped", "fail"), err
            assert nodes["node-1"]["lost"] > 0 and shell.gone == {"node-1": 1}
        else:
            assert (code, told["state"], told["verdict"]) == (0, "ended", "pass"), err
            assert dict(shell.gone) == {"node-0": 1, "node-1": 1}
        await until(lambda: shell.left() == [])

    play(story, tmp_path, gap=gap)


def test_a_restart_that_nobody_measured_is_told_as_such(tmp_path: Path) -> None:
    """The driver was killed, and its pods are gone too."""

    async def story(shell: Shell) -> None:
        await killed_after_a_delete(shell)
        for pod in shell.fake.api.store.all("pods"):
            if "-probe-" in pod["metadata"]["name"]:
                shell.fake.terminate(pod, 0)
        code, out, err = await shell.run("resume", "--yes", "--json")
        told = json.loads(out)
        assert (code, told["state"], told["verdict"]) == (2, "ended", "inconclusive"), err
        assert dict(shell.gone) == {"node-0": 1, "node-1": 1}
        assert [(one["node"], one["verdict"], one["unseen"]) for one in told["nodes"]] == [
            ("node-1", "inconclusive", True),
            ("node-0", "pass", False),
        ]
        await until(lambda: shell.left() == [])

    play(story, tmp_path, gap=0.0)


def test_a_driver_that_is_told_to_end_leaves_everything_for_the_next_one(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        process = await shell.begin("image", IMAGE, "--yes", *QUICK)
        shell.at_first = process.terminate
        await until(lambda: shell.gone.total() == 1)
        await process.communicate()
        assert process.returncode == 130
        await until(lambda: shell.left() == [])
        code, out, _ = await shell.run("status", "--json")
        told = json.loads(out)
        assert (told["state"], told["stopped"], told["driver"]) == ("stopped", "interrupted", None)
        code, out, err = await shell.run("end", "--yes")
        assert (code, shell.strategy) == (0, {"type": "RollingUpdate"}), err
        await until(lambda: dict(shell.gone) == {"node-0": 1, "node-1": 1})  # now by the controller

    play(story, tmp_path, gap=0.0)


def test_no_drill_begins_between_two_steps_of_a_rollout_that_somebody_drives(tmp_path: Path) -> None:
    """There are no pods of a step then: only the record says that the next one is about to begin."""

    async def story(shell: Shell) -> None:
        drill = [*HITLESS[:-1], "drill", "--cluster", "--kubeconfig", str(tmp_path / "kubeconfig"), "--node", "node-1"]

        async def drilled(*words: str) -> tuple[int, str]:
            process = await asyncio.create_subprocess_exec(
                *drill, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=-2
            )
            out, _ = await process.communicate()
            assert process.returncode is not None
            return process.returncode, out.decode()

        first = await shell.begin("restart", "--yes", "--first", "node-0", *QUICK, "--bake", "200")
        await until(lambda: shell.gone["node-0"] == 1)
        made = len(shell.fake.pods_made)
        code, told = await drilled("--yes", "--to", "farend://198.51.100.1")
        assert code == 3, told
        assert "not now: a rollout of kube-system/rke2-canal (restart) is under way, driven by" in told
        assert "its process runs on this machine" in told and "nothing was touched" in told
        code, _, told = await shell.run("resume", "--yes")
        assert (code, "drives it (its process runs on this machine)" in told) == (3, True), told
        code, told = await drilled("--dry-run")
        assert (code, "# not now: a rollout of kube-system/rke2-canal" in told) == (0, True), told
        assert len(shell.fake.pods_made) == made
        first.kill()  # nobody drives it now: who looks for the reason of a loss may drill
        await first.communicate()
        code, told = await drilled("--dry-run", "--to", "farend://198.51.100.1")
        assert (code, "a rollout of" in told) == (0, False), told
        assert "get the ConfigMap hitless-rollout in kube-system" in told

    play(story, tmp_path, gap=0.0)


def test_it_needs_a_window_and_a_guard_where_they_are_asked_for(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        windows = tmp_path / "windows.toml"
        windows.write_text('[[window]]\nname = "leap"\ncron = "0 0 29 2 *"\nduration = "1h"\n')
        code, _, err = await shell.run("restart", "--yes", "--window", str(windows))
        assert (code, "not now: no maintenance window of" in err) == (3, True), err
        code, _, err = await shell.run("restart", "--yes", "--require-guard")
        assert (code, "no hitless guard is installed" in err) == (3, True), err
        assert shell.gone.total() == 0
        assert ("configmaps", "kube-system", "hitless-rollout") not in shell.fake.api.store.objects
        forced = ("--window", str(windows), "--force-window", "ticket 7")
        code, out, err = await shell.run("restart", "--yes", "--json", "--steps", "1", *forced, *QUICK)
        told = json.loads(out)
        assert (code, told["state"]) == (2, "stopped"), err
        assert told["forced"][0].endswith(" ticket 7")
        code, _, err = await shell.run("resume", "--yes")
        assert (code, "goes by the maintenance windows of" in err) == (3, True), err

    play(story, tmp_path, gap=0.0)
