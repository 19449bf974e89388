"""The warnings in a log that concern one agent or node.

Problem: "the probe runs on the host" decides what a pass means, and was written only on the page. Promise: warnings
that belong to an agent or node are in ``Verdict.notes``, and so in every report: each text once, with its agent and
node where there are several, and at most ``_MOST`` of them. Errors are reasons of the verdict (``criteria``).
"""

from __future__ import annotations

from hitless.evidence.display_names import display
from hitless.evidence.records import Record, RecordedDrill

__all__ = ["warnings"]

_MOST = 10


def warnings(recorded: RecordedDrill) -> tuple[str, ...]:
    """The warnings as sentences."""
    several = len(recorded.records) > 1
    found: dict[str, None] = {}
    for record in recorded.records:
        where = f"{display(recorded.settings, record.agent)}{f' on {record.node}' if record.node else ''}: "
        found |= dict.fromkeys(f"{where if several else ''}{text}" for text in _of(record))
    texts = tuple(found)
    left = len(texts) - _MOST
    more = (f"and {left} more warnings (hitless report --format html lists them)",) if left > 0 else ()
    return (*texts[:_MOST], *more)


def _of(record: Record) -> list[str]:
    notes = [*record.notes, *(record.pods.notes if record.pods is not None else [])]
    return [note.text for note in notes if note.level == "warning"]
