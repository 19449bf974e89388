"""Starting an agent for real: its end is its own end, whatever it leaves behind."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hitless.kernel.namespaces import HERE
from hitless.lab.launching import launch

_HANG = 60.0


class Heard(list[str]):
    """What it said, and a way to wait for its first line."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()

    def hear(self, line: str) -> None:
        self.append(line)
        self.begun.set()


async def _end(script: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    running = await launch(["/bin/sh", "-c", script], HERE, {}, lines.append)
    try:
        codes = await asyncio.gather(*(asyncio.wait_for(running.wait(), _HANG) for _ in range(2)))
        assert codes[0] == codes[1] == await asyncio.wait_for(running.wait(), _HANG)
        return codes[0], lines
    finally:
        running.kill()
        await asyncio.sleep(0)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


# who speaks by itself is waited for, as long as it takes: the read ends when the pipe's other end is closed
DAEMONS = {
    "a child": "sleep 600 & echo $!; {end}",
    "a child in a session of its own": "setsid sleep 600 & echo $!; {end}",
    "a daemon that nobody is the parent of": "(setsid sleep 600 & echo $!); {end}",
    "a daemon without our environment": (
        "pid=$(env -i PATH=$PATH setsid sh -c 'echo $$; exec >&-; sleep 600' &); echo $pid; {end}"
    ),
    "a child of a daemon": "pid=$(setsid sh -c 'sleep 600 >&- & echo $!; exec >&-; wait' &); echo $pid; {end}",
}


@pytest.mark.parametrize("left", DAEMONS)
@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_what_an_agent_left_behind_has_ended_when_its_end_is_told(left: str, end: str, code: int) -> None:
    found, lines = asyncio.run(_end(DAEMONS[left].format(end=end)))
    assert found == code
    assert len(lines) == 1
    assert not _runs(lines[0])


@pytest.mark.parametrize("left", DAEMONS)
def test_an_agent_is_killed_with_all_that_it_started(left: str) -> None:
    async def main() -> tuple[int, list[str]]:
        lines = Heard()
        running = await launch(["/bin/sh", "-c", DAEMONS[left].format(end="sleep 600")], HERE, {}, lines.hear)
        await asyncio.wait_for(lines.begun.wait(), _HANG)
        assert _runs(str(running.pid))
        assert _runs(lines[0])
        running.kill()
        return await asyncio.wait_for(running.wait(), _HANG), [str(running.pid), *lines]

    code, pids = asyncio.run(main())
    assert code == -signal.SIGKILL
    assert not any(_runs(pid) for pid in pids)


def test_a_signal_is_for_the_agent_alone() -> None:
    async def main() -> tuple[int, list[str]]:
        lines = Heard()
        child = "trap 'echo child too' TERM; sleep 600"
        script = f"trap 'echo asked; exit 7' TERM; sh -c \"{child}\" & echo up; while :; do sleep 0.05; done"
        running = await launch(["/bin/sh", "-c", script], HERE, {}, lines.hear)
        await asyncio.wait_for(lines.begun.wait(), _HANG)
        await asyncio.sleep(0.2)
        running.signal(signal.SIGTERM)
        return await asyncio.wait_for(running.wait(), _HANG), lines

    assert asyncio.run(main()) == (7, ["up", "asked"])


MAKER = """
import asyncio, sys
from hitless.kernel.namespaces import HERE
from hitless.lab.launching import launch
async def main():
    await launch(["/bin/sh", "-c", sys.argv[1]], HERE, {}, lambda line: print(line, flush=True))
    await asyncio.sleep(600)
asyncio.run(main())
"""


def test_an_agent_and_its_daemons_die_with_us_however_we_die() -> None:
    script = DAEMONS["a daemon without our environment"].format(end="echo $$; sleep 600")
    with subprocess.Popen([sys.executable, "-c", MAKER, script], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        pids = [maker.stdout.readline().strip(), maker.stdout.readline().strip()]
        assert all(_runs(pid) for pid in pids)
        maker.kill()
    deadline = time.monotonic() + _HANG
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, f"one of {pids} lives on"
        time.sleep(0.01)


def test_all_that_an_agent_said_is_heard_before_its_end_is_told() -> None:
    code, lines = asyncio.run(_end("seq 1 20000; printf last; kill -9 $$"))
    assert (code, len(lines), lines[0], lines[-1]) == (-signal.SIGKILL, 20001, "1", "last")


def test_a_line_longer_than_the_limit_is_not_the_end_of_hearing() -> None:
    code, lines = asyncio.run(_end("head -c 300000 /dev/zero | tr '\\0' x; echo; echo after"))
    assert (code, lines[-1]) == (0, "after")
