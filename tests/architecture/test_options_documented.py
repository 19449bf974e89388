"""Every option that people can give stands in the document of its command."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
WHERE = {
    "doctor": ("doctor.md",),
    "drill": ("drill.md", "cluster.md"),
    "node-drill": ("cluster.md", "drill.md"),
    "watch": ("watch.md",),
    "probe": ("probe.md",),
    "farend": ("probe.md",),
    "lab": ("lab.md",),
    "report": ("drill.md",),
    "drills": ("drill.md",),
    "selftest": ("selftest.md",),
    "advise": ("advise.md",),
    "window": ("windows.md",),
    "rollout": ("rollout.md",),
}
"""The documents of each command; ``relay`` is not for people."""


def options(command: click.Command) -> Iterator[str]:
    if isinstance(command, click.Group):
        for part in command.commands.values():
            yield from options(part)
    for parameter in command.params:
        yield from (word for word in parameter.opts if word.startswith("--"))


def missing(words: set[str], documents: tuple[str, ...]) -> list[str]:
    text = "\n".join((DOCS / name).read_text() for name in documents)
    return sorted(word for word in words if not re.search(rf"{re.escape(word)}(?![\w-])", text))


@pytest.mark.parametrize("name", WHERE)
def test_every_option_of_a_tool_is_documented(name: str) -> None:
    command = importlib.import_module(f"hitless.cli.{name.replace('-', '_')}").command
    assert missing(set(options(command)), WHERE[name]) == []


@pytest.mark.parametrize("name", ["agent", "guard"])
def test_every_flag_of_a_daemon_is_documented(name: str) -> None:
    command = [sys.executable, "-m", "hitless", name, "--help"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    told = told.partition("without effect in this version")[0]  # flannel's, of which nothing is to be said
    words = set(re.findall(r"^ +(?:-\w, )?(--[a-z][\w-]+)", told, re.MULTILINE)) - {"--help"}
    assert len(words) > 5
    assert missing(words, (f"{name}.md",)) == []
