"""Numbers on the command line: their range is told before and when they are wrong, and none is without effect."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from hitless.cli import COMMANDS
from hitless.cli.numbers import Number
from hitless.cli.tools import run_tools


def options(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Option]]:
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from options(part, (*words, name))
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield words, parameter


def every_option(name: str) -> list[tuple[tuple[str, ...], click.Option]]:
    module = importlib.import_module(f"hitless.cli.{name.replace('-', '_')}")
    return list(options(module.command, (name,)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_number_has_its_range_in_the_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts: dict[tuple[str, ...], str] = {}
    for words, option in every_option(name):
        if words not in texts:
            run_tools([*words, "--help"])
            texts[words] = " ".join(capsys.readouterr().out.split())
        if isinstance(option.type, Number):
            assert option.type.range in texts[words], option.opts
        elif isinstance(option.type, click.IntRange | click.FloatRange):
            assert "<=x" in texts[words] or "x>=" in texts[words], option.opts
        else:
            assert option.type is not click.INT and option.type is not click.FLOAT, option.opts


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["drill", "--rounds", "0"], "--rounds: 0 is out of range (expected 1 to 10000)"),
        (["drill", "--rounds", "1.5"], "--rounds: '1.5' is not a whole number (expected 1 to 10000)"),
        (["drill", "--recovery", "1"], "--recovery: 1 is out of range (expected 3 to 3600)"),
        (["drill", "--recovery", "soon"], "--recovery: 'soon' is not a number (expected 3 to 3600)"),
        (["watch", "--duration", "inf"], "--duration: inf is out of range (expected 0.01 or more)"),
        (["probe", "--to", "tcp://127.0.0.1:9", "--count", "0"], "--count: 0 is out of range (expected 1 or more)"),
        (["farend", "--port", "80"], "--port: 80 is out of range (expected 1024 to 65455)"),
        (["lab", "up", "--pods", "201"], "--pods: 201 is out of range (expected 0 to 200)"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_tools(words) == 3
    assert capsys.readouterr().err == f"hitless: {told}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["drill", "--stop-for", "9"], "--stop-for: cannot be used with --restart sigterm (expected --restart stop)"),
        (["drill", "--restart", "sigkill", "--grace", "1"], "--grace: cannot be used with --restart sigkill"),
        (
            ["node-drill", "--to", "https://example.com", "--rate", "9"],
            "--rate: targets other than our far end get ten",
        ),
        (["probe", "--to", "http://127.0.0.1:9", "--mix", "tcp=1"], "--mix: only a far end is asked by shares"),
        (["probe", "--to", "tcp://127.0.0.1:9", "--mix", "tcp=1"], "--mix: only a far end is asked by shares"),
    ],
)
def test_an_option_without_effect_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools([*words, *(["--scheduling", "normal"] if words[0] == "probe" else [])]) == 3
    assert told in capsys.readouterr().err


def test_the_help_of_the_drill_stands_under_headings_and_hides_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools(["drill", "--help"]) == 0
    text = capsys.readouterr().out
    headings = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "In the lab: the agents:",
        "In the lab and in a cluster: what is done:",
        "When (in the lab and in a cluster):",
        "In the lab: what is built:",
        "The result:",
        "In a cluster (--cluster):",
        "Examples:",
    ]
    for _, option in every_option("drill"):
        assert f"  {option.opts[-1]}" in text
