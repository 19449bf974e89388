"""A rollout's metrics: what they say in each state, and that no failed export ends a rollout."""

from __future__ import annotations

import asyncio
import datetime as dt
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from tests.unit.cli.test_rollout_report import STATE

from hitless.cli.rollout_metrics import MetricsExport
from hitless.operations.rollout.metrics import render
from hitless.operations.rollout.values import Rollout
from hitless.testing.endings import finish_turns, stop_listening

AT = dt.datetime(2026, 1, 2, 13, tzinfo=dt.UTC)


def values(state: Rollout) -> dict[str, float]:
    lines = [one.rpartition(" ") for one in render(state, AT).splitlines() if not one.startswith("#")]
    return {name.removeprefix("hitless_rollout_"): float(value) for name, _, value in lines}


def test_a_stopped_rollout_is_told_from_one_that_is_driven_and_one_that_ended() -> None:
    agent = 'agent="kube-system/rke2-canal"'
    driven = msgspec.structs.replace(STATE, driver="me", stopped="")
    ended = msgspec.structs.replace(STATE, phase="ended", ended="2026-01-02T12:30:00Z")
    for state, now in ((STATE, "stopped"), (driven, "driven"), (ended, "ended")):
        found = values(state)
        assert {one: found[f'state{{{agent},state="{one}"}}'] for one in ("driven", "stopped", "ended")} == {
            "driven": now == "driven",
            "stopped": now == "stopped",
            "ended": now == "ended",
        }
        assert (f"end_timestamp_seconds{{{agent}}}" in found) == (now == "ended")
    assert values(driven)[f"update_timestamp_seconds{{{agent}}}"] == AT.timestamp()


def test_nodes_losses_and_verdicts_are_counted() -> None:
    found, agent = values(STATE), 'agent="kube-system/rke2-canal"'
    assert found[f'nodes{{{agent},state="done"}}'] == 2
    assert found[f'nodes{{{agent},state="pending"}}'] == 1
    assert (found[f"attempted{{{agent}}}"], found[f"lost{{{agent}}}"]) == (27_204, 31)
    assert found[f'verdict{{{agent},verdict="fail"}}'] == 1
    assert found[f'node_lost{{{agent},node="worker-2"}}'] == 31
    assert found[f'node_verdict{{{agent},node="worker-1",verdict="pass"}}'] == 1
    assert not any("worker-3" in name for name in found), "it was not restarted yet"
    info = next(name for name in found if name.startswith("info"))
    assert 'rollout="7f"' in info and 'change="image"' in info and 'direction="forward"' in info


def test_what_others_wrote_into_the_record_is_escaped() -> None:
    odd = msgspec.structs.replace(STATE, driver='a"} 1\nevil{x="\x1b[2J')
    assert all(line.startswith(("#", "hitless_rollout_")) for line in render(odd, AT).splitlines())
    assert "\x1b" not in render(odd, AT)


def test_they_are_written_whole_for_other_users_and_pushed_for_each_agent(tmp_path: Path) -> None:
    pushed: list[tuple[str, str, str]] = []

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        pushed.append((request.method, request.path, await request.text()))
        return web.Response(status=200)

    file = tmp_path / "hitless.prom"

    async def run() -> None:
        pushes = web.Server(take)
        server = await asyncio.get_running_loop().create_server(pushes, "127.0.0.1", 0)
        try:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            export = MetricsExport(file, url, pytest.fail)
            await export.update(STATE)
            await export.update(msgspec.structs.replace(STATE, driver="me"))
        finally:
            await stop_listening(server)
            await pushes.shutdown(1.0)
            await finish_turns()

    asyncio.run(run())
    assert [(method, path) for method, path, _ in pushed] == [
        ("PUT", "/metrics/job/hitless_rollout/agent/kube-system.rke2-canal")
    ] * 2
    assert 'state="stopped"} 1' in pushed[0][2]
    assert 'state="driven"} 1' in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["hitless.prom"]


def test_an_export_that_fails_is_reported_once_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    export = MetricsExport(tmp_path / "gone" / "x.prom", "http://127.0.0.1:9", said.append)

    async def run() -> None:
        for _ in range(3):
            await export.update(STATE)

    asyncio.run(run())
    assert len(said) == 2 and all("the rollout goes on" in one for one in said), said
    assert str(tmp_path / "gone" / "x.prom") in said[0] and "No such file" in said[0]
    asyncio.run(MetricsExport(None, "", pytest.fail).update(STATE))
