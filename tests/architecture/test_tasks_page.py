"""Every command of docs/tasks.md is one that this version takes, and the README leads there."""

from __future__ import annotations

import functools
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hitless.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "tasks.md").read_text()
BLOCKS = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines() if line.startswith("hitless ")]


@functools.cache
def guard_help() -> str:
    line = [sys.executable, "-m", "hitless", "guard", "--help"]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=True).stdout


def taken(words: list[str]) -> None:
    """Raises unless the options and values are ones of that command; nothing is run."""
    name, *rest = words
    if name == "guard":
        offered = {*re.findall(r"--[a-z-]+", guard_help()), "run", "status", "remove"}
        if unknown := {word for word in rest if word not in offered}:
            raise click.UsageError(f"guard does not take {unknown}")
        return
    command = importlib.import_module(f"hitless.cli.{name.replace('-', '_')}").command
    while isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)
    if name == "lab" and "--" in rest:
        taken(rest[rest.index("--") + 2 :])


@pytest.mark.parametrize("line", dict.fromkeys(LINES))
def test_every_command_of_the_page_is_taken(line: str) -> None:
    taken(shlex.split(line)[1:])


def test_a_command_that_is_none_would_be_found() -> None:
    for words in ("drill --rounds many", "watch --onse", "lab exec node0 -- hitless doctor --nodee", "guard --obsrve"):
        with pytest.raises((click.UsageError, InputError)):
            taken(words.split())


def test_the_page_has_ten_tasks_with_commands_and_the_readme_leads_to_it() -> None:
    parts = re.split(r"^## (\d+)\. ", PAGE, flags=re.MULTILINE)[1:]
    assert [int(number) for number in parts[::2]] == list(range(1, 11))
    assert all(re.search(r"^hitless ", part, re.MULTILINE) for part in parts[1::2])
    assert "docs/tasks.md" in (ROOT / "README.md").read_text()
