"""``drill --cleanup``: it lists, asks, leaves alone what is alive, and a dry run changes nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.contract.cluster.test_cluster_command import QUICK, Shell, play
from tests.contract.cluster.test_cluster_drill import play as play_by_hand
from tests.unit.cluster.clusters import until

from hitless.cluster import heartbeat, leftovers
from hitless.cluster.manifests import PodOptions
from hitless.cluster.target import placed
from hitless.kube.api import Api
from hitless.survey.cni import survey_cluster
from hitless.survey.nodes import choose
from hitless.testing.api_kubelet import FakeNodes


async def at_work(shell: Shell, *words: str) -> asyncio.subprocess.Process:
    """A drill in the middle of its baseline."""
    process = await shell.begin("--yes", *QUICK, "--node", "node-1", "--baseline", "120", *words)
    await until(lambda: any("-probe-" in name and spool.sent for name, spool in shell.fake.spools.items()))
    return process


def test_a_dry_run_of_cleanup_lists_what_would_go_and_changes_nothing(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        process = await at_work(shell)
        process.kill()
        await process.communicate()
        there, touched = shell.left(), len(shell.touched())
        code, out, err = await shell.run("--cleanup", "--dry-run")
        assert (code, shell.left(), len(shell.touched())) == (0, there, touched), err
        assert "dead (its process on this machine has ended)" in out
        assert all(name in out for name in there)
        assert out.endswith("dry run: nothing was removed\n")
        # and there is no terminal to ask on
        code, out, err = await shell.run("--cleanup")
        assert (code, shell.left(), len(shell.touched())) == (3, there, touched)
        assert "--yes, which answers yes to: Remove" in err
        code, out, err = await shell.run("--cleanup", "--yes", "--json")
        told = json.loads(out)
        assert (code, len(told["removed"])) == (0, len(there)), err
        assert (told["drills"][0]["state"], told["dry_run"]) == ("dead", False)
        await until(lambda: shell.left() == [])

    play(story, tmp_path)


def elsewhere(shell: Shell) -> None:
    """As if the drill's driver ran on another machine."""
    store = shell.fake.api.store
    for one in store.all("configmaps"):
        if "hitless-drill" in one["metadata"]["name"]:
            place, name = one["metadata"]["namespace"], one["metadata"]["name"]
            store.change("configmaps", place, name, lambda owner: owner["data"].update(process="other 1 2 3"))


def test_a_colleagues_drill_is_left_alone_and_says_so_when_it_is_taken_away_by_force(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        process = await at_work(shell, "--json")
        there = shell.left()
        code, out, err = await shell.run("--cleanup", "--yes")
        assert (code, shell.left()) == (0, there), err
        assert "alive (its process runs on this machine), by " in out
        assert "is at work and is left alone; --force would end it" in out
        elsewhere(shell)
        code, out, err = await shell.run("--cleanup", "--yes")
        assert (code, shell.left()) == (0, there), err
        assert "alive (it gives signs of life), by " in out
        code, out, err = await shell.run("--cleanup", "--yes", "--force")
        assert code == 0, err
        assert "removed namespace hitless-drill" in out
        out_, err_ = (text.decode() for text in await process.communicate())
        assert process.returncode == 2, err_
        (agent,) = json.loads(out_)["agents"]
        reasons = "; ".join(agent["reasons"])
        for role in ("probe on node-1", "watch on node-1", "farend on node-0", "peer on node-0", "peer on node-2"):
            assert f"({role}) while this drill was using it" in reasons, (role, reasons)
        folder = tmp_path / "out1"
        for name in ("events.jsonl", "report.html", "report.json", "junit.xml"):
            assert "somebody removed the pod hitless-drill/hitless-" in (folder / name).read_text(), name
        assert "somebody removed the pod hitless-drill/hitless-" in err_

    play(story, tmp_path)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_drill_whose_signs_of_life_stop_is_dead_and_one_that_never_gave_any_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    monkeypatch.setattr(heartbeat, "LOOK", 2.0)
    monkeypatch.setattr(heartbeat, "BEAT", 0.3)

    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        if not stopped:

            async def silent(*_: Any) -> None:
                await asyncio.sleep(600)

            monkeypatch.setattr(heartbeat, "beat", silent)
        async with placed(api, survey, nodes, PodOptions("x1"), own_far_end=True, tell=lambda _: None):
            if stopped:
                owner = ("configmaps", "hitless-drill", "hitless-drill-x1")
                await until(lambda: "annotations" in fake.api.store.get(*owner)["metadata"])
                (found,) = await leftovers.judge(api, await leftovers.list_drills(api, ["hitless-drill"]))
                assert (found.life, found.why) == ("alive", "it gives signs of life")
                beats = [task for task in asyncio.all_tasks() if "beat" in repr(task.get_coro())]
                for task in beats:
                    task.cancel()
            (found,) = await leftovers.judge(api, await leftovers.list_drills(api, ["hitless-drill"]))
            assert found.life == ("dead" if stopped else "unknown"), found.why
            assert len(found.objects) == 4  # two peers, the owner, the namespace

    play_by_hand(story, tmp_path)
