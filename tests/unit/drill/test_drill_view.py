"""The live view on a narrow terminal: every figure is there whole."""

from __future__ import annotations

import pytest
from rich.console import Console
from tests.unit.evidence.drill_logs import Drill

from hitless.cli.drill_view import _Live, _Rows
from hitless.model import events as e


@pytest.mark.parametrize("name", ["flannel-0.28", "the-network-agent-of-somebody-who-likes-names"])
def test_the_live_view_fits_eighty_columns(name: str) -> None:
    rows = _Rows([name, "hitless"], 100)
    view = _Live(rows)
    for event in Drill(agent=name, rounds=100).gap(2.3, 0.05).log():
        view(event)
        if rows.rows[name].phase == "round 100 of 100" and rows.rows[name].restart == "exited":
            break
    console = Console(width=80, no_color=True)
    with console.capture() as shown:
        console.print(view._table())
    text = shown.get()
    assert "…" not in text
    head = next(line for line in text.splitlines() if "agent" in line)
    assert head.split() == ["agent", "now", "rules", "attempted", "lost", "gaps"]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (100, ["agent", "now", "rules", "attempted", "lost", "gaps"]),
        (69, ["agent", "now", "rules", "attempted", "lost", "gaps"]),
        (60, ["agent", "now", "rules", "lost", "gaps"]),
        (48, ["agent", "now", "lost", "gaps"]),
    ],
)
def test_on_a_narrow_terminal_columns_are_left_out_and_none_is_cut(
    columns: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = _Rows(["flannel-0.28"], 100)
    view = _Live(rows)
    for event in Drill(agent="flannel-0.28", rounds=100).gap(2.3, 0.05).log():
        view(event)
    console = Console(width=columns, no_color=True)
    with console.capture() as capture:
        console.print(view._table())
    lines = [line.rstrip() for line in capture.get().splitlines() if line.strip()]
    assert lines[1].split() == shown
    assert "…" not in capture.get()
    assert max(map(len, lines)) < columns, "the echo of Ctrl-C has room beside it"


def _shown(view: _Live, columns: int = 100) -> str:
    console = Console(width=columns, no_color=True)
    with console.capture() as capture:
        console.print(view._table())
    return capture.get()


def test_in_a_cluster_the_node_its_turn_and_the_last_warning_stand_there() -> None:
    view = _Live(_Rows(["rke2-canal"], 1))
    assert "set-up" in _shown(view), "images may be pulled for a minute: it does not wait for anybody else"
    view(e.Header(t=0, tool="drill", version="1", config={"target": "cluster", "nodes": ["a", "b"]}))
    assert "a, b" in _shown(view)
    view(e.Phase(t=0, agent="rke2-canal", node="b", phase="baseline"))
    view(e.Note(t=0, agent="rke2-canal", node="b", level="warning", text="the clock of b moved"))
    lines = _shown(view).splitlines()
    assert lines[0].rstrip().endswith(" s  b (2 of 2)")
    assert lines[-1].rstrip() == "the clock of b moved"


def test_in_the_lab_no_node_is_named() -> None:
    view = _Live(_Rows(["hitless", "adopter"], 1))
    view(e.Phase(t=0, agent="hitless", node="node0", phase="baseline"))
    assert "node0" not in _shown(view)
    assert "waits" in _shown(view), "the second one has not begun"
