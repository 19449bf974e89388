"""Pods that are not carried although others are: in every report, and no reason to fail."""

from __future__ import annotations

from tests.unit.evidence.drill_logs import Drill, at

from hitless.evidence.verdict import decide
from hitless.model import events as e

KEPT = "1 of 2 pods is kept in by KUBE-POD-FW-A (10.42.0.7: KUBE-POD-FW-A rule 2 (ip filter) rejects it)"


def state(seconds: float, partly: str = "") -> e.RuleState:
    drill = Drill()
    return e.RuleState(
        t=at(seconds), node=drill.node, agent=drill.agent, stream="watch", family="ipv4", network="10.42.0.0/16",
        state="carried", reason="rule 5", pods=2, pods_not_carried=int(bool(partly)), partly=partly,
    )  # fmt: skip


def test_a_policy_that_holds_all_the_time_is_a_note_and_not_a_failure() -> None:
    verdict = decide(Drill(extra=[state(0.5, KEPT)]).log())
    assert verdict.verdict == "pass"
    [note] = verdict.notes
    assert KEPT in note and note.startswith("10.42.0.0/16 on node-1: ") and "also before the first restart" in note


def test_what_came_with_a_restart_is_a_note_with_its_length() -> None:
    verdict = decide(Drill(extra=[state(0.5), state(2.5, KEPT), state(4.0)]).log())
    [note] = verdict.notes
    assert "for 1.5 s of the drill, not before the first restart" in note


def test_without_such_pods_there_is_no_note() -> None:
    assert decide(Drill(extra=[state(0.5)]).log()).notes == ()
