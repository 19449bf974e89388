"""Hostile text in every field of every output that people read: nothing acts, nothing is forged, XML stays XML."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.unit.evidence.drill_logs import Drill

from hitless.agent.metrics import agent_metrics
from hitless.cleaning import LONGEST, clean, cleaned, for_terminal, in_json
from hitless.cli.drill_view import _Lines, _Live, _Rows
from hitless.cli.probe_view import FarEndView, ProbeView
from hitless.cli.watch_view import WatchView
from hitless.daemon.exposition import exposition
from hitless.daemon.logs import Log
from hitless.evidence import grouped, judge
from hitless.evidence.reports import FORMATS, render
from hitless.guard import metrics as guard_metrics
from hitless.guard.reporting import Numbers
from hitless.guard.status import GuardStatus
from hitless.model import events as e

HOSTILE = "\x1b]52;c;eA==\x07\x9b31m\u202e\u2066[bold red]\\[x[/bold red]\nforged: yes\r</text><i>$\\frac$\x7f"
HOSTILE += "\ufffe&]]>"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe]")
STRUCTURE = {"tool", "stream", "version"}
"""Fields that say what the event is: with another value it is not shown at all."""


def hostile(event: Any, text: str = HOSTILE) -> Any:
    """The event with hostile text wherever a text of any content may stand."""
    changed: dict[str, Any] = {}
    hints = typing.get_type_hints(type(event))
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if hints[name] is str and name not in STRUCTURE and (value or name not in ("agent", "node")):
            changed[name] = text + value
        elif isinstance(value, msgspec.Struct):
            changed[name] = hostile(value, text)
        elif hints[name] == dict[str, Any]:
            changed[name] = {key: _config(one, text) for key, one in value.items()}
    return msgspec.structs.replace(event, **changed)


def _config(value: Any, text: str) -> Any:
    if isinstance(value, list | tuple):
        return [_config(one, text) for one in value]
    return text + value if isinstance(value, str) else value


def log(half: str = "\udc9b") -> list[e.Event]:
    """A drill's; a log that was read holds no half characters, for it is JSON."""
    drill = Drill().gap(6.0, 0.2).lose(6.05).lose(8.0, 40001).leak(6.06).knock(6.05, 1.0)
    where = drill.where("watch")
    drill.extra += [
        e.Note(t=7, level="error", text="note", **where),
        e.Note(t=8, level="warning", text="of nobody"),
        e.LostEvents(t=10**18, resynced=10**18 + 5, detail="lost", **where),
        e.StreamBreak(
            t=10**18, begin=1, family="ipv4", src="a", sport=1, dst="b", dport=2, stalled_ns=5, detail="d", **where
        ),
    ]
    return [hostile(event, HOSTILE + half) for event in drill.log()]


