"""The port to the API server, on the wire: lists, watches, refusals, cut connections, exec."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.clusters import play, until

from hitless.cluster import clocks
from hitless.errors import ApiError, InputError
from hitless.kube import streams
from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import CONFIG_MAPS, NODES, PODS
from hitless.testing.api_kubelet import FakeNodes, Spool
from hitless.testing.api_rights import RbacRule, Rights
from hitless.testing.api_server import FakeApi
from hitless.testing.api_store import StatusError


def configmap(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


def test_a_long_list_is_read_in_pages(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        for number in range(1203):
            fake.api.store.create("configmaps", "default", configmap(f"c{number:04}"))
        found = await api.all(CONFIG_MAPS, "default")
        assert [one.name for one in found] == [f"c{number:04}" for number in range(1203)]
        assert sum(1 for request in fake.api.rights.requests if request.verb == "list") == 3

    play(story, tmp_path)


@pytest.mark.slow
def test_a_watch_gives_whole_states_over_changes_bookmarks_and_410(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        seen: list[set[str]] = []

        async def look() -> None:
            async for state in api.states(CONFIG_MAPS, "default"):
                seen.append({one.name for one in state.values()})
                if "last" in seen[-1]:
                    return

        looking = asyncio.create_task(look())
        await until(lambda: bool(seen))
        fake.api.store.create("configmaps", "default", configmap("a"))
        await until(lambda: {"a"} in seen)
        fake.api.faults.cut(0.05)
        fake.api.store.remove("configmaps", "default", "a")
        fake.api.store.create("configmaps", "default", configmap("b"))
        fake.api.store.compact()  # what happened in between can only be seen by listing again
        await until(lambda: {"b"} in seen)
        await asyncio.sleep(0.3)  # long enough for a bookmark
        fake.api.store.compact()
        fake.api.store.create("configmaps", "default", configmap("last"))
        await looking
        assert seen[-1] == {"b", "last"}

    play(story, tmp_path)


@pytest.mark.slow
def test_the_fake_tells_a_change_of_the_very_moment_in_which_a_bookmark_is_due(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        seen: list[set[str]] = []

        async def look() -> None:
            async for state in api.states(CONFIG_MAPS, "default"):
                seen.append({one.name for one in state.values()})
                if "late" in seen[-1]:
                    return

        looking = asyncio.create_task(look())
        await until(lambda: any(one.verb == "watch" for one in fake.api.rights.requests))
        await asyncio.sleep(fake.api.bookmark_every / 2)
        asyncio.get_running_loop().call_later(
            fake.api.bookmark_every * 1.2, fake.api.store.create, "configmaps", "default", configmap("late")
        )
        time.sleep(fake.api.bookmark_every * 2)  # noqa: ASYNC251 - stopped: both are due at once, the bookmark first
        async with asyncio.timeout(90):
            await looking

    play(story, tmp_path)


def test_a_refusal_is_said_in_the_servers_words_with_the_remedy(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.rights = Rights([RbacRule("list", "", "nodes")])
        assert len(await api.all(NODES)) == 2
        with pytest.raises(ApiError, match=r'cannot list resource "pods" in API group "".*--dry-run') as caught:
            await api.all(PODS, "default")
        assert caught.value.status == 403

    play(story, tmp_path)


def test_passing_troubles_are_waited_out_and_answers_are_not(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.faults.failures = [
            StatusError(503, "ServiceUnavailable", "later"),
            StatusError(429, "TooManyRequests", "slow down"),
        ]
        assert len(await api.all(NODES)) == 2
        fake.api.faults.failures = [StatusError(400, "BadRequest", "what?")]
        with pytest.raises(ApiError, match="what") as caught:
            await api.all(NODES)
        assert caught.value.status == 400

    play(story, tmp_path)


def test_a_create_whose_answer_was_lost_is_not_done_twice(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create("configmaps", "default", configmap("mine"))
        fake.api.faults.failures = [StatusError(504, "Timeout", "the answer got lost")]
        assert await api.create(CONFIG_MAPS, configmap("mine"), "default") is None
        with pytest.raises(ApiError, match="already exists"):  # without a lost answer it is somebody else's
            await api.create(CONFIG_MAPS, configmap("mine"), "default")

    play(story, tmp_path)


def test_a_server_that_stays_away_is_given_up_after_the_patience(tmp_path: Path) -> None:
    async def run() -> None:
        async with FakeApi().serve() as fake:
            path = tmp_path / "kubeconfig"
            path.write_text(fake.kubeconfig())
        waits: list[float] = []
        clock = [0.0]

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            clock[0] += seconds

        async with connect(path, patience=Patience(total=60, sleep=sleep, now=lambda: clock[0])) as api:
            with pytest.raises(ApiError, match="cannot be reached") as caught:
                await api.all(NODES)
        assert caught.value.status == 0
        assert 45 < sum(waits) <= 60
        assert max(waits) <= 5

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", ["", "a: [", "clusters: 3\ncontexts: []\n", '{"clusters": [], "contexts": [], "current-context": "x"}']
)
def test_a_kubeconfig_that_does_not_parse_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(InputError, match="kubeconfig"):
        connect(path)


def test_a_delete_hits_only_the_object_that_was_seen(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.store.create("configmaps", "default", configmap("x"))
        assert not await api.delete(CONFIG_MAPS, "x", "default", uid="another")
        assert fake.api.store.get("configmaps", "default", "x")
        assert await api.delete(CONFIG_MAPS, "x", "default")
        assert not await api.delete(CONFIG_MAPS, "x", "default")

    play(story, tmp_path)


def runner(fake: FakeNodes, spool: Spool) -> None:
    """A pod that hands out this spool."""
    document = {
        "metadata": {"name": "pod"},
        "spec": {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]},
    }
    fake.api.store.create("pods", "default", document)
    fake.spools["pod"] = spool


async def running(fake: FakeNodes) -> None:
    await until(lambda: (fake.api.store.get("pods", "default", "pod").get("status") or {}).get("phase") == "Running")


def reading(offset: int) -> list[str]:
    return ["hitless", "relay", "read", "--spool", "/spool", "--from", str(offset)]


@pytest.mark.slow
@pytest.mark.parametrize("protocols", [("v5.channel.k8s.io", "v4.channel.k8s.io"), ("v4.channel.k8s.io",)])
def test_a_stream_that_is_cut_again_and_again_arrives_whole(tmp_path: Path, protocols: tuple[str, ...]) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.protocols = protocols
        spool = Spool()
        expected = [b"line %d %s" % (number, b"x" * (number % 97)) for number in range(20_000)]
        runner(fake, spool)
        await running(fake)
        got: list[bytes] = []
        resumed: list[int] = []

        async def connected(lines: int) -> None:
            await until(lambda: len(got) > lines)

        async def write() -> None:
            for start in range(0, len(expected), 500):
                spool.data += b"".join(line + b"\n" for line in expected[start : start + 500])
                spool.grown.set()
                spool.grown = asyncio.Event()
                await asyncio.sleep(0.02)
                if start % 5000 == 0:
                    await connected(start)
                    fake.api.faults.cut(0.05)
            spool.done = True
            spool.grown.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(
                streams.follow(
                    api, "pod", "default", "c", reading, got.append, resumed=lambda at, _: resumed.append(at)
                )
            )
        assert got == expected
        assert len(resumed) >= 3, "the connection was never cut: nothing was tested"

    play(story, tmp_path)


def test_a_command_that_fails_tells_its_code_and_one_that_is_refused_its_status(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        runner(fake, Spool())
        with pytest.raises(ApiError):
            await streams.output(api, "pod", "default", "c", ["x"])  # it does not run yet
        await running(fake)
        with pytest.raises(ApiError, match="ended with 127"):
            await streams.output(api, "pod", "default", "c", ["no-such-program"])
        fake.api.rights = Rights([])
        with pytest.raises(ApiError) as caught:
            await streams.output(api, "pod", "default", "c", ["x"])
        assert caught.value.status == 403

    play(story, tmp_path)


def test_a_nodes_clock_is_measured_through_the_connection_within_its_own_bound(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.offsets["node-0"] = 1_234_567_890
        runner(fake, Spool())
        await running(fake)
        offset = await clocks.measure(api, "pod", "default", "c", lambda: fake.now("another"))
        assert abs(offset.ns - 1_234_567_890) <= offset.uncertainty_ns
        assert offset.uncertainty_ns < 1_000_000_000

    play(story, tmp_path)


def test_only_times_are_moved_to_the_drivers_clock() -> None:
    from hitless.model import events as e

    gap = e.Gap(t=5000, family="ipv4", network="10.42.0.0/16", begin=1000, end=5000)
    assert clocks.shifted(gap, -1000) == e.Gap(t=4000, family="ipv4", network="10.42.0.0/16", begin=0, end=4000)
    count = e.Attempts(t=10, interval_ns=7, kind="tcp", family="ipv4", sent=3, ok=3)
    assert clocks.shifted(count, 5) == e.Attempts(t=15, interval_ns=7, kind="tcp", family="ipv4", sent=3, ok=3)
    assert clocks.shifted(e.LostEvents(t=3), 4) == e.LostEvents(t=7)  # resynced 0 means never
