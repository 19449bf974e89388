"""``--guard``: one more row for the same agent, with ``hitless guard`` on its node.

Problem: the guard's value shows only beside the same agent without it. Promise: the guard runs as on any node, by its
own command, from when the agent is ready; if it does not reach its standby, or ends by itself, the row reports that
and is not judged as protected. The end of its journal goes into the record. Next stage: ``labs`` opens the row.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hitless.drill.drill_log import SubjectLog
from hitless.kernel import files, processes
from hitless.lab.clusters import LabNode
from hitless.model.families import Family

__all__ = ["SUFFIX", "guarded"]

SUFFIX = "+guard"
"""Ends the name of the row."""

_STATE = "run/hitless-guard/state.json"
_JOURNAL = "run/hitless-guard.jsonl"
_PATIENCE = 20.0
_TURN = 0.05
_LAST_WORDS = 500


@asynccontextmanager
async def guarded(
    node: LabNode, families: Sequence[Family], command: Sequence[str], desk: SubjectLog
) -> AsyncIterator[None]:
    """A guard on ``node`` while the block runs; ``command`` is this installation's ``hitless``."""
    words = [*command, "guard", "--journal", f"/{_JOURNAL}"]
    process = await processes.start_async(
        words, namespace=node.namespace, environment=desk.record.clock.environment(), new_session=True
    )
    errors = bytearray()

    async def listen() -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(4096):
            errors.extend(data)
            del errors[:-_LAST_WORDS]

    async def look_after() -> None:
        code = await process.wait()
        desk.fail(f"the guard ended ({code}): {errors.decode(errors='replace').strip()[-_LAST_WORDS:]}")

    tasks = [asyncio.create_task(listen()), asyncio.create_task(look_after())]
    try:
        if not await _stands_by(node.root, families, process) and not desk.trouble.is_set():
            desk.fail(f"the guard does not stand by within {_PATIENCE:g} s{_why_not(node.root)}")
        yield
        _tell(node.root, desk)
    finally:
        tasks[1].cancel()
        processes.send(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            processes.send(process, signal.SIGKILL)
            await process.wait()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stands_by(root: Path, families: Sequence[Family], process: asyncio.subprocess.Process) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while process.returncode is None and loop.time() < deadline:
        try:
            told = json.loads(files.read(root / _STATE))["families"]
        except (OSError, ValueError, KeyError):
            told = {}
        if all(told.get(family.value, {}).get("state") == "standing by" for family in families):
            return True
        await asyncio.sleep(_TURN)
    return False


def _why_not(root: Path) -> str:
    """The guard's own words."""
    try:
        told = json.loads(files.read(root / _STATE))["families"]
        words = [f"{name}: {one['state']}, {one['why']}" for name, one in told.items() if one["state"] != "standing by"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({'; '.join(words)})" if words else ""


def _tell(root: Path, desk: SubjectLog) -> None:
    """What the guard says of itself, in one note."""
    gaps: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        lines = files.read(root / _JOURNAL).splitlines()
        # one that goes on is also told while it is open
        gaps = [record for record in map(json.loads, lines) if record["type"] == "gap" and not record.get("open")]
    carried, healed = (sum(gap.get(name, 0) for gap in gaps) for name in ("carried", "healed"))
    uncovered = sum(not gap["covered"] for gap in gaps)
    desk.note(
        "info",
        f"the guard bridged {len(gaps) - uncovered} of {len(gaps)} gaps of the agent's rules: "
        f"{carried} new flows carried, {healed} healed",
    )
