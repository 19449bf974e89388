"""The verdict on hand-made logs: one test for each rule and reason."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.evidence.drill_logs import IPTABLES, Drill, S, at, outage_drill, table_of

from hitless.evidence import AgentVerdict, Verdict, decide
from hitless.model import events as e


def the(events: list[e.Event]) -> AgentVerdict:
    verdict = decide(events)
    assert len(verdict.agents) == 1
    assert verdict.agents[0].verdict == verdict.verdict
    return verdict.agents[0]


def why(events: list[e.Event]) -> str:
    return "; ".join(the(events).reasons)


# --- pass ------------------------------------------------------------------------------------------------------------


def test_a_clean_drill_passes_and_gives_the_figures_as_reasons() -> None:
    agent = the(Drill().log())
    assert agent.verdict == "pass"
    assert agent.reasons == (
        "0 of 9,000 attempts lost over 2 restarts; the rules carried egress throughout (0 rule changes seen)",
    )
    assert (agent.rounds, agent.restarts, agent.attempted, agent.lost, agent.gaps) == (2, 2, 9000, 0, 0)
    assert agent.time_to_ready_ms == 490
    assert agent.baseline.attempted == 2000
    assert agent.recovery.attempted == 3000


def test_a_harmless_change_of_the_rules_passes() -> None:
    drill = Drill()
    drill.extra.append(
        e.Change(t=at(2.3), family="ipv4", backend="nft", table="nat", writer=IPTABLES, added=6, removed=6,
                 **drill.where("watch"))
    )  # fmt: skip
    agent = the(drill.log())
    assert agent.verdict == "pass"
    assert agent.rule_changes == 1
    assert "1 rule change seen" in agent.reasons[0]


def test_an_answer_after_a_retry_is_not_a_loss_but_is_reported() -> None:
    drill = Drill()
    drill.extra.append(
        e.Attempts(t=at(2.4), interval_ns=S // 10, kind="tcp", family="ipv4", sent=1, ok=1, delayed=1,
                   **drill.where("probe"))
    )  # fmt: skip
    agent = the(drill.log())
    assert (agent.verdict, agent.delayed) == ("pass", 1)
    assert "1 attempt answered only after a retry" in agent.reasons


# --- fail ------------------------------------------------------------------------------------------------------------


def test_the_outage_of_flannel_fails_with_its_figures() -> None:
    agent = the(outage_drill().log())
    assert agent.verdict == "fail"
    assert (agent.gaps, agent.longest_gap_ms, agent.gap_ms) == (2, 55.0, 110.0)
    assert (agent.attempted, agent.lost, agent.poisoned, agent.unrecovered) == (9100, 100, 80, 40)
    assert agent.causes == {"gap": 20, "poisoned": 80}
    assert (agent.leaked, agent.leaked_flows) == (180, 100)
    assert agent.slowest_recovery_ms == 3000
    assert [(one.comm, one.gaps, one.argv) for one in agent.writers] == [
        ("iptables", 2, "iptables -t nat -F FLANNEL-POSTRTG")
    ]
    assert [(one.round, one.gaps, one.lost) for one in agent.per_round] == [(1, 1, 50), (2, 1, 50)]
    assert agent.reasons == (
        "lost 100 of 9,100 attempts (80 poisoned: dead after the rules were back, 20 in a gap)",
        "2 gaps in the rules: longest 55.0 ms, 110.0 ms in all, made by iptables",
        "180 packets left the node with a pod's source address",
        "80 flows were still dead after the rules were back, the slowest for more than 3.0 s",
    )


def test_a_gap_without_losses_is_a_failure() -> None:
    assert the(Drill().gap(2.3, 0.0004).log()).verdict == "fail"
    assert "a gap of 0.4 ms in the rules, made by iptables; no attempt happened to fall into one" in why(
        Drill().gap(2.3, 0.0004).log()
    )
    fell_in = why(Drill().gap(2.3, 0.05).leak(2.32).log())
    assert "1 packet left" in fell_in
    assert "fall into one" not in fell_in


@pytest.mark.parametrize("cause", ["timeout", "refused", "unreachable"])
def test_a_loss_that_no_gap_explains_fails_with_the_probers_cause(cause: e.Cause) -> None:
    agent = the(Drill().lose(2.3, cause=cause).log())
    assert (agent.verdict, agent.lost, agent.causes) == ("fail", 1, {cause: 1})


def test_a_leak_alone_fails() -> None:
    agent = the(Drill().leak(2.3).log())
    assert (agent.verdict, agent.leaked) == ("fail", 1)


def test_a_broken_stream_fails() -> None:
    drill = Drill()
    drill.extra.append(
        e.StreamBreak(t=at(3), family="ipv4", src="10.42.1.10", sport=1, dst="198.51.100.1", dport=7, begin=at(0),
                      stalled_ns=S // 2, **drill.where("probe"))
    )  # fmt: skip
    agent = the(drill.log())
    assert (agent.verdict, agent.broken_streams) == ("fail", 1)
    assert "1 long-lived stream broke" in agent.reasons


def test_a_gap_that_never_closed_fails_even_when_the_watcher_died_in_it() -> None:
    drill = Drill()
    drill.extra.append(
        e.RuleState(t=at(4.3), family="ipv4", network="10.42.0.0/16", state="not_carried", reason="no masquerade",
                    writer=IPTABLES, **drill.where("watch"))
    )  # fmt: skip
    events = drill.without(
        lambda event: event.stream == "watch" and isinstance(event, e.Summary | e.Heartbeat) and event.t > at(4.3)
    )
    agent = the(events)
    assert agent.verdict == "fail"
    assert agent.gaps == 1
    assert agent.longest_gap_ms > 4000
    assert any("when the drill ended: no masquerade" in reason for reason in agent.reasons)
    assert any("record of watch is cut off" in reason for reason in agent.reasons)


def test_losses_that_the_prober_only_counted_fail() -> None:
    drill = Drill()
    drill.extra.append(
        e.Attempts(t=at(2.4), interval_ns=S // 10, kind="udp", family="ipv4", sent=9, ok=2, lost=7,
                   **drill.where("probe"))
    )  # fmt: skip
    assert the(drill.log()).lost == 7
    assert "lost 7 attempts that the prober counted without saying which" in why(drill.log())


def test_gaps_of_both_families_are_two_and_gaps_of_one_family_at_once_are_one() -> None:
    both = Drill(families=("ipv4", "ipv6")).gap(2.3, 0.05).gap(2.3, 0.05, family="ipv6")
    assert the(both.log()).gaps == 2
    assert the(both.log()).gap_ms == 100
    once = Drill().gap(2.3, 0.05)
    once.extra.append(
        e.Gap(t=at(2.37), family="ipv4", network="10.44.0.0/16", begin=at(2.32), end=at(2.37), **once.where("watch"))
    )
    assert (the(once.log()).gaps, the(once.log()).gap_ms) == (1, 70)


def test_a_poisoned_flow_is_recognised_by_a_late_leak_or_by_its_recovery() -> None:
    late = Drill().gap(2.3, 0.05).lose(2.32).leak(2.3201).leak(3.33)
    assert the(late.log()).causes == {"poisoned": 1}
    knocked = Drill().gap(2.3, 0.05).lose(2.32).knock(2.32, 2.5)
    assert the(knocked.log()).causes == {"poisoned": 1}
    assert the(knocked.log()).slowest_recovery_ms == 2500
    assert the(knocked.log()).unrecovered == 0
    soon = Drill().gap(2.3, 0.05).lose(2.32).knock(2.32, 0.1)
    assert the(soon.log()).causes == {"gap": 1}


@pytest.mark.parametrize(
    ("kind", "tries", "gap", "cause"),
    [
        ("tcp", 1, 0.05, "poisoned"),  # the kernel repeated its SYN after a second
        ("http", 1, 0.05, "poisoned"),
        ("udp", 4, 0.05, "poisoned"),
        ("udp", 1, 0.05, "gap"),  # asked once only: nobody knows
        ("tcp", 3, 1.5, "gap"),  # the gap outlasted its second try
    ],
)
def test_a_flow_that_asked_again_in_vain_when_the_rules_were_back_is_poisoned(
    kind: str, tries: int, gap: float, cause: str
) -> None:
    drill = Drill().gap(2.3, gap)
    drill.extra.append(
        e.Loss(t=at(2.31), kind=kind, family="ipv4", src="10.42.1.10", sport=1, dst="198.51.100.1", dport=7801,  # type: ignore[arg-type]
               planned=at(2.31), end=at(4.81), cause="timeout", tries=tries, **drill.where("probe"))
    )  # fmt: skip
    assert the(drill.log()).causes == {cause: 1}


def test_losses_after_the_last_restart_fail() -> None:
    agent = the(Drill().lose(7.5).log())
    assert (agent.verdict, agent.recovery.lost) == ("fail", 1)


# --- inconclusive ----------------------------------------------------------------------------------------------------


def test_no_traffic_is_never_a_pass() -> None:
    events = Drill().without(lambda event: isinstance(event, e.Attempts))
    agent = the(events)
    assert agent.verdict == "inconclusive"
    assert agent.reasons[0] == "no connection was attempted: a verdict needs traffic"


def test_no_restart_is_never_a_pass_and_the_reason_is_taken_from_the_drill() -> None:
    drill = Drill()
    drill.extra.append(e.Note(t=at(1), level="error", text="flanneld: exec format error", **drill.where("drill")))
    events = drill.without(lambda event: isinstance(event, e.Phase | e.Restart))
    agent = the(events)
    assert agent.verdict == "inconclusive"
    assert agent.reasons[0] == "the agent was never restarted (flanneld: exec format error)"
    assert "flanneld: exec format error" not in agent.reasons[1:], "said once"


def test_an_agent_without_events_is_inconclusive() -> None:
    drill = Drill()
    drill.config["agents"] = ["flannel-0.28", "cilium"]
    verdict = decide(drill.log())
    assert [(one.agent, one.verdict) for one in verdict.agents] == [
        ("flannel-0.28", "pass"),
        ("cilium", "inconclusive"),
    ]


def test_an_unhealthy_baseline_is_inconclusive_even_beside_a_real_outage() -> None:
    agent = the(outage_drill().lose(1.0, 50000).log())
    assert agent.verdict == "inconclusive"
    assert agent.reasons[0].startswith("unhealthy before the first restart: 1 of 2,001 attempts failed")


@pytest.mark.parametrize("begin", [-0.3, 1.5])
def test_a_gap_before_the_first_restart_is_inconclusive(begin: float) -> None:
    agent = the(Drill().gap(begin, 0.05).log())
    assert agent.verdict == "inconclusive"
    assert "did not carry ipv4 egress before the first restart: chain FLANNEL-POSTRTG has no rule" in agent.reasons[0]


def test_a_leak_before_the_first_restart_is_inconclusive() -> None:
    assert "before the first restart" in the(Drill().leak(1).log()).reasons[0]
    assert the(Drill().leak(1).log()).verdict == "inconclusive"


def test_no_baseline_is_inconclusive() -> None:
    events = Drill().without(lambda event: isinstance(event, e.Attempts) and event.t < at(2))
    assert the(events).verdict == "inconclusive"
    assert "no baseline" in why(events)


def test_a_restart_that_did_not_come_to_ready_is_inconclusive() -> None:
    events = Drill().without(lambda event: isinstance(event, e.Restart) and event.step == "ready" and event.round == 2)
    assert the(events).verdict == "inconclusive"
    assert "only 1 of 2 restarts came to ready again" in why(events)


def test_fewer_rounds_than_asked_for_are_inconclusive() -> None:
    drill = Drill()
    drill.config["rounds"] = 5
    assert "only 2 of 5 restarts" in why(drill.log())


def test_restarts_without_evidence_are_inconclusive_whatever_was_ready() -> None:
    found = the(Drill(unseen=(1, 2)).log())
    assert (found.verdict, found.reasons) == ("inconclusive", ("no sign that an agent restarted in rounds 1, 2",))
    assert [one.evidence for one in found.per_round] == ["", ""]
    found = the(Drill(unseen=(2,)).log())
    assert (found.verdict, found.reasons) == ("inconclusive", ("no sign that an agent restarted in round 2",))
    assert [one.evidence for one in found.per_round] == ["process 101 runs", ""]


def test_losses_over_restarts_without_evidence_are_not_blamed_on_the_agent() -> None:
    drill = Drill(unseen=(1, 2)).gap(2.3, 0.05).lose(2.32)
    assert the(drill.log()).verdict == "inconclusive"
    assert the(Drill(unseen=(2,)).gap(2.3, 0.05).lose(2.32).log()).verdict == "fail"


def test_a_log_of_before_that_holds_no_evidence_is_judged_as_it_was() -> None:
    assert the(Drill(unseen=(1, 2), config={"restart_evidence": False}).log()).verdict == "pass"


def test_the_recorded_detail_of_a_restart_without_evidence_is_the_reason() -> None:
    drill = Drill(unseen=(1, 2))
    said = (
        "no sign that an agent restarted in round 1: flanneld (process 7) did not end; true said on standard error: x"
    )
    drill.extra.append(
        e.Restart(t=at(3.9), step="failed", round=1, detail=said, code="no_sign", **drill.where("drill"))
    )
    assert the(drill.log()).reasons[0] == said


def bridged_drill(*, guard: bool, agent: str = "flanneld") -> Drill:
    """Each of two restarts empties the chain for 50 ms, and a standby carries 40 flows meanwhile."""
    drill = Drill(agent=agent)
    here = drill.where("watch")
    for t, flows in ((-0.4, 7), (9.0, 87)):
        drill.extra.append(e.Standby(t=at(t), family="ipv4", guard=guard, flows=flows, **here))
    for begin in (2.3, 4.3):
        drill.extra.append(
            e.Bridged(
                t=at(begin + 0.05), family="ipv4", network="10.42.0.0/16", begin=at(begin), end=at(begin + 0.05), **here
            )
        )
    return drill


def test_a_standby_that_an_earlier_guard_left_is_named_in_the_pass_that_rests_on_it() -> None:
    found = decide(bridged_drill(guard=False).log())
    (agent,) = found.agents
    assert (agent.verdict, agent.standby, agent.gaps) == ("pass", "left", 0)
    assert (agent.bridged_gaps, agent.bridged_ms, agent.bridged_flows) == (2, 100.0, 80)
    assert found.headline == "PASS for flanneld with the help of a guard's standby"
    assert agent.reasons[1] == (
        "a standby that a guard which is gone has left is on the node and bridged 2 gaps of the agent's rules "
        "(100.0 ms in all), 80 flows carried: without it pods would have felt them"
    )


def test_what_a_guard_bridged_is_reported_beside_a_failure_too() -> None:
    found = decide(bridged_drill(guard=True, agent="flanneld+guard").lose(2.32).log())
    assert (found.verdict, found.headline) == ("fail", "FAIL for flanneld+guard")
    assert any(
        one.startswith("a standby of a guard at work is on the node and bridged 2 gaps") for one in the_reasons(found)
    )
    assert decide(bridged_drill(guard=True, agent="flanneld+guard").log()).headline == "PASS for flanneld+guard"


def test_a_standby_that_had_nothing_to_do_is_named_all_the_same() -> None:
    drill = Drill()
    drill.extra.append(e.Standby(t=at(-0.4), family="ipv4", guard=True, **drill.where("watch")))
    found = the(drill.log())
    assert (found.verdict, found.bridged_gaps) == ("pass", 0)
    assert "it was not needed" in found.reasons[1]


def the_reasons(found: Verdict) -> tuple[str, ...]:
    (agent,) = found.agents
    return agent.reasons


def test_a_family_without_traffic_is_inconclusive() -> None:
    drill = Drill(families=("ipv4", "ipv6"))
    events = drill.without(lambda event: isinstance(event, e.Attempts) and event.family == "ipv6")
    assert the(events).verdict == "inconclusive"
    assert "no ipv6 connection was attempted during the restarts" in why(events)


def test_a_starved_prober_is_inconclusive_and_its_losses_prove_nothing() -> None:
    drill = Drill().lose(2.3, cause="starved")
    drill.extra.append(
        e.Heartbeat(t=at(2.9), tool="probe", interval_ns=S, max_lag_ns=812_000_000, **drill.where("probe"))
    )
    agent = the(drill.log())
    assert (agent.verdict, agent.lost, agent.prober_lag_ms) == ("inconclusive", 1, 812)
    assert agent.reasons == (
        "1 failure without proof (1 the prober was starved)",
        "the prober was up to 812.0 ms late: this machine was too busy to see shorter outages of traffic",
    )


def test_a_prober_that_was_late_in_the_baseline_only_still_passes() -> None:
    drill = Drill()
    drill.extra.append(
        e.Heartbeat(t=at(0.9), tool="probe", interval_ns=S, max_lag_ns=812_000_000, **drill.where("probe"))
    )
    assert the(drill.log()).verdict == "pass"


def test_an_error_is_reported_with_its_detail() -> None:
    drill = Drill().lose(2.3, cause="error")
    drill.extra = [
        msgspec.structs.replace(one, detail="HTTP 503") if isinstance(one, e.Loss) else one for one in drill.extra
    ]
    assert "1 failure without proof (1 ended in an error: HTTP 503)" in why(drill.log())


def a_second(count: int, families: tuple[str, ...] = ("ipv4",)) -> list[e.Event]:
    """A healthy drill with so many attempts a second; its rounds take two seconds each."""
    step = round(10 / count)

    def spare(event: e.Event) -> bool:
        return isinstance(event, e.Attempts) and round((event.t - at(0)) / (S // 10)) % step != 0

    return Drill(rate=10, families=families).without(spare)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_attempts_to_tell_are_inconclusive_and_say_what_helps(count: int) -> None:
    events = a_second(count)
    assert the(events).verdict == "inconclusive"
    assert "fewer than 10 attempts in rounds 1, 2: too few to tell; raise --rate or --settle" in why(events)


def test_ten_attempts_in_a_round_are_enough_however_slow_the_rate() -> None:
    agent = the(a_second(5))
    assert (agent.verdict, agent.attempted) == ("pass", 45)


def test_too_few_attempts_of_one_family_are_reported_for_that_family() -> None:
    events = [*a_second(5, ("ipv4", "ipv6"))]
    thin = [one for one in events if not (isinstance(one, e.Attempts) and one.family == "ipv6" and one.t > at(2.5))]
    assert the(thin).verdict == "inconclusive"
    assert "fewer than 10 ipv6 attempts in rounds 1, 2" in why(thin)
    assert "fewer than 10 ipv4" not in why(thin)


def test_what_few_attempts_lost_is_still_a_fail() -> None:
    drill = Drill(rate=10)
    drill.gap(2.2, 0.3).lose(2.3)
    events = [
        event for event in drill.log() if not isinstance(event, e.Attempts) or event.lost or event.t % S == at(0) % S
    ]
    assert the(events).verdict == "fail"


def test_a_stopped_prober_is_inconclusive() -> None:
    events = Drill().without(lambda event: isinstance(event, e.Attempts) and at(4.1) <= event.t < at(5.9))
    assert the(events).verdict == "inconclusive"
    assert "less than half of its rate in round 2" in why(events)


@pytest.mark.parametrize("tool", ["watch", "probe", "farend"])
def test_a_tool_that_died_is_inconclusive(tool: str) -> None:
    events = Drill().without(lambda event: isinstance(event, e.Summary) and event.tool == tool)
    assert the(events).verdict == "inconclusive"
    assert f"the record of {tool} is cut off" in why(events)


@pytest.mark.parametrize("tool", ["watch", "farend"])
def test_a_tool_that_was_never_heard_of_is_inconclusive(tool: str) -> None:
    events = Drill().without(lambda event: event.stream == tool)
    assert the(events).verdict == "inconclusive"
    assert f"there is no record of {tool}" in why(events)


def test_a_drill_without_a_far_end_of_its_own_needs_no_record_of_one() -> None:
    assert the(Drill(far_end=False).log()).verdict == "pass"


def test_a_dead_far_end_is_inconclusive_and_not_the_agents_fault() -> None:
    drill = Drill().lose(6.0, cause="refused").lose(6.1, 40001)
    events = drill.without(
        lambda event: event.stream == "farend" and isinstance(event, e.Heartbeat | e.Summary) and event.t > at(3)
    )
    agent = the(events)
    assert (agent.verdict, agent.causes) == ("inconclusive", {"far_end_down": 2})


def full(events: list[e.Event]) -> list[e.Event]:
    return [
        msgspec.structs.replace(event, full=7)
        if isinstance(event, e.Heartbeat) and event.tool == "farend" and at(5.5) < event.t < at(7.5)
        else event
        for event in events
    ]


def test_a_full_far_end_is_inconclusive_and_what_failed_then_is_not_the_agents_fault() -> None:
    assert the(full(Drill().log())).verdict == "inconclusive"
    assert "the far end was full: it closed 14 connections" in why(full(Drill().log()))
    agent = the(full(Drill().lose(6.0, cause="refused").lose(6.1, 40001).log()))
    assert (agent.verdict, agent.causes) == ("inconclusive", {"far_end_full": 2})


def test_a_gap_is_harm_although_the_far_end_was_full() -> None:
    assert the(full(Drill().gap(6.0, 0.1).log())).verdict == "fail"


def test_losses_that_a_control_probe_shares_are_inconclusive() -> None:
    drill = Drill().lose(2.3).lose(2.35, 50000, stream="control-host")
    agent = the(drill.log())
    assert (agent.verdict, agent.lost, agent.control.lost) == ("inconclusive", 1, 1)
    assert "1 failure while a control probe failed too: more than egress was down" in agent.reasons


def test_a_control_probes_losses_elsewhere_excuse_nothing() -> None:
    agent = the(Drill().lose(2.3).lose(6.0, 50000, stream="control-host").log())
    assert agent.verdict == "fail"


def test_a_loss_in_a_gap_is_the_agents_even_when_the_control_failed_too() -> None:
    agent = the(Drill().gap(2.3, 0.05).lose(2.32).lose(2.33, 50000, stream="control-host").log())
    assert (agent.verdict, agent.causes) == ("fail", {"gap": 1})


def test_rules_that_cannot_be_understood_are_inconclusive() -> None:
    drill = Drill()
    drill.extra.append(
        e.RuleState(t=at(3), family="ipv4", network="10.42.0.0/16", state="cannot_tell", reason="match bpf",
                    **drill.where("watch"))
    )  # fmt: skip
    agent = the(drill.log())
    assert agent.verdict == "inconclusive"
    assert agent.cannot_tell_ms > 6000
    assert "could not be understood: match bpf" in agent.reasons[0]


@pytest.mark.parametrize(("legacy", "word"), [(True, "inconclusive"), (False, "pass")])
def test_a_late_watch_is_inconclusive_where_it_polls(legacy: bool, word: str) -> None:
    drill = Drill()
    here = drill.where("watch")
    drill.extra += [
        e.Header(t=at(-0.5), tool="watch", version="1", config={"legacy_tables": legacy}, **here),
        e.Heartbeat(t=at(3), tool="watch", interval_ns=S, max_lag_ns=700_000_000, **here),
    ]
    agent = the(drill.log())
    assert agent.verdict == word
    assert any("the watch was up to 700.0 ms late" in reason for reason in agent.reasons) == legacy


def test_events_that_the_kernel_dropped_are_inconclusive() -> None:
    drill = Drill()
    drill.extra.append(e.LostEvents(t=at(3), resynced=at(3.02), **drill.where("watch")))
    assert "rule events were lost (1 time, 20.0 ms)" in the(drill.log()).reasons


def test_an_unmeasured_recovery_is_inconclusive() -> None:
    events = Drill().without(lambda event: isinstance(event, e.Phase) and event.phase in ("recovery", "end"))
    assert "the time after the last restart was not measured" in why(events)
    silent = Drill().without(lambda event: isinstance(event, e.Attempts) and event.t >= at(6))
    assert "no connection was attempted after the last restart" in why(silent)


def test_a_log_that_was_cut_off_is_inconclusive_at_best_and_still_fails_what_it_saw() -> None:
    drill = Drill()
    assert the(drill.log()[:-1]).verdict == "inconclusive"
    assert "the log is cut off" in why(drill.log()[:-1])
    assert the(outage_drill().log()[:-1]).verdict == "fail"


def test_an_error_that_the_drill_noted_is_inconclusive() -> None:
    drill = Drill()
    drill.extra.append(e.Note(t=at(3), level="error", text="probe ended with 1", **drill.where("drill")))
    assert the(drill.log()).verdict == "inconclusive"
    assert "probe ended with 1" in the(drill.log()).reasons


def test_an_agent_that_ended_by_itself_is_inconclusive() -> None:
    drill = Drill()
    drill.extra.append(e.Restart(t=at(1), step="exited", pid=99, detail="exit code 1", **drill.where("drill")))
    assert the(drill.log()).verdict == "inconclusive"
    assert "the agent ended by itself 1 time" in the(drill.log()).reasons


def test_a_gap_with_an_unknown_writer_is_reported_as_such() -> None:
    assert "made by an unknown writer" in why(Drill().gap(2.3, 0.05, writer=None).log())


# --- several agents, several nodes -----------------------------------------------------------------------------------


def test_the_judged_agents_verdict_is_the_drills() -> None:
    events = table_of(outage_drill(), Drill(agent="hitless"))
    assert decide(events).verdict == "pass"
    assert [one.agent for one in decide(events).agents] == ["flannel-0.28", "hitless"]
    assert decide(table_of(outage_drill(), Drill(agent="hitless"), judge="flannel-0.28")).verdict == "fail"
    assert decide(table_of(Drill(agent="hitless"), judge="calico")).verdict == "inconclusive"


def judged_of(*drills: Drill, judged: list[str]) -> Verdict:
    header = drills[0].header()
    config = {**header.config, "agents": [one.agent for one in drills], "judge": ", ".join(judged), "judged": judged}
    events: list[e.Event] = [e.Header(t=header.t, tool="drill", version="0.1.0", config=config)]
    events += [event for one in drills for event in one.events()]
    return decide([*events, e.Summary(t=at(30), tool="drill")])


def test_of_several_judged_agents_the_worst_decides_and_is_named() -> None:
    bad, lame, good = outage_drill("bad"), Drill(agent="lame"), Drill(agent="good")
    lame.extra.append(e.Note(t=at(1), level="error", text="it died", **lame.where("drill")))
    found = judged_of(bad, lame, good, judged=["good", "bad", "lame"])
    assert (found.verdict, found.judge) == ("fail", "good, bad, lame")
    assert found.headline == "FAIL for bad; 1 of 3 agents failed, 1 of 3 inconclusive"
    found = judged_of(bad, lame, good, judged=["lame", "good"])
    assert (found.verdict, found.headline) == (
        "inconclusive",
        "INCONCLUSIVE for lame; 1 of 3 agents failed, 1 of 3 inconclusive",
    )
    found = judged_of(bad, lame, good, judged=["good"])
    assert (found.verdict, found.headline) == ("pass", "PASS for good; 1 of 3 agents failed, 1 of 3 inconclusive")
    found = judged_of(Drill(agent="a"), Drill(agent="b"), judged=["a", "b"])
    assert found.headline == "PASS for a and b; all 2 agents passed"
    assert judged_of(Drill(agent="a"), judged=["a"]).headline == "PASS for a"
    missing = judged_of(Drill(agent="a"), judged=["a", "missing"])
    assert missing.headline == "INCONCLUSIVE for missing; 1 of 2 inconclusive"


def test_an_agent_on_several_nodes_is_added_up_and_the_worst_node_decides() -> None:
    whole, hurt = Drill(node="node-1"), Drill(node="node-2").gap(2.3, 0.05).lose(2.32)
    events = [whole.header(), *whole.events(), *hurt.events(), e.Summary(t=at(30), tool="drill")]
    agent = the(events)
    assert agent.verdict == "fail"
    assert agent.nodes == ("node-1", "node-2")
    assert agent.attempted == 18001
    assert agent.rounds == 4
    assert all(reason.startswith("node-2: ") for reason in agent.reasons)
    assert agent.causes == {"gap": 1}
    assert len(agent.per_round) == 4


def test_a_single_tools_stream_can_be_judged_and_is_inconclusive() -> None:
    events: list[e.Event] = [
        e.Header(t=at(0), tool="probe", version="1"),
        e.Attempts(t=at(0), interval_ns=S, kind="tcp", family="ipv4", sent=10, ok=10),
        e.Summary(t=at(1), tool="probe"),
    ]
    agent = the(events)
    assert (agent.agent, agent.attempted, agent.verdict) == ("probe", 10, "inconclusive")


# --- properties ------------------------------------------------------------------------------------------------------

times = st.integers(min_value=0, max_value=90).map(lambda tenth: tenth / 10)
ports = st.integers(min_value=40000, max_value=40004)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("gap"), times, st.floats(min_value=0.0003, max_value=0.2)),
        st.tuples(st.just("lose"), times, ports),
        st.tuples(st.just("leak"), times, ports),
        st.tuples(st.just("knock"), times, ports),
        st.tuples(st.just("control"), times, ports),
    ),
    max_size=12,
)


def drilled(done: list[tuple[str, float, float]]) -> Drill:
    drill = Drill(rate=100)
    for what, t, value in done:
        match what:
            case "gap":
                drill.gap(t, value)
            case "lose":
                drill.lose(t, int(value))
            case "leak":
                drill.leak(t, int(value))
            case "knock":
                drill.knock(t, 2.0, int(value))
            case _:
                drill.lose(t, int(value), stream="control-host")
    return drill


def test_causes_with_the_same_count_are_listed_in_a_fixed_order() -> None:
    header, *rest = drilled([("lose", 0.0, 40001), ("leak", 0.0, 40000), ("lose", 0.0, 40000)]).log()
    assert decide([header, *rest]) == decide([header, *reversed(rest)])


@pytest.mark.slow
@given(deeds)
def test_the_verdict_from_the_log_equals_the_verdict_at_run_time(done: list[tuple[str, float, float]]) -> None:
    events = drilled(done).log()
    assert decide([e.decode(e.encode(event)) for event in events]) == decide(events)


@pytest.mark.slow
@given(deeds, st.randoms(use_true_random=False))
def test_the_order_in_which_streams_were_merged_does_not_matter(
    done: list[tuple[str, float, float]], chance: random.Random
) -> None:
    header, *rest = drilled(done).log()
    shuffled = list(rest)
    chance.shuffle(shuffled)
    assert decide([header, *shuffled]) == decide([header, *rest])


@given(deeds)
def test_nothing_lost_is_explained_away(done: list[tuple[str, float, float]]) -> None:
    drill = drilled(done)
    agent = the(drill.log())
    lost = sum(1 for what, _, _ in done if what == "lose")
    assert agent.lost == lost == sum(agent.causes.values())
    if lost or agent.gaps or agent.leaked:
        assert agent.verdict != "pass"


@settings(max_examples=30)
@given(deeds, st.integers(min_value=0, max_value=200))
def test_a_log_cut_anywhere_is_judged_and_never_passes(done: list[tuple[str, float, float]], keep: int) -> None:
    events = drilled(done).log()
    cut = decide(events[: min(len(events) - 1, 1 + keep)])
    assert cut.verdict != "pass"
    assert not cut.whole
