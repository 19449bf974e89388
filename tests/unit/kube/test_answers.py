"""The client against answers in kube-apiserver's own form (tests/samples/kubernetes), and the fake against the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.cluster.clusters import client, cluster

from hitless.errors import ApiError
from hitless.kube import streams
from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import CONFIG_MAPS, PODS
from hitless.testing.api_store import StatusError
from hitless.testing.endings import finish_turns, stop_listening

SAMPLES = json.loads((Path(__file__).parents[2] / "samples/kubernetes/answers.json").read_text())
ANSWERS: dict[str, dict[str, Any]] = SAMPLES["answers"]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def response(name: str) -> web.Response:
    one = ANSWERS[name]
    if "text" in one:
        return web.Response(status=one["status"], text=one["text"], headers=one["headers"])
    return web.json_response(one["body"], status=one["status"])


@asynccontextmanager
async def server(handler: Handler, folder: Path, total: float = 30.0) -> AsyncIterator[Api]:
    """A client for a server that is nothing but this handler."""
    serving = web.Server(handler)
    listening = await asyncio.get_running_loop().create_server(serving, "127.0.0.1", 0)
    document = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    try:
        async with connect(path, patience=Patience(total=total, first=0.02, longest=0.1)) as api:
            yield api
    finally:
        await stop_listening(listening)
        await serving.shutdown(0.1)
        await finish_turns()


@pytest.mark.parametrize("name", [name for name, one in ANSWERS.items() if one["status"] in (401, 403, 404, 422)])
def test_a_final_refusal_is_told_at_once_in_the_servers_words(tmp_path: Path, name: str) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return response(name)

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            with pytest.raises(ApiError) as caught:
                await api.create(PODS, {"metadata": {"name": "x"}}, "default")
        assert caught.value.status == ANSWERS[name]["status"]
        assert ANSWERS[name]["body"]["message"] in str(caught.value)
        assert len(asked) == 1

    asyncio.run(run())


@pytest.mark.parametrize("name", ["eviction_budget", "eviction_two_budgets"])
def test_an_eviction_that_is_refused_is_not_asked_again(tmp_path: Path, name: str) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return response(name)

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            with pytest.raises(ApiError, match=r"[Bb]udget"):
                await api.evict("rke2-canal-x", "kube-system")
        assert asked == ["/api/v1/namespaces/kube-system/pods/rke2-canal-x/eviction"]

    asyncio.run(run())


def test_a_conflict_of_uids_and_an_object_that_is_gone_are_no_errors_of_a_delete(tmp_path: Path) -> None:
    names = ["uid_precondition", "not_found"]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return response(names.pop(0))

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            assert not await api.delete(PODS, "rke2-canal-x", "kube-system", uid="1c6a")
            assert not await api.delete(PODS, "gone", "kube-system")

    asyncio.run(run())


@pytest.mark.slow
def test_a_server_that_is_busy_is_asked_again_after_what_it_says(tmp_path: Path) -> None:
    answers = [response("too_many_requests")]
    times: list[float] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return answers.pop() if answers else web.json_response({"kind": "PodList", "metadata": {}, "items": None})

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            assert await api.all(PODS, "default") == []
        assert times[1] - times[0] >= 1.0

    asyncio.run(run())


def test_pages_that_grew_old_are_read_again_from_the_first(tmp_path: Path) -> None:
    def page(name: str, more: str) -> web.Response:
        metadata = {"resourceVersion": "7", "continue": more}
        return web.json_response({"metadata": metadata, "items": [{"metadata": {"name": name, "uid": name}}]})

    answers = [page("a", "t"), response("list_expired"), page("a", "t"), page("b", "")]

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        return answers.pop(0)

    async def run() -> None:
        async with server(handler, tmp_path) as api:
            assert [one.name for one in await api.all(CONFIG_MAPS, "default")] == ["a", "b"]

    asyncio.run(run())


def test_a_watch_in_the_servers_form_is_followed_over_bookmark_and_expiry(tmp_path: Path) -> None:
    versions: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1000"}, "items": []})
        versions.append(request.query["resourceVersion"])
        return web.Response(body=b"".join(json.dumps(event).encode() + b"\n" for event in SAMPLES["watch"]))

    async def run() -> None:
        seen: list[list[tuple[str, str, bool]]] = []
        async with server(handler, tmp_path) as api:
            async for state in api.states(PODS, "default"):
                now = [(pod.name, pod.status.phase, pod.ready) for pod in state.values()]
                if not seen or seen[-1] != now:
                    seen.append(now)
                if len(versions) == 2:  # what was expired is listed again, and watched from there
                    break
        alive = [
            [("a", "Pending", False)],
            [("a", "Running", True)],
            [("a", "Running", False)],
        ]  # the last one is ending
        assert seen[:5] == [[], *alive, []]
        assert versions == ["1000", "1000"]

    kinds = [event["type"] for event in SAMPLES["watch"]]
    assert kinds[0] == "ADDED" and kinds[-3:] == ["DELETED", "BOOKMARK", "ERROR"]
    asyncio.run(run())


@pytest.mark.parametrize(("name", "code"), [("success", 0), ("exit_3", 3)])
def test_the_end_of_a_command_is_read_from_the_error_channel(name: str, code: int) -> None:
    assert streams._exit_code(json.dumps(SAMPLES["exec"][name]).encode(), "exec") == code


@pytest.mark.parametrize(("name", "again"), [("no_program", False), ("kubelet_away", True)])
def test_a_kubelet_that_is_away_is_told_from_a_command_that_cannot_run(name: str, again: bool) -> None:
    with pytest.raises(ApiError) as caught:
        streams._exit_code(json.dumps(SAMPLES["exec"][name]).encode(), "exec")
    assert streams.transient(caught.value) is again


def test_the_fake_refuses_in_the_same_form(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(1) as fake, client(fake, tmp_path) as api:
            for name in ("forbidden", "not_found", "already_exists", "uid_precondition", "eviction_budget"):
                body = ANSWERS[name]["body"]
                answer = StatusError(body["code"], body["reason"], body["message"], body.get("details"))
                assert answer.document() == body
            fake.api.store.create("configmaps", "default", {"metadata": {"name": "mine"}})
            answer_ = await api.client.post(
                "/api/v1/namespaces/default/configmaps", json={"metadata": {"name": "mine"}}
            )
            assert answer_.json() == ANSWERS["already_exists"]["body"]
            answer_ = await api.client.get("/api/v1/namespaces/default/pods/gone")
            assert answer_.json() == ANSWERS["not_found"]["body"]

    asyncio.run(run())
