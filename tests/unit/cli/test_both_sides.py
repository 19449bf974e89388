"""Options of a group are taken on both sides of its verb, in every group."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hitless.cli import agent, guard, lab, relay
from hitless.cli.groups import Group
from hitless.sources.flags import verb


@pytest.mark.parametrize("words", list(itertools.permutations(["--run-dir=DIR", "--json", "status"])))
def test_guard_status_takes_its_options_wherever_they_stand(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def status(options: object) -> int:
        asked.append((str(options.run_dir), options.json))  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(guard, "_status", status)
    assert guard.main([word.replace("DIR", str(tmp_path)) for word in words]) == 0
    assert asked == [(str(tmp_path), True)]


@pytest.mark.parametrize(
    "words",
    [
        ["--network", "10.1.0.0/16", "run", "--network", "10.2.0.0/16", "-v"],
        ["run", "--network=10.1.0.0/16", "--network=10.2.0.0/16", "-v"],
        ["-v", "--network=10.1.0.0/16", "--network=10.2.0.0/16"],
    ],
)
def test_what_may_be_given_again_is_gathered_from_both_sides(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], int]] = []

    def run(options: object) -> int:
        asked.append((options.network, options.verbose))  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(guard, "_run", run)
    assert guard.main(words) == 0
    assert asked == [(["10.1.0.0/16", "10.2.0.0/16"], 1)]


@pytest.mark.parametrize("words", [["remove", "--json"], ["--json"], ["stop"], ["status", "status"]])
def test_what_fits_no_verb_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(words) == 3
    assert re.fullmatch(r"hitless: (--json|guard|status): .*; see: hitless guard --help\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "words", [["--name", "no lab", "down"], ["--name=no lab", "down"], ["down", "--name", "no lab"]]
)
def test_lab_takes_its_options_on_both_sides(words: list[str]) -> None:
    done = CliRunner().invoke(lab.command, words)
    assert "no lab" in str(done.exception), (done.output, done.exception)


def test_a_group_without_a_verb_and_with_an_unknown_option_says_so() -> None:
    assert CliRunner().invoke(lab.command, ["--name", "x"]).exit_code == 2
    assert "No such option" in CliRunner().invoke(lab.command, ["--nonsense", "down"]).output
    assert CliRunner().invoke(lab.command, ["--help"]).exit_code == 0


def test_every_group_is_of_the_kind() -> None:
    for group in (lab.command, relay.command):
        assert isinstance(group, Group)
        assert all(isinstance(each, click.Command) for each in group.commands.values())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["plan", "--ip-masq"], ("plan", ["--ip-masq"])),
        (["--ip-masq", "plan", "--json"], ("plan", ["--ip-masq", "--json"])),
        (["--subnet-file", "plan", "--ip-masq"], ("run", ["--subnet-file", "plan", "--ip-masq"])),
        (["--subnet-file", "x", "cleanup"], ("cleanup", ["--subnet-file", "x"])),
        (["--subnet-file=plan"], ("run", ["--subnet-file=plan"])),
        (["--", "plan"], ("run", ["--", "plan"])),
        (["nonsense"], ("run", ["nonsense"])),
        ([], ("run", [])),
    ],
)
def test_the_agents_flags_stand_on_both_sides(words: list[str], found: tuple[str, list[str]]) -> None:
    assert verb(words, ("plan", "cleanup", "run")) == found


def test_the_agents_plan_is_found_behind_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert agent.main(["--net-config", "{", "plan"]) == 1
    assert "not JSON" in capsys.readouterr().err
