"""Whether a command in a pod is run again is decided by the connection and the exit code, never by what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from hitless.errors import ApiError, CommandFailed
from hitless.kube import server_messages, streams
from hitless.kube.api import Patience
from hitless.kube.relay_exits import TAKEN_OVER

WRITTEN = [
    "connection refused",
    "dial tcp 10.0.0.1:443: i/o timeout",
    "broken pipe",
    "code = Unavailable",
    "another reader has taken over",
]


class Ended:
    """A command that has written to standard error, and ended."""

    def __init__(self, code: int, stderr: str) -> None:
        self.code, self.stderr = code, stderr.encode()

    async def read(self) -> bytes:
        return b""


def runs(monkeypatch: pytest.MonkeyPatch, *ends: Ended | ApiError) -> list[list[str]]:
    """Let commands end so, one after another; what is returned fills with the commands that were run."""
    did: list[list[str]] = []

    @asynccontextmanager
    async def execute(api: Any, pod: str, namespace: str, container: str, command: list[str]) -> AsyncIterator[Ended]:
        did.append(list(command))
        end = ends[len(did) - 1]
        if isinstance(end, ApiError):
            raise end
        yield end

    monkeypatch.setattr(streams, "execute", execute)
    return did


def run(work: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    async def soon(_: float) -> None:
        await asyncio.sleep(0)

    return asyncio.run(work(SimpleNamespace(patience=Patience(sleep=soon))))


@pytest.mark.parametrize("text", WRITTEN)
def test_what_a_command_writes_does_not_run_it_again(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    did = runs(monkeypatch, Ended(3, text))
    with pytest.raises(CommandFailed, match="ended with 3"):
        run(lambda api: streams.output(api, "a", "b", "c", ["kill", "it"]))
    assert did == [["kill", "it"]]
    did = runs(monkeypatch, Ended(3, text))
    with pytest.raises(ApiError, match="ended with 3"):
        run(lambda api: streams.follow(api, "a", "b", "c", lambda offset: ["read", str(offset)], lambda _: None))
    assert did == [["read", "0"]]


def test_a_reader_that_gave_way_to_a_second_one_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    did = runs(monkeypatch, Ended(TAKEN_OVER, "in whichever words"), Ended(0, ""))
    run(lambda api: streams.follow(api, "a", "b", "c", lambda offset: ["read", str(offset)], lambda _: None))
    assert len(did) == 2


@pytest.mark.parametrize(("said", "again"), [("error dialing backend: EOF", True), ("no such program: x", False)])
def test_a_server_that_cannot_reach_the_kubelet_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, said: str, again: bool
) -> None:
    did = runs(monkeypatch, streams._refused(f"exec in b/a: {said}", said, 500), Ended(0, ""))
    if again:
        assert run(lambda api: streams.output(api, "a", "b", "c", ["true"])) == b""
    else:
        with pytest.raises(ApiError, match=said):
            run(lambda api: streams.output(api, "a", "b", "c", ["true"]))
    assert len(did) == (2 if again else 1)


def test_the_name_of_the_command_decides_nothing() -> None:
    assert not streams.transient(
        streams._refused("exec in b/a: wget: connection refused: no such file", "no file", 500)
    )


def test_a_version_that_the_server_does_not_have_yet_is_told_from_other_time_outs() -> None:
    text = "WATCH nodes: 504 Too large resource version: 5000, current: 100"
    assert server_messages.version_too_large(ApiError(text, status=504))
    assert not server_messages.version_too_large(ApiError("WATCH nodes: 504 Gateway Time-out", status=504))
    assert not server_messages.version_too_large(ApiError(text, status=500))
