"""A signal to a child that is just ending loses no exit code, and no library writes to standard error."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path

import pytest

from hitless.kernel import processes

SOURCES = Path(processes.__file__).parents[1]
CHILDREN = 40
"""Of so many, asyncio lost the exit code of most when they were signalled by its own means (Python 3.11)."""


@pytest.mark.slow
def test_the_exit_code_of_a_child_that_is_signalled_while_it_ends_is_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def ended() -> int:
        process = await processes.start_async(["sh", "-c", "exit 7"], stdout=None, stderr=None)
        while process.returncode is None:
            processes.send(process, 0)
            await asyncio.sleep(0)
        return process.returncode

    async def story() -> list[int]:
        return [await ended() for _ in range(CHILDREN)]

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(story()) == [7] * CHILDREN
    assert "Unknown child" not in caplog.text


def test_a_process_that_has_ended_is_sent_nothing() -> None:
    async def story() -> None:
        process = await processes.start_async(["true"])
        await process.wait()
        processes.send(process, 9)

    asyncio.run(story())


def test_nothing_signals_a_child_by_asyncios_own_means() -> None:
    found = []
    for path in SOURCES.rglob("*.py"):
        text = path.read_text()
        if "start_async" in text or "start_contained" in text:
            calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
            wrong = [
                one for one in calls if isinstance(one, ast.Attribute) and one.attr in ("send_signal", "terminate")
            ]
            found += [f"{path.name}:{one.lineno}" for one in wrong]
    assert not found, "use processes.send"