def harmless(text: str) -> None:
    assert (found := ACTS.search(text)) is None, (found, text[found.start() - 60 : found.end() + 20])
    assert not [line for line in text.splitlines() if line.strip().startswith("forged")]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_reports(form: str) -> None:
    told = grouped(log("") if form == "json" else log())
    text = render(form, told, judge(told, path="/log"))
    if form == "json":
        assert json.loads(text)["agents"]
        assert not re.search("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        return
    harmless(text)
    assert "[bold red]" in text  # as text, and no markup
    if form in ("svg", "junit"):
        ET.fromstring(text)
    if form == "html":
        assert "<i>" not in text
    if form == "prometheus":
        for line in text.splitlines():
            assert line.startswith("# ") or re.fullmatch(
                r'[a-z_]+(?:\{[a-z]+="(\\.|[^"\\])*"[^{}]*\})? [0-9.]+', line
            ), line


@pytest.mark.parametrize("view", [WatchView, ProbeView, FarEndView])
def test_views(view: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    shown = view()
    header = {"networks": ["10.0.0.0/8"], "networks_from": "rules", "profile": "x", "rate": 1, "addresses": ["a"]}
    header |= {"endpoints": [], "ports": {"flow": [1, 2], "echo": 3, "http": 4}}
    totals = dict.fromkeys(("gaps", "gap_ns", "commits", "relevant"), 1)
    tool = {"View": "watch", "ProbeView": "probe"}.get(type(shown).__name__, "farend")
    shown.emit(hostile(e.Header(t=1, tool=tool, version="1", pid=1, config=header)))
    for event in log():
        if not isinstance(event, e.Header | e.Summary):
            shown.emit(event)
    shown.emit(e.Summary(t=2, tool=tool, totals=totals))
    text = capsys.readouterr().out
    assert "x1b" in text
    harmless(text)


def test_a_drill_as_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    events = log()
    rows = _Rows(sorted({event.agent for event in events if event.agent}), 2)
    lines = _Lines(rows)
    for event in events:
        lines(event)
    text = capsys.readouterr().err
    assert "baseline" in text
    harmless(text)
    live = _Live(rows)
    live._console = Console(file=io.StringIO(), width=400, markup=False)
    live._console.print(live._table())
    harmless(live._console.file.getvalue())  # type: ignore[attr-defined]


def test_guard_status() -> None:
    family: dict[str, Any] = dict.fromkeys(("state", "why", "forward_reason", "doubt", "forward_doubt"), HOSTILE)
    family |= {"networks": [HOSTILE], "left_out": [HOSTILE], "forward_gap_since": 5, "gaps": 1}
    numbers = ("gap_ms", "longest_gap_ms", "uncovered_gaps", "carried", "healed", "leaked", "forward_gaps")
    family |= dict.fromkeys(numbers, 1)
    gap = {"type": "gap", "begin": 1, "end": 2, "family": HOSTILE, "opened_by": {"comm": HOSTILE}, "covered": True}
    facts = {"pid": 1, "problem": HOSTILE, "journal_problem": HOSTILE, "records_lost": 1, "recent": [gap]}
    harmless(GuardStatus("protected", {**facts, "families": {HOSTILE: family}}).text())


def test_metrics_logs_and_what_systemd_is_told() -> None:
    metrics = agent_metrics()
    metrics.add("hitless_agent_gaps_total", family="ipv4", writer=HOSTILE * 100)
    page = metrics.render()
    harmless(page)
    assert max(map(len, page.splitlines())) < 1000
    numbers = Numbers()
    numbers.gaps.update({HOSTILE * 100: 1, clean(HOSTILE * 100, 200): 2, "flanneld": 3})
    page = exposition(guard_metrics._HELP, guard_metrics._of_family(numbers, HOSTILE))
    lines = [line for line in page.splitlines() if line.startswith("hitless_guard_gaps_total{")]
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["3", "3"]  # the same series must not come twice
    harmless(page)
    written = io.StringIO()
    Log(written).warning("gap", writer=HOSTILE)
    harmless(written.getvalue())
    assert json.loads(written.getvalue())["writer"] == HOSTILE


@pytest.mark.parametrize(
    "words",
    [
        ["report", "{}"], ["report", "--{}"], ["{}"], ["drill", "--agent", "{}"], ["watch", "--profile", "{}"],
        ["probe", "{}"], ["farend", "--bind", "{}"], ["guard", "--{}"], ["guard", "{}"],
        ["guard", "--network", "{}", "run"],
        ["agent", "--{}"], ["agent", "{}"], ["agent", "plan", "--net-config={}"], ["lab", "status", "--name", "{}"],
    ],
)  # fmt: skip
def test_errors_that_quote_what_was_given(words: list[str]) -> None:
    given_ = HOSTILE
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hitless", *(word.format(given_) for word in words)],
        capture_output=True, check=False, timeout=60, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode != 0
    harmless((done.stdout + done.stderr).decode())


@pytest.mark.slow
@given(st.text())
def test_what_is_clean_is_one_line_and_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert not ACTS.search(once) and "\n" not in once and "\t" not in once
    assert clean(once) == once
    assert len(clean(text * 500)) <= LONGEST
    if text.isprintable() and text.isascii():
        assert once == text


@given(st.text())
def test_the_door_lets_nothing_through_but_lines_and_colours(text: str) -> None:
    drawn = for_terminal(f"\x1b[1;31m{clean(text)}\x1b[0m\n\x1b[2K\x1b[1A\x1b[?25l")
    assert drawn.startswith("\x1b[1;31m") and drawn.endswith("\x1b[0m\n\x1b[2K\x1b[1A\x1b[?25l")
    left = re.sub(r"\x1b\[[0-9;]*[mAKJ]|\x1b\[\?25[lh]|[\t\n\r\udc80-\udcff]", "", for_terminal(text))
    assert not ACTS.search(left)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5))
def test_json_has_the_same_values(value: Any) -> None:
    assert json.loads(in_json(json.dumps(value, ensure_ascii=False))) == value
    if cleaned(value) == value:
        assert cleaned(value) is value
