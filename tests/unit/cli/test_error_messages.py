"""Every option of every command with wrong values: one message, with where, what and what to do; exit code 3."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from hitless.cleaning import clean
from hitless.cli import COMMANDS, guard
from hitless.cli.commands import DAEMONS, GROUPS, HIDDEN
from hitless.cli.error_messages import nearest, of_argparse
from hitless.cli.numbers import Number
from hitless.cli.tools import run_tools
from hitless.sources.flags import FLAGS

HOSTILE = "\x1b[2J\u202e\n../../etc/$(reboot)"
WRONG = ("", "no\0thing", HOSTILE, "-99999999999999999999", "/nonexistent/place/of/nobody")
"""Empty, of no type, hostile, out of every range, and no place."""

NEEDED = {
    "probe": ["--to", "tcp://127.0.0.1:9"], "node-drill": ["--to", "icmp://127.0.0.1", "--restart-command", "true"],
    "lab exec": ["node0", "true"], "relay run": ["--tool", "x=[]"],
}  # fmt: skip
TAKES_ANYTHING = frozenset({"--help", "--journal"})


def parts(name: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    command = importlib.import_module(f"hitless.cli.{name.replace('-', '_')}").command
    if isinstance(command, click.Group):
        yield from (((name, verb), part) for verb, part in command.commands.items())
    else:
        yield (name,), command


def wrong_values() -> Iterator[tuple[str, ...]]:
    """Only what the command line itself can tell to be wrong: a choice, a number, a file's place."""
    for name in COMMANDS:
        for words, part in parts(name):
            for option in part.params:
                checked = isinstance(option.type, click.Choice | Number | click.IntRange | click.FloatRange)
                if isinstance(option, click.Option) and checked:
                    for value in WRONG:
                        yield (*words, *NEEDED.get(" ".join(words), ()), option.opts[-1], value)


