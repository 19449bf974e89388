"""The table on any terminal: what matters is there whole, however narrow it is and however long a name."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.unit.evidence.drill_logs import Drill

from hitless.evidence import grouped, judge
from hitless.evidence.reports import terminal

NAMES = ["flannel-0.28", "the-network-agent-of-somebody-who-likes-names-that-say-everything.sh"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [80, 92, 108, 119, 120, 200])
def test_no_figure_verdict_or_name_is_cut(name: str, width: int) -> None:
    drill = Drill(agent=name).gap(2.3, 0.05)
    for index in range(30):
        drill.lose(2.3 + index / 1000, 40000 + index)
    told = grouped(drill.log())
    lines = terminal.text(told, judge(told, path="x"), width=width).splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("agent "))
    row = lines[head + 2]
    attempted = f"{sum(one.sent for one in told.records[0].attempts):,}"
    assert "…" not in row + lines[head]
    assert lines[head].split()[-1] == "verdict" and row.split()[-2:] == ["✗", "fail"]
    assert {"50.0", "30", attempted} <= set(row.split())
    assert name in "".join(line.split()[0] for line in lines[head + 2 : head + 9] if line.strip())
    assert all(len(line) <= width for line in lines[: head + 8])


@pytest.mark.slow
def test_large_figures_and_a_long_verdict_have_room() -> None:
    drill = Drill(agent="flannel-0.28", rounds=40).gap(2.3, 0.05).leak(1)
    told = grouped(drill.log())
    verdict = judge(told, path="x")
    big = replace(verdict.agents[0], attempted=1_234_567, lost=123_456, leaked=1_234_567, poisoned=123_456)
    for width in range(80, 160):
        lines = terminal.text(told, replace(verdict, agents=(big,)), width=width).splitlines()
        head = next(index for index, line in enumerate(lines) if line.startswith("agent "))
        row = lines[head + 2]
        assert {"1,234,567", "123,456", "50.0", "inconclusive"} <= set(row.split()), f"at {width}: {row}"


@pytest.mark.parametrize(("target", "named"), [("lab", False), ("cluster", True)])
def test_of_a_cluster_the_node_is_named_though_it_was_the_only_one(target: str, named: bool) -> None:
    told = grouped(Drill(agent="rke2-canal", node="worker-1", config={"target": target}).log())
    assert ("rke2-canal worker-1" in terminal.text(told, judge(told, path="x"), width=80)) is named
