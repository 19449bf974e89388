"""docs/events.md says exactly what model/events.py holds."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import msgspec
import pytest

from hitless.evidence import parse
from hitless.model import events as e

TEXT = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
KINDS = {kind.__struct_config__.tag: kind for kind in e.Event.__args__}
COMMON = {"t", "node", "agent", "stream"}


def rows(section: str) -> dict[str, str]:
    """Field to type, of a section's table."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", section, re.MULTILINE))


def sections() -> dict[str, str]:
    types_part = TEXT.split("## Types\n")[1].split("\n## ")[0]
    parts = re.split(r"^### `(\w+)`$", types_part, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def word(hint: object) -> str:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is typing.Literal:
        return " / ".join(f"`{one}`" for one in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(word(one) for one in arguments if one is not type(None))
    if origin is dict:
        return "object"
    return {int: "integer", str: "text", bool: "true / false", e.Writer: "writer", e.Machine: "machine"}[hint]  # type: ignore[index]


def test_every_type_has_its_section() -> None:
    assert list(sections()) == list(KINDS)


@pytest.mark.parametrize("tag", KINDS)
def test_every_field_is_there_with_its_type(tag: str) -> None:
    kind = KINDS[tag]
    hints = typing.get_type_hints(kind)
    wanted = {field.name: word(hints[field.name]) for field in msgspec.structs.fields(kind) if field.name not in COMMON}
    assert rows(sections()[tag]) == wanted


def test_the_fields_of_every_event_are_named() -> None:
    common = TEXT.split("## Fields of every event\n")[1].split("\n## ")[0]
    assert set(rows(common)) == {"type", *COMMON}


def test_every_cause_is_explained() -> None:
    causes = TEXT.split("## Causes of a loss\n")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", causes, re.MULTILINE)) == set(typing.get_args(e.Cause))


def test_the_example_is_a_log() -> None:
    example = TEXT.split("```\n")[1]
    log = parse([line.encode() + b"\n" for line in example.splitlines()], where="docs/events.md")
    assert [type(event) for event in log.events] == [e.Header, e.Phase, e.Gap, e.Loss]
