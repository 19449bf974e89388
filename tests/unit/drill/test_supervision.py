"""Whatever ends a task or a thread of a drill is reported, and ends what depends on it."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hitless.agent.health import Health
from hitless.agent.loop import AgentLoop
from hitless.agent.metrics import agent_metrics
from hitless.agent.reporter import AgentReporter
from hitless.agent.runtime import AsyncRuntime
from hitless.cluster import pods
from hitless.cluster import relay as relays
from hitless.cluster.relay import Relay
from hitless.daemon.logs import Log
from hitless.drill import DrillLog, Tool
from hitless.errors import ApiError, Defect, HitlessError, KernelError, MissingError, ours
from hitless.evidence import LogWriter, read
from hitless.kernel.clock import Clock
from hitless.kube import streams
from hitless.model import events as e

HEADER = '{"type":"header","t":1,"tool":"probe","version":"0","schema":1}'
TALKS = f"import time\nprint('{HEADER}', flush=True)\ntime.sleep(600)"
FOREIGN = [RuntimeError("a defect"), MemoryError(), RecursionError("deep"), OSError(5, "I/O"), KeyError("x")]


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_a_tool_whose_output_cannot_be_read_is_ended_and_reported(tmp_path: Path, error: Exception) -> None:
    async def run() -> None:
        with LogWriter(tmp_path / "events.jsonl") as writer:
            record = DrillLog(writer, Clock())
            record.begin("drill", {})
            recorder = record.recorder("flannel-0.28", "node-1")
            write = recorder.write

            def fails(event: e.Event, stream: str = "drill") -> None:
                if isinstance(event, e.Header):
                    raise error
                write(event, stream)

            recorder.write = fails  # type: ignore[method-assign]
            tool = await Tool.start("probe", [sys.executable, "-c", TALKS], recorder)
            async with asyncio.timeout(60):
                await recorder.trouble.wait()
                await tool.process.wait()
            await tool.kill()

    asyncio.run(run())
    (note,) = [event for event in read(tmp_path / "events.jsonl").events if isinstance(event, e.Note)]
    assert note.level == "error"
    assert "listening to probe ended by" in note.text
    assert type(error).__name__ in note.text


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_a_pods_stream_that_breaks_by_any_error_is_reported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any, **__: Any) -> None:
        raise error

    async def away(*_: Any, **__: Any) -> None:
        raise ApiError("away")

    said: list[str] = []
    document = {"metadata": {"name": "p", "namespace": "x"}, "spec": {"nodeName": "n"}}
    api: Any = SimpleNamespace(all=away)
    station = pods.DrillPod(api, document, lambda: 0, lambda *_: None, said.append)
    monkeypatch.setattr(streams, "follow", fails)
    asyncio.run(station._listen())
    (words,) = said
    assert "the stream of p on n broke" in words
    assert type(error).__name__ in words


@pytest.mark.slow
def test_a_pod_with_a_full_disk_ends_its_tools_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    (tmp_path / relays._SPOOL).symlink_to("/dev/full")
    relay = Relay(tmp_path, {"probe": ["-c", TALKS]}, 3.0, program=(sys.executable,))
    with pytest.raises(MissingError, match=r"cannot keep the lines of probe in .*: No space left"):
        relay.run()


@pytest.mark.slow
def test_a_failed_turn_of_the_agents_loop_is_reported_and_tried_again() -> None:
    stream, health = io.StringIO(), Health(stale_after=15.0)

    class Failing(AgentLoop):
        turns = 0

        async def _step(self) -> None:
            self.turns += 1
            if self.turns <= len(FOREIGN[:2]):
                raise FOREIGN[self.turns - 1]
            self.stop()

    watch: Any = SimpleNamespace(start=lambda: None, close=lambda: None)
    worker: Any = SimpleNamespace(close=lambda: None)
    notifier: Any = SimpleNamespace(say=lambda _: None)

    async def run() -> Failing:
        reporter = AgentReporter(Log(stream), agent_metrics(), health, notifier, started=0.0)
        loop = Failing(worker, worker, watch, reporter, AsyncRuntime(), resync=5.0, heal=True)
        await loop.run()
        return loop

    assert Failing._step is not AgentLoop._step  # mypy reports a rename: without the override the loop would never end
    assert asyncio.run(run()).turns == 3
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["rules not read", "rules not read"]
    assert "RuntimeError" in lines[0]["reason"]
    assert "the memory ran out" in lines[1]["reason"]
    assert any("the memory ran out" in reason for reason in health.reasons(time.monotonic()))


def test_a_full_disk_under_the_log_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    writer = LogWriter(tmp_path / "log")
    for number in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT):

        def fails(*_: Any, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr("hitless.evidence.log.os.write", fails)
            with pytest.raises(MissingError, match="choose another --out"):
                writer.write(e.Note(t=1, level="info", text="x"))
    with pytest.raises(Defect):
        writer.write(e.Note(t=1, level="info", text=object()))  # type: ignore[arg-type]
    writer.write(e.Note(t=1, level="info", text="x"))
    with monkeypatch.context() as patched:
        patched.setattr("hitless.evidence.log.os.close", fails)
        with pytest.raises(MissingError, match="is its disk whole"):
            writer.close()
    writer.close()


@pytest.mark.parametrize(
    "error", [*FOREIGN, KernelError("read", "x"), ApiError("x")], ids=lambda error: type(error).__name__
)
def test_ours_keeps_ours_and_names_what_is_not(error: Exception) -> None:
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        fails()
    found = ours(caught.value, "a part")
    assert isinstance(found, HitlessError)
    if isinstance(error, HitlessError):
        assert found is error
    else:
        assert isinstance(found, Defect)
        assert str(found).startswith(f"a part ended by {type(error).__name__}")
        assert "(test_supervision.py:" in str(found)
