"""``hitless drill --guard``: the same agent beside itself with a guard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.kernel.drill.drills import blamed, felt
from tests.kernel.guard.guarded import CLI
from tests.kernel.lab.worlds import need

from hitless import lab
from hitless.drill import DrillPlan
from hitless.drill.labs import LabTarget
from hitless.lab import agents

pytestmark = pytest.mark.kernel


def rows(*names: str, guard: bool = True) -> list[str]:
    target = LabTarget([agents.named(name) for name in names], DrillPlan(), lab.LabPlan(), guard=guard)
    return [name.agent for name in target.subjects()]


def test_each_agent_gets_a_second_row_and_ours_only_where_it_is_alone() -> None:
    assert rows("flannel-0.28", "hitless") == ["flannel-0.28", "flannel-0.28+guard", "hitless"]
    assert rows("hitless") == ["hitless", "hitless+guard"]
    assert rows("flannel-0.28", guard=False) == ["flannel-0.28"]


@pytest.mark.slow
def test_an_agent_that_loses_connections_loses_none_with_the_guard(tmp_path: Path) -> None:
    need(lab.LabPlan())
    command = [*CLI, "drill", "--agents", "flannel-0.26", "--guard", "--rounds", "1", "--rate", "200", "--json"]
    done = subprocess.run(
        [*command, "--quiet", "--out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.stdout, done.stderr
    told = {each["agent"]: each for each in json.loads(done.stdout)["agents"]}
    assert felt(told["flannel-0.26"]), told
    assert blamed(told["flannel-0.26+guard"]) == 0, told
    assert told["flannel-0.26+guard"]["verdict"] != "fail", told
    bare, kept = told["flannel-0.26"], told["flannel-0.26+guard"]
    assert (bare["standby"], bare["bridged_gaps"], bare["bridged_flows"]) == ("", 0, 0)
    assert (kept["standby"], kept["bridged_gaps"], kept["gaps"]) == ("at work", 1, 0), kept
    assert kept["bridged_flows"] > 0
    assert kept["bridged_ms"] > 0
    assert any("a standby of a guard at work is on the node and bridged 1 gap" in one for one in kept["reasons"]), kept
    report = (tmp_path / "report.html").read_text()
    assert f"1 gap, {kept['bridged_flows']} flow" in report
    notes = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert any("the guard bridged 1 of 1 gaps" in note.get("text", "") for note in notes)


def test_with_a_cluster_the_guard_is_the_charts_business() -> None:
    done = subprocess.run(
        [*CLI, "drill", "--cluster", "--guard"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 3
    assert "--guard" in done.stderr
