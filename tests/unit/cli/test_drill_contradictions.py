"""Options of ``drill`` that contradict each other are refused before anybody is asked: no kubeconfig is there."""

from __future__ import annotations

import pytest

from hitless.cli import guard
from hitless.cli.tools import run_tools

THERE = ["--kubeconfig", "/nonexistent"]


def test_a_guard_that_touches_nothing_removes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(["--observe", "remove"]) == 3
    assert "--observe: touches nothing, and remove takes the standby away" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cleanup", "--rounds", "2"], "--rounds: does not go with --cleanup"),
        (["--cleanup", "--node", "a"], "--node: does not go with --cleanup"),
        (["--cleanup", "--restart", "kill"], "--restart: does not go with --cleanup"),
        (["--cleanup", "--agents", "hitless"], "--agents: does not go with --cleanup"),
        (["--cleanup", "--guard"], "--guard: does not go with --cleanup"),
        (["--cleanup", "--out", "x"], "--out: does not go with --cleanup"),
        (["--cleanup", "--cluster", "--round-robin"], "--round-robin: does not go with --cleanup"),
        (["--cleanup", "--dry-run", "--yes"], "--yes: contradicts --dry-run"),
        (["--cluster", "--dry-run", "--yes"], "--yes: contradicts --dry-run"),
        (["--cluster", "--dry-run", "--json"], "--json: contradicts --dry-run"),
        (["--cluster", "--force"], "--force: does not go without --cleanup"),
        (["--dry-run"], "--dry-run: does not go without --cluster"),
        (["--force"], "--force: does not go without --cluster"),
        (["--yes"], "--yes: does not go without --cluster"),
    ],
)
def test_what_contradicts_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    there = THERE if {"--cluster", "--cleanup"} & set(words) else []
    assert run_tools(["drill", *there, *words]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hitless: {said}"), line
