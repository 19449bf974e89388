"""What ``hitless advise`` looks like: width, colours, and words that can be copied."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from hitless.advice import judgement, releases
from hitless.cli import advise
from hitless.cli.advise_view import text
from hitless.model.versions import Flannel, parse_flannel, parse_release

TABLE = releases.packaged()
VERSIONS = ["v1.28.15+rke2r1", "v1.32.5+rke2r1", "v1.31.10+rke2r1", "v1.30.14+k3s1", "v1.30.4+k3s1", "v1.99.0+rke2r1"]


def about(version: str, flannel: Flannel | None = None, nodes: tuple[str, ...] = ()) -> judgement.Advice:
    return judgement.advise(TABLE, parse_release(version), running=flannel, nodes=nodes)


def plain(*answers: judgement.Advice, width: int = 80) -> str:
    return click.unstyle(text(list(answers), [], width))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_none_wider_than_can_be_read(version: str, width: int) -> None:
    said = about(version)
    copied = {line.strip() for remedy in said.remedies for line in remedy.snippet.splitlines()}
    for line in plain(said, width=width).splitlines():
        assert len(line) <= min(width, 100) or line.strip() in copied or "https://" in line, line


@pytest.mark.parametrize("version", VERSIONS)
def test_every_finding_and_remedy_is_there_and_snippets_stand_as_they_are(version: str) -> None:
    said = about(version)
    whole = plain(said)
    assert [int(one) for one in re.findall(r"^  (\d)\. ", whole, re.M)] == [
        *range(1, len(said.findings) + 1),
        *range(1, len(said.remedies) + 1),
    ]
    for remedy in said.remedies:
        assert "\n".join(f"       {line}" for line in remedy.snippet.splitlines()) in whole
        assert all(len(line) <= 73 for line in remedy.snippet.splitlines()), "it fits into 80 columns"
    for finding in said.findings:
        assert all(issue in whole for issue in finding.issues)


def test_a_number_and_its_unit_stay_together() -> None:
    for width in range(50, 101):
        assert not re.search(r"\d\n +(ms|s)\b", plain(about("v1.32.5+rke2r1"), width=width)), width


def test_the_nodes_of_a_cluster_are_named_and_what_was_said_is_not_said_again() -> None:
    whole = plain(about("v1.32.5+rke2r1", nodes=("a", "b")), about("v1.32.4+rke2r1", nodes=("c",)))
    assert "  nodes a, b\n" in whole
    assert "  node c\n" in whole
    assert whole.count("The rules are removed when flannel stops") == 1
    assert whole.count("  As with v1.32.5+rke2r1.") == 2


def test_what_nobody_has_read_is_not_told_what_it_does() -> None:
    said = about("v1.99.0+rke2r1", parse_flannel("v0.29.0"))
    assert (said.status, said.findings) == ("unknown", ())
    assert "On a restart" not in plain(said)


def test_k3s_is_drilled_on_the_node_where_it_runs_flannel() -> None:
    from hitless.cli.node_drill import command

    (drill,) = (one.snippet for one in about("v1.30.4+k3s1").remedies if one.id == "drill")
    words = drill.split()
    assert words[:2] == ["hitless", "node-drill"]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(("value", "coloured"), [(None, True), ("", True), ("1", False)])
def test_no_color_is_heard(monkeypatch: pytest.MonkeyPatch, value: str | None, coloured: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_COLOR", value)
    done = CliRunner().invoke(advise.command, ["--version", "v1.32.5+rke2r1"], standalone_mode=False, color=True)
    assert ("\x1b[" in done.output) is coloured


def test_an_image_tag_of_a_release_is_that_release_and_nothing_is_asked_for_by_its_name() -> None:
    from hitless.errors import InputError

    assert parse_release("v1.32.5-rke2r1") == parse_release("v1.32.5+rke2r1")
    done = CliRunner().invoke(advise.command, ["--version", ""], standalone_mode=False)
    assert isinstance(done.exception, InputError)
    assert str(done.exception).startswith("--version: '' is not a release")
