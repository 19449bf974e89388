"""Every event of the daemons' logs has a stable code, and docs/events.md lists it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from hitless.daemon.log_codes import CODES, FORMER
from hitless.guard.records import Record

ROOT = Path(__file__).parents[2]
DAEMONS = ("agent", "daemon", "guard", "sources")
_LEVELS = {"debug", "info", "notice", "warning", "error"}


def events() -> Iterator[tuple[str, str]]:
    """Where an event is logged, and its name."""
    for folder in DAEMONS:
        for path in sorted((ROOT / "src" / "hitless" / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                    continue
                said, first = node.func, node.args[0]
                to = said.value.attr if isinstance(said.value, ast.Attribute) else getattr(said.value, "id", "")
                if said.attr in _LEVELS and to.lstrip("_") == "log" and isinstance(first, ast.Constant):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", str(first.value)


def test_every_event_of_the_log_has_a_code() -> None:
    found = list(events())
    assert len(found) > 30
    for where, event in found:
        assert event in CODES, f"{where}: give {event!r} a code in src/hitless/daemon/log_codes.py and docs/events.md"
    for record in Record.__args__:
        assert record.__struct_config__.tag in CODES


def _section() -> str:
    return (ROOT / "docs" / "events.md").read_text().partition("## Codes of the daemons' log")[2].partition("\n## ")[0]


def test_the_documentation_lists_every_code_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", _section(), re.MULTILINE)
    assert {code: event for code, event, _ in rows} == {code: event for event, code in CODES.items()}


def test_the_documentation_lists_every_event_that_was_renamed() -> None:
    rows = re.findall(r"^\| ([^`|]+) \| ([^`|]+) \|$", _section(), re.MULTILINE)
    assert dict(rows) == {"former event": "event"} | {before: now for now, before in FORMER.items()}
    assert FORMER.keys() <= CODES.keys() and not set(FORMER.values()) & CODES.keys()
