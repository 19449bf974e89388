"""Two drills in one cluster: they meet where they would spoil each other's measurement, and only there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.contract.cluster.test_cluster_command import QUICK, Shell, play
from tests.contract.cluster.test_cluster_drill import drill
from tests.contract.cluster.test_cluster_drill import play as play_by_hand
from tests.unit.cluster.clusters import until

from hitless.errors import MissingError
from hitless.kube.api import Api
from hitless.model import events as e
from hitless.testing.api_kubelet import FakeNodes, Spool

TAKEN = "farend ended with 3: hitless: --bind: cannot listen at 192.0.2.1 port 7801: Address already in use"


ELSEWHERE = ["--to", "farend://198.51.100.1"]


def test_a_drill_is_refused_before_anything_is_made_where_it_would_meet_another_one(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        first = await shell.begin("--yes", "--json", *QUICK, "--node", "node-1", "--baseline", "240")
        await until(lambda: any("-probe-" in name and spool.sent for name, spool in shell.fake.spools.items()))
        before, made = shell.left(), len(shell.fake.pods_made)
        drill = shell.fake.pods_made[-1]["metadata"]["labels"]["hitless.dev/drill"]
        *refused, told, free = await asyncio.gather(
            shell.run("--yes", *QUICK, "--node", "node-1", *ELSEWHERE),
            shell.run("--yes", *QUICK, "--node", "node-2"),
            shell.run("--yes", *QUICK, "--node", "node-2", "--restart", "rollout-restart", *ELSEWHERE),
            shell.run("--dry-run", "--node", "node-1"),
            shell.run("--dry-run", "--node", "node-2", *ELSEWHERE),
        )
        at_work = f"another drill, {drill}, is at work on node-1 (pod hitless-drill/hitless-"
        has_ports = f"another drill, {drill}, has its far end on node-0, ports 7801 to 7880 (pod hitless-drill/hitless-"
        for (code, _, err), said in zip(refused, (at_work, has_ports, at_work), strict=True):
            assert code == 3
            assert f"not now: {said}" in err
            assert "if it was killed: hitless drill --cleanup --namespace hitless-drill" in err
            assert "nothing was touched" in err
        code, out, err = told
        assert code == 0, err
        assert f"# not now: {at_work}" in out
        assert f"# not now: {has_ports}" in out
        code, out, err = free
        assert code == 0, err
        assert "not now" not in out, "they do not meet"
        assert shell.left() == before
        assert len(shell.fake.pods_made) == made
        assert first.returncode is None
        first.terminate()
        await first.communicate()

    play(story, tmp_path)


def test_what_an_ended_drill_left_is_in_nobodys_way(tmp_path: Path) -> None:
    async def story(shell: Shell) -> None:
        process = await shell.begin("--yes", "--json", *QUICK, "--baseline", "240", "--node", "node-1")
        store = shell.fake.api.store

        def ours() -> list[dict[str, Any]]:
            return [pod for pod in store.all("pods") if "hitless" in pod["metadata"]["name"]]

        def ready(pod: dict[str, Any]) -> bool:
            return {"type": "Ready", "status": "True"} in pod.get("status", {}).get("conditions", [])

        # two peers, the far end, the watch and the probe: no kubelet writes a status after that
        await until(lambda: len(ours()) == 5 and all(map(ready, ours())))
        process.kill()
        await process.communicate()
        for pod in ours():  # its deadline came
            place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
            store.change("pods", place, name, lambda one: one["status"].update(phase="Failed"))
        code, out, err = await shell.run("--dry-run", "--node", "node-1")
        assert code == 0, err
        assert "not now" not in out

    play(story, tmp_path)


def test_a_far_end_whose_ports_are_taken_ends_the_drill_before_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FakeNodes.relay

    async def relay(self: FakeNodes, pod: dict[str, Any]) -> None:
        if "-farend-" not in pod["metadata"]["name"]:
            await real(self, pod)
            return
        spool = self.spools.setdefault(pod["metadata"]["name"], Spool())
        spool.write("relay", e.Note(t=self.now("node-0"), level="error", text=TAKEN))
        spool.done = True

    monkeypatch.setattr(FakeNodes, "relay", relay)

    async def story(fake: FakeNodes, api: Api) -> None:
        agents = {one["metadata"]["name"] for one in fake.pods_made}
        with pytest.raises(MissingError, match=f"the farend on node-0 does not begin .*{TAKEN}; .*--to"):
            await drill(fake, api, tmp_path)
        made = {one["metadata"]["labels"].get("app.kubernetes.io/component") for one in fake.pods_made}
        assert made == {None, "peer", "farend"}, "nothing probes what somebody else answers"
        assert {one["metadata"]["name"] for one in fake.pods_made if "hitless" not in one["metadata"]["name"]} == agents

    play_by_hand(story, tmp_path)
