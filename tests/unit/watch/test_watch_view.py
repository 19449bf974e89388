"""What people see of a watch on a terminal: each thing once, and nothing that a width of 60 cuts."""

from __future__ import annotations

import re
import sys
from functools import partial

import click
import pytest

from hitless.cli.watch_view import WatchView
from hitless.model import events as e

CONFIG = {"profile": "canal", "networks": ["10.42.0.0/16", "fd42::/48"], "networks_from": "rules"}
STATE = e.RuleState(
    t=8,
    family="ipv4",
    network="10.42.0.0/16",
    state="carried",
    reason="FLANNEL-POSTRTG rule 5 masquerades it (-s 10.42.0.0/16 ! -d 224.0.0.0/4)",
)
GAP = e.Gap(t=9, family="ipv4", network="10.42.0.0/16", begin=8, end=9, reason="chain FLANNEL-POSTRTG is empty")
TOTALS = {"gaps": 1, "gap_ns": 1, "commits": 2, "relevant": 2}


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *events: e.Event) -> str:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(click, "echo", partial(click.echo, color=True))
    with WatchView() as view:
        for event in events:
            view.emit(event)
    return capsys.readouterr().out


def test_the_networks_are_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    header = e.Header(t=7, tool="watch", version="1", config=CONFIG)
    found = e.Note(t=7, level="info", text="pod network 10.42.0.0/16, as the rules of FLANNEL-POSTRTG say")
    later = e.Note(t=9, level="info", text="pod network 10.44.0.0/16, as the rules of FLANNEL-POSTRTG say")
    text = shown(monkeypatch, capsys, header, found, later)
    assert text.count("10.42.0.0/16") == 1
    assert "10.44.0.0/16" in text, "what is found later is told"


def test_what_is_carried_now_is_not_red_because_of_what_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(monkeypatch, capsys, STATE, GAP, e.Summary(t=10, tool="watch", totals=TOTALS))
    row = [line for line in text.splitlines() if "10.42.0.0/16" in line][-1]
    now, was = row.split("carried")
    assert ("\x1b[32m" in now, "\x1b[31m" in now) == (True, False), "how it is: green"
    assert "\x1b[31m\x1b[1m" in was, "how it was: red"


def test_every_line_fits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    header = e.Header(t=7, tool="watch", version="1", config=CONFIG)
    text = shown(monkeypatch, capsys, header, STATE, GAP, e.Summary(t=10, tool="watch", totals=TOTALS))
    plain = re.sub(r"\x1b\[[0-9;]*[mK]", "", text)
    lines = [part for line in plain.splitlines() for part in line.split("\r")]
    assert max(map(len, lines)) <= 60
    assert "\n  the rules)" in plain, "what goes on is indented a little"
