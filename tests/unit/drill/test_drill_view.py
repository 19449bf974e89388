"""The live view on a narrow terminal: every figure is there whole."""

from __future__ import annotations

import pytest
from rich.console import Console
from tests.unit.evidence.drill_logs import Drill

from hitless.cli.drill_view import _Live, _Rows


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
