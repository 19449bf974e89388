"""Starting an agent for real: its end is its own end, whatever it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal

from hitless.kernel.namespaces import HERE
from hitless.lab.launching import launch

_HANG = 20.0


async def _end(script: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    running = await launch(["/bin/sh", "-c", script], HERE, {}, lines.append)
    try:
        codes = await asyncio.gather(*(asyncio.wait_for(running.wait(), _HANG) for _ in range(2)))
        assert codes[0] == codes[1] == await asyncio.wait_for(running.wait(), _HANG)
        return codes[0], lines
    finally:
        running.signal(signal.SIGKILL, group=True)
        await asyncio.sleep(0)


def test_an_agent_whose_daemon_holds_its_output_has_ended_when_it_ends() -> None:
    code, lines = asyncio.run(_end("setsid sleep 60 & echo $!; exit 3"))
    try:
        assert code == 3
    finally:
        os.kill(int(lines[0]), signal.SIGKILL)


def test_all_that_an_agent_said_is_heard_before_its_end_is_told() -> None:
    code, lines = asyncio.run(_end("seq 1 20000; printf last; kill -9 $$"))
    assert (code, len(lines), lines[0], lines[-1]) == (-signal.SIGKILL, 20001, "1", "last")


def test_a_line_longer_than_the_limit_is_not_the_end_of_hearing() -> None:
    code, lines = asyncio.run(_end("head -c 300000 /dev/zero | tr '\\0' x; echo; echo after"))
    assert (code, lines[-1]) == (0, "after")
