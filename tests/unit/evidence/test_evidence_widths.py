"""The table on any terminal: what matters is there whole, however narrow it is and however long a name."""

from __future__ import annotations

import pytest
from tests.unit.evidence.drill_logs import Drill

from hitless.evidence import judge, story
from hitless.evidence.reports import terminal

NAMES = ["flannel-0.28", "the-network-agent-of-somebody-who-likes-names-that-say-everything.sh"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 92, 108, 119, 120, 200])
def test_no_figure_verdict_or_name_is_cut(name: str, width: int) -> None:
    drill = Drill(agent=name).gap(2.3, 0.05)
    for index in range(30):
        drill.lose(2.3 + index / 1000, 40000 + index)
    told = story(drill.log())
    lines = terminal.text(told, judge(told, path="x"), width=width).splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("agent "))
    row = lines[head + 2]
    attempted = f"{sum(one.sent for one in told.records[0].attempts):,}"
    assert "…" not in row + lines[head]
    assert lines[head].split()[-1] == "verdict" and row.split()[-2:] == ["✗", "fail"]
    assert {"50.0", "30", attempted} <= set(row.split())
    assert name in "".join(line.split()[0] for line in lines[head + 2 : head + 9] if line.strip())
    assert all(len(line) <= width for line in lines[: head + 8])
