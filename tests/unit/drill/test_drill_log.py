"""Streams of tools, merged into one log: nothing lost, deaths noticed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hitless.drill import DrillLog, SubjectRecorder, Tool
from hitless.evidence import LogWriter, read
from hitless.kernel.clock import ANCHOR, Clock
from hitless.model import events as e

HANG = 60.0
HEADER = '{"type":"header","t":1,"tool":"probe","version":"0","schema":1}'
# the handler writes past Python's buffers: the signal may come while the header's print is still inside them
SPEAK = f"""
import os, signal, time
SUMMARY = b'{{"type":"summary","t":3,"tool":"probe"}}\\n'
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, SUMMARY), os._exit(0)))
print('{HEADER}', flush=True)
"""


def recorded(tmp_path: Path, act: Callable[[SubjectRecorder], Awaitable[None]]) -> list[e.Event]:
    path = tmp_path / "events.jsonl"
    with LogWriter(path) as writer:
        record = DrillLog(writer, Clock())
        record.begin("drill", {})
        asyncio.run(asyncio.wait_for(_main(act, record.recorder("flannel-0.28", "node-1")), HANG))
    return list(read(path).events[1:])


async def _main(act: Callable[[SubjectRecorder], Awaitable[None]], recorder: SubjectRecorder) -> None:
    await act(recorder)


async def start(code: str, recorder: SubjectRecorder) -> Tool:
    return await Tool.start("probe", [sys.executable, "-c", code], recorder)


def texts(events: list[e.Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, e.Note) and event.level == "error"]


def test_lines_become_events_with_agent_node_and_stream(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        tool = await start(SPEAK + "time.sleep(600)", recorder)
        assert await tool.heard(HANG)
        await tool.stop(HANG)
        assert not recorder.trouble.is_set()

    events = recorded(tmp_path, act)
    assert [type(event).__name__ for event in events] == ["Header", "Summary"]
    assert {(event.agent, event.node, event.stream) for event in events} == {("flannel-0.28", "node-1", "probe")}


def test_the_tools_share_the_drills_clock(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        code = f'import os; print(\'{{"type":"note","t":%s,"level":"info","text":"x"}}\' % os.environ[\'{ANCHOR}\'])'
        tool = await start(code, recorder)
        await tool.heard(HANG)
        await tool.kill()
        assert recorder.log.clock.anchor == anchors(tmp_path)[0]

    recorded(tmp_path, act)


def anchors(tmp_path: Path) -> list[int]:
    return [event.t for event in read(tmp_path / "events.jsonl").events if isinstance(event, e.Note)]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "probe ended by itself with signal SIGKILL"),
        ("import sys; sys.exit('no such route')", "probe ended by itself with exit code 1: no such route"),
        ("pass", "probe ended by itself with exit code 0"),
    ],
)
def test_a_tool_that_ends_by_itself_is_an_error_with_its_last_output(tmp_path: Path, code: str, why: str) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        tool = await start(code, recorder)
        await recorder.trouble.wait()
        assert not await tool.heard(HANG)
        await tool.stop(HANG)

    assert texts(recorded(tmp_path, act)) == [why]


def test_a_line_that_is_no_event_is_noted_and_the_rest_is_kept(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        tool = await start("print('Segmentation fault', flush=True)\n" + SPEAK + "time.sleep(600)", recorder)
        await tool.heard(HANG)
        await tool.stop(HANG)  # it has said both lines by then: they are in the pipe before its summary

    events = recorded(tmp_path, act)
    assert [text.split(":")[0] for text in texts(events)] == ["probe wrote a line that is not an event"]
    assert isinstance(events[-1], e.Summary)


def test_a_line_without_end_ends_the_tool_and_not_the_drill(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        endless = "import sys, time; sys.stdout.write('x' * (3 << 20)); sys.stdout.flush(); time.sleep(600)"
        tool = await start(endless, recorder)
        await recorder.trouble.wait()
        await tool.stop(HANG)
        assert tool.process.returncode == -9

    assert texts(recorded(tmp_path, act))[0].startswith("probe wrote a line that is not an event")


def test_a_tool_that_does_not_end_is_killed_and_noted(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        deaf = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{HEADER}', flush=True)"
        tool = await start(deaf + "; time.sleep(600)", recorder)
        await tool.heard(HANG)
        await tool.stop(0.1)
        assert tool.process.returncode == -9

    assert texts(recorded(tmp_path, act)) == ["probe did not end within 0.1 s and was killed"]


def test_a_tool_that_is_hastened_gets_two_signals_and_its_last_lines_are_kept(tmp_path: Path) -> None:
    """The prober takes the first for "begin nothing more", the second for "at once"."""
    code = f"""
import os, signal, time
got = []
def stop(number, _):
    got.append(number)
    if len(got) == 2:
        os.write(1, b'{{"type":"summary","t":3,"tool":"probe"}}\\n')
        os._exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print('{HEADER}', flush=True)
while True:
    time.sleep(60)
"""

    async def act(recorder: SubjectRecorder) -> None:
        tool = await start(code, recorder)
        assert await tool.heard(HANG)
        await tool.hasten()
        assert tool.process.returncode is not None
        assert not recorder.trouble.is_set()

    assert [type(event).__name__ for event in recorded(tmp_path, act)] == ["Header", "Summary"]


def test_the_terminals_ctrl_c_does_not_reach_a_tool(tmp_path: Path) -> None:
    """It is sent to the terminal's process group; a tool is in another one."""

    async def act(recorder: SubjectRecorder) -> None:
        tool = await start(SPEAK + "time.sleep(600)", recorder)
        assert await tool.heard(HANG)
        assert os.getpgid(tool.process.pid) != os.getpgrp()
        await tool.stop(HANG)

    assert len(recorded(tmp_path, act)) == 2


def test_the_recorder_has_the_latest_states_of_the_streams(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        seen = [recorder.restored({})]
        for family, network, state in (
            ("ipv4", "10.42.0.0/16", "not_carried"),
            ("ipv4", "10.42.0.0/16", "carried"),
            ("ipv6", "fd42::/48", "cannot_tell"),
        ):
            recorder.write(e.RuleState(t=1, family=family, network=network, state=state))  # type: ignore[arg-type]
            seen.append(recorder.restored({}))
        assert seen == [False, False, True, False]
        recorder.write(e.Attempts(t=1, interval_ns=1, kind="tcp", family="ipv4", sent=7, ok=7))
        assert recorder.attempted == 7

    recorded(tmp_path, act)


def test_a_tool_that_refused_to_start_has_its_reason(tmp_path: Path) -> None:
    async def act(recorder: SubjectRecorder) -> None:
        code = "import sys; print('hitless: --to: no URL', file=sys.stderr); sys.exit(3)"
        tool = await start(code, recorder)
        assert not await tool.heard(HANG)
        assert tool.refused == "--to: no URL"
        late = await start(SPEAK + "import sys; sys.exit(3)", recorder)
        await late.heard(HANG)
        await late.process.wait()
        assert late.refused == "", "it had begun"
        await late.kill()

    recorded(tmp_path, act)
