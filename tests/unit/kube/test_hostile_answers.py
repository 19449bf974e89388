"""What is no Kubernetes API answers with status 200 all the same: one message, in bounded time."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx2
import msgspec
import pytest
from aiohttp import web
from tests.unit.kube.test_answers import server

from hitless.errors import ApiError, HitlessError
from hitless.kube import access, answers, calls, list_watch
from hitless.kube.objects import NODES, PODS

NO_ANSWERS = {
    "a login page": b"<html>please log in</html>",
    "a list": b"[]",
    "null": b"null",
    "nothing": b"",
    "an empty object": b"{}",
    "a cut one": b'{"kind":"NodeList","items":[{"metadata":{"na',
    "no UTF-8": b'{"kind":"NodeList","items":[{"metadata":{"name":"\xff"}}]}',
    "deep lists": b'{"kind":"NodeList","items":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"x":' * 100_000 + b"1" + b"}" * 100_000,
    "a status": b'{"kind":"Status","status":"Success"}',
    "objects without names": b'{"kind":"NodeList","items":[{}]}',
    "no object in the list": b'{"kind":"NodeList","items":[1]}',
    "a number beyond all bounds": b'{"kind":"NodeList","items":[{"metadata":{"name":"x","generation":1'
    + b"0" * 5000
    + b"}}]}",
}


def served(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_what_is_no_api_servers_answer_names_the_field_to_look_at(tmp_path: Path, name: str) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        return served(NO_ANSWERS[name])

    async def run() -> None:
        async with server(handler, tmp_path) as client:
            with pytest.raises(ApiError, match="nodes: the server's answer is not understood") as caught:
                await client.all(NODES)
            assert f"server: of the cluster in {tmp_path}" in str(caught.value)
            with pytest.raises(ApiError, match="is not understood"):
                await client.get(NODES, "node-1")
            with pytest.raises(ApiError, match="is not understood"):
                await client.patch(NODES, "node-1", "", {}, "application/merge-patch+json")
        assert len(asked) == 3, "nothing was asked twice"

    asyncio.run(run())


@pytest.mark.parametrize("name", ["a login page", "nothing", "an empty object", "a list"])
def test_a_page_is_no_deletion(tmp_path: Path, name: str) -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return served(NO_ANSWERS[name])

    async def run() -> None:
        async with server(handler, tmp_path) as client:
            with pytest.raises(ApiError, match="is not understood"):
                await client.delete(PODS, "canal-1", "kube-system")
            with pytest.raises(ApiError, match="is not understood"):
                await client.evict("canal-1", "kube-system")

    asyncio.run(run())


def test_a_page_in_the_middle_of_a_drill_is_waited_for(tmp_path: Path) -> None:
    """A load balancer that comes back answers with its default page before it knows its servers again."""
    answers = [b'{"kind":"NodeList","items":[]}', b"<html>default backend</html>", b'{"kind":"NodeList","items":[]}']

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return served(answers.pop(0))

    async def run() -> None:
        async with server(handler, tmp_path) as client:
            assert await client.all(NODES) == []
            assert await client.all(NODES) == []
        assert answers == []

    asyncio.run(run())


@pytest.mark.parametrize("same", [True, False])
def test_a_list_without_an_end_is_ended(tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_watch, "_PAGES", 20)
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.query_string)
        token = "again" if same else f"page{len(asked)}"
        return served(b'{"kind":"NodeList","metadata":{"continue":"%s"},"items":[]}' % token.encode())

    async def run() -> None:
        async with server(handler, tmp_path) as client:
            with pytest.raises(ApiError, match="again and again" if same else "without an end"):
                await client.all(NODES)
        assert len(asked) == (2 if same else 20)

    asyncio.run(run())


def test_a_list_that_always_grows_old_is_ended(tmp_path: Path) -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        if "continue" in request.query:
            return web.json_response({"kind": "Status", "message": "too old", "code": 410}, status=410)
        return served(b'{"kind":"NodeList","metadata":{"continue":"x"},"items":[]}')

    async def run() -> None:
        async with server(handler, tmp_path) as client:
            with pytest.raises(ApiError) as caught:
                await client.all(NODES)
        assert caught.value.status == 410

    asyncio.run(run())


@pytest.mark.slow
def test_an_answer_that_drips_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "WHOLE_S", 0.3)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async def run() -> None:
        async with server(handler, tmp_path, total=0.5) as client:
            with pytest.raises(ApiError, match="did not end its answer within"):
                await client.all(NODES)

    asyncio.run(run())


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_not_kept(tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MOST", 1 << 20)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for _ in range(64):
            await response.write(b" " * (1 << 16))
        return response

    async def run() -> None:
        async with server(handler, tmp_path, total=0.2) as client:
            with pytest.raises(ApiError, match="longer than 1 MB"):
                await client.all(NODES)

    asyncio.run(run())


def test_a_watch_line_without_end_and_a_watch_that_never_ends_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LONGEST_LINE", 100)
    times = iter(range(1000))

    async def pieces(piece: bytes):  # type: ignore[no-untyped-def]
        while True:
            yield piece

    async def run() -> None:
        with pytest.raises(ValueError, match="longer than 100 bytes"):
            async for _ in answers.lines(pieces(b"x"), until=1000.0, now=lambda: 0.0):
                raise AssertionError("no line has ended")
        got = [line async for line in answers.lines(pieces(b"x\ny"), until=5.0, now=lambda: float(next(times)))]
        assert got[:3] == [b"x", b"yx", b"yx"]

    asyncio.run(run())


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("x"), httpx2.ReadTimeout("x"), httpx2.RemoteProtocolError("x"), httpx2.DecodingError("x"),
        OSError(5, "I/O"), ConnectionResetError(), TimeoutError(), ValueError("x"), RecursionError("x"), MemoryError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "x"), OverflowError("x"), ssl.SSLError("x"), msgspec.DecodeError("x"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_only_errors_of_ours_leave_a_call(tmp_path: Path, error: Exception) -> None:
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        return served(b"{}")

    async def fails(*_: object, **__: object) -> httpx2.Response:
        raise error

    async def run() -> None:
        async with server(handler, tmp_path, total=0.1) as client:
            client.client.request = fails  # type: ignore[method-assign]
            with pytest.raises(HitlessError):
                await client.all(NODES)

    asyncio.run(run())
