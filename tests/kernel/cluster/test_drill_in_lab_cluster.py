"""``hitless drill --cluster`` as people run it: fake API server, real kubelets' work, real rules and packets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.cluster.lab_kubelets import LabKubelets, record
from tests.kernel.drill.drills import blamed
from tests.kernel.lab.worlds import need
from tests.unit.cluster.clusters import NET_CONF, canal

from hitless import lab
from hitless.testing.api_server import FakeApi

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(180)]

HITLESS = (sys.executable, "-P", "-m", "hitless")
Story = Callable[[LabKubelets, list[str]], Coroutine[Any, Any, None]]


def play(story: Story, folder: Path, agent: str) -> None:
    plan = lab.LabPlan(nodes=2, pods_per_node=3)
    need(plan)

    async def run(built: lab.Lab) -> None:
        async with asyncio.timeout(150), FakeApi(bookmark_every=0.5).serve() as api:
            kubelets = LabKubelets(api, built, folder, agent)
            config = {"metadata": {"name": "rke2-canal-config"}, "data": {"net-conf.json": NET_CONF}}
            api.store.create("configmaps", "kube-system", config)
            kubelets.add_daemon_set(canal())
            (folder / "kubeconfig").write_text(api.kubeconfig())
            try:
                words = ["--cluster", "--yes", "--json", "--quiet", "--kubeconfig", str(folder / "kubeconfig")]
                words += [
                    "--node",
                    built.nodes[0].name,
                    "--rate",
                    "200",
                    "--streams",
                    "0",
                    "--out",
                    str(folder / "out"),
                ]
                await story(kubelets, words)
                for _ in range(600):  # their kubelets end them within the second that they were given
                    if not left(kubelets):
                        break
                    await asyncio.sleep(0.05)
                assert left(kubelets) == []
            finally:
                await kubelets.close()

    with lab.up(plan) as built:
        asyncio.run(run(built))


def left(kubelets: LabKubelets) -> list[Any]:
    """The drill's pods that are still there."""
    return [one for one in kubelets.api.store.all("pods") if "hitless" in one["metadata"]["name"]]


async def drill(words: list[str]) -> tuple[int, dict[str, Any], str]:
    process = await asyncio.create_subprocess_exec(
        *HITLESS, "drill", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    assert out, err.decode()
    (agent,) = json.loads(out)["agents"]
    return process.returncode, agent, err.decode()


@pytest.mark.parametrize("restart", ["delete-pod", "kill"])
def test_flannels_start_is_caught_by_real_pods_of_the_drill(tmp_path: Path, restart: str) -> None:
    async def story(kubelets: LabKubelets, words: list[str]) -> None:
        code, agent, _ = await drill([*words, "--restart", restart, "--rounds", "1"])
        events = record(tmp_path / "out/events.jsonl")
        assert code == 1, agent["reasons"]
        assert agent["rounds"] == 1
        assert agent["gaps"] >= 1
        assert agent["attempted"] > 200
        ended = {one["stream"] for one in events if one["type"] == "summary" and one.get("stream")}
        assert ended >= {"probe", "watch", "farend", "control_host", "control_pods"}
        sent = sum(one["sent"] for one in events if one["type"] == "attempts" and one["stream"] == "probe")
        assert sent == agent["attempted"]
        lost = [one for one in events if one["type"] == "loss" and one["stream"].startswith("control")]
        assert {one["cause"] for one in lost} <= {"starved"}, "the controls do not pass the egress path"
        assert all(one["metadata"].get("deletionTimestamp") for one in left(kubelets))

    play(story, tmp_path, "flannel-0.28")


def test_an_agent_that_keeps_its_rules_loses_nothing(tmp_path: Path) -> None:
    async def story(kubelets: LabKubelets, words: list[str]) -> None:
        code, agent, _ = await drill([*words, "--restart", "evict", "--rounds", "1"])
        assert code in (0, 2), agent["reasons"]  # 2 on a machine too busy to measure
        assert (agent["rounds"], agent["gaps"], blamed(agent)) == (1, 0, 0)

    play(story, tmp_path, "adopter")
