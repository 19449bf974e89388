"""``--guard``: a second row for each agent, with ``hitless guard`` on its node.

Problem: the effect of the guard is visible only in comparison with the same agent without it. Promise: the guard runs
as on any node, by its own command, from the time when the agent is ready. If its standby does not become active, or it
ends by itself, that is an error of the row. The totals of its journal go into the record. Next stage: ``labs``.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hitless.drill.drill_log import SubjectRecorder
from hitless.kernel import files, processes
from hitless.lab.clusters import LabNode
from hitless.model.families import Family

__all__ = ["SUFFIX", "guarded"]

SUFFIX = "+guard"
"""Suffix of the row's name."""

_STATE = "run/hitless-guard/state.json"
_JOURNAL = "run/hitless-guard.jsonl"
_PATIENCE = 20.0
_TURN = 0.05
_ERROR_OUTPUT = 500


@asynccontextmanager
async def guarded(
    node: LabNode, families: Sequence[Family], command: Sequence[str], recorder: SubjectRecorder
) -> AsyncIterator[None]:
    """A guard on ``node`` while the block runs; ``command`` is this installation's ``hitless``."""
    argv = [*command, "guard", "--journal", f"/{_JOURNAL}"]
    process = await processes.start_async(
        argv, namespace=node.namespace, environment=recorder.log.clock.environment(), new_session=True
    )
    errors = bytearray()

    async def listen() -> None:
        assert process.stderr is not None
        while data := await process.stderr.read(4096):
            errors.extend(data)
            del errors[:-_ERROR_OUTPUT]

    async def look_after() -> None:
        code = await process.wait()
        recorder.fail(f"the guard ended ({code}): {errors.decode(errors='replace').strip()[-_ERROR_OUTPUT:]}")

    tasks = [asyncio.create_task(listen()), asyncio.create_task(look_after())]
    try:
        if not await _stands_by(node.root, families, process) and not recorder.trouble.is_set():
            recorder.fail(f"the guard does not stand by within {_PATIENCE:g} s{_why_not(node.root)}")
        yield
        _note_totals(node.root, recorder)
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
            states = json.loads(files.read(root / _STATE))["families"]
        except (OSError, ValueError, KeyError):
            states = {}
        if all(states.get(family.value, {}).get("state") == "standing by" for family in families):
            return True
        await asyncio.sleep(_TURN)
    return False


def _why_not(root: Path) -> str:
    """The state and reason that the guard reports."""
    try:
        families = json.loads(files.read(root / _STATE))["families"]
        texts = [
            f"{name}: {one['state']}, {one['why']}" for name, one in families.items() if one["state"] != "standing by"
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return f" ({'; '.join(texts)})" if texts else ""


def _note_totals(root: Path, recorder: SubjectRecorder) -> None:
    """One note with the totals of the guard's journal."""
    gaps: list[dict[str, Any]] = []
    with suppress(OSError, ValueError):
        lines = files.read(root / _JOURNAL).splitlines()
        # an open gap is reported once more when it ends
        gaps = [record for record in map(json.loads, lines) if record["type"] == "gap" and not record.get("open")]
    carried, healed = (sum(gap.get(name, 0) for gap in gaps) for name in ("carried", "healed"))
    uncovered = sum(not gap["covered"] for gap in gaps)
    recorder.note(
        "info",
        f"the guard bridged {len(gaps) - uncovered} of {len(gaps)} gaps of the agent's rules: "
        f"{carried} new flows carried, {healed} healed",
    )