def well_told(told: str, *where: str) -> None:
    assert told.startswith("hitless: ") and told.count("\n") == 1 and "Traceback" not in told and "Usage" not in told
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", told)
    assert any(told.startswith(f"hitless: {one}: ") for one in where), told
    assert "(expected " in told or "; " in told, told


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, which is empty afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    yield
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("words", [pytest.param(one, id=repr(one)) for one in wrong_values()])
def test_a_wrong_value_is_told_with_its_option(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools(words) == 3
    told = capsys.readouterr()
    assert told.out == ""
    well_told(told.err, words[-2])


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["drill", "--out", ""], "--out"),
        (["drill", "--agents", ""], "--judge|drill|--agents"),
        (["drill", "--agents", HOSTILE], "--agents"),
        (["drill", "--judge", HOSTILE], "--judge"),
        (["drill", "--ready-http", HOSTILE], "--ready-http"),
        (["drill", "--agent-command", ""], "--agent-command"),
        (["drill", "--quiet=3"], "--quiet"),
        (["drill", "--agent", "flannel-0.28"], "--agent"),
        (["drill", "--progress", "none", "--quiet"], "--quiet"),
        (["drill", "--cluster", "--node", HOSTILE], "--node"),
        (["drill", "--cluster", "--abort-after", "soon"], "--abort-after"),
        (["drill", "--cluster", "--to", HOSTILE], "--to"),
        (["drill", "--nosuch"], "--nosuch"),
        (["drill", "extra"], "drill"),
        (["probe"], "--to"),
        (["probe", "--to"], "--to"),
        (["probe", "--to", HOSTILE], "--to"),
        (["probe", "--to", "tcp://127.0.0.1:9", "--mix", "tcp=x"], "--mix"),
        (["probe", "--to", "tcp://127.0.0.1:9", "--source", "x"], "--source"),
        (["farend", "--bind", "x"], "--bind"),
        (["farend", "--leaks", "10.0.0.1/99"], "--leaks"),
        (["farend", "--namespace", "/nonexistent"], "--namespace"),
        (["watch", "--network", "10.42.0.0"], "--network"),
        (["watch", "--uplink", HOSTILE], "--uplink"),
        (["watch", "--once", "--duration", "1"], "--duration"),
        (["report", "/nonexistent"], "/nonexistent"),
        (["report"], "LOG"),
        (["report", "a", "b"], "report"),
        (["drills", "show"], "drills show"),
        (["drills", "prune"], "drills prune"),
        (["drills", "prune", "--older-than", "x"], "--older-than"),
        (["selftest", "--only", HOSTILE], "--only"),
        (["advise"], "advise"),
        (["advise", "--context", "x"], "advise"),
        (["doctor", "--mask"], "--mask"),
        (["lab"], ""),
        (["lab", "exec"], "PLACE"),
        (["lab", "exec", "node0", "--name", "x", "--", "true"], "--name"),
        (["lab", "upp"], "upp"),
        (["lab", "up", "--agent", HOSTILE], "--agent"),
        (["lab", "up", "--ready", "x"], "--ready"),
        (["node-drill", "--restart-unit", "x"], "--to"),
        (["node-drill", "--to", HOSTILE, "--restart-command", "true"], "--to"),
        (["node-drill", "--to", "icmp://127.0.0.1", "--restart-command", "'"], "--restart-command"),
        (["drilll"], "drilll"),
        (["help", "nothing"], "nothing"),
        (["help", "drill", "it"], "help"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_what_is_wrong_beyond_types_is_told_in_the_same_form(
    words: list[str], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if not where:
        assert run_tools(words) == 0, "a group alone shows its help"
        return
    assert run_tools(words) == 3
    well_told(capsys.readouterr().err, *where.split("|"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *itertools.product(["--family", "--network", "--profile", "--uplink"], WRONG),
        ("--nosuch", "x"), ("--uplnk", "x"), ("status", "status"), ("stop", ""),
    ],
)  # fmt: skip
def test_the_guards_words_too(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hitless.kernel.privileges.net_admin", lambda: False)  # whatever is let through writes nothing
    assert guard.main([option, *([value] if value or option in ("--family", "--uplink") else [])]) == 3
    told = capsys.readouterr().err
    assert "CAP_NET_ADMIN" not in told
    well_told(told, option, "guard", clean(value))


@pytest.mark.parametrize("flag", [flag.name for flag in FLAGS if flag.kind in ("number", "switch")])
def test_the_agents_flags_too(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    from hitless.cli import agent

    for value in WRONG:
        if value and flag not in ("help", "version"):
            assert agent.main(["plan", f"--{flag}={value}"]) == 1, "flanneld's own code, documented"
            well_told(capsys.readouterr().err, f"--{flag}")


def test_the_nearest_name_is_offered() -> None:
    assert nearest("dril", COMMANDS)[0] == "drill"
    assert nearest("node_drill", COMMANDS)[0] == "node-drill"
    assert "--agents" in nearest("--agent", ["--agents", "--guard"])
    assert nearest("--zzz", ["--agents"]) == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("argument --family: invalid choice: 'x' (choose from 'ipv4', 'dual')", "--family: 'x' is none of the choices"),
        ("argument --family: invalid choice: 'x' (choose from ipv4, dual)", "(expected ipv4, dual)"),
        ("argument --run-dir: expected one argument", "--run-dir: needs a value"),
        ("unrecognized arguments: --x y", "--x: there is no such option"),
    ],
)
def test_argparse_is_understood_in_every_version_of_python(message: str, told: str) -> None:
    assert told in of_argparse("guard", message, ["--family"])


def test_help_groups_name_every_command_once_and_hide_the_pods_side(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [name for names in GROUPS.values() for name in names]
    assert sorted(shown) == sorted({*COMMANDS, *DAEMONS} - HIDDEN)
    assert run_tools(["--help"]) == 0
    assert "relay" not in capsys.readouterr().out
    assert run_tools(["relay", "--help"]) == 0, "hidden, and there"


@pytest.mark.parametrize("name", sorted({*COMMANDS} - HIDDEN))
def test_every_help_ends_with_examples_and_fits_a_narrow_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, _ in parts(name):
        if words[-1] in ("stand-in", "up", "exec"):
            continue
        for columns in (60, 140):
            monkeypatch.setenv("COLUMNS", str(columns))
            assert run_tools(["help", *words]) == 0
            told = capsys.readouterr().out
            assert "Examples:" in told
            lines = told.partition("Examples:")[0].splitlines()[1:]
            wide = [line for line in lines if len(line) > min(columns, 100) and "|" not in line]
            assert not wide


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["dr"], "drill"), (["guard", "st"], "status"), (["guard", "--upl"], "--uplink"),
        (["drill", "--judg"], "--judge"), (["drill", "--backend", "leg"], "legacy"), (["lab", "u"], "up"),
        (["agent", "--ip-ma"], "--ip-masq"),
    ],
)  # fmt: skip
def test_shells_complete_commands_options_and_choices(
    shell: str, words: list[str], found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_HITLESS_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["hitless", *words]))
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
    assert run_tools([]) == 0
    assert found in re.split(r"[\n,\t]", capsys.readouterr().out)
