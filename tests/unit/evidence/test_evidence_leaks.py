"""Leaks beyond those that the far end writes one by one are counted all the same."""

from __future__ import annotations

import msgspec
from tests.unit.evidence.drill_logs import Drill

from hitless.evidence import decide
from hitless.model import events as e


def test_a_capped_list_of_leaks_is_not_their_number() -> None:
    drill = Drill().leak(2.3).leak(2.4)
    log = [
        msgspec.structs.replace(event, totals={"leaks": 15_285})
        if isinstance(event, e.Summary) and event.tool == "farend"
        else event
        for event in drill.log()
    ]
    [agent] = decide(log).agents
    assert (agent.verdict, agent.leaked) == ("fail", 15_285)
    assert "15,285 packets left the node with a pod's source address" in agent.reasons
