"""Evidence that is missing, doubled, or from a tool that was killed never makes a pass, in any report."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from tests.unit.evidence.drill_logs import MS, Drill, S, at

from hitless.evidence import AgentVerdict, decide, grouped, judge
from hitless.evidence.reports import render
from hitless.model import events as e


def the(events: list[e.Event]) -> AgentVerdict:
    (agent,) = decide(events).agents
    return agent


def with_totals(events: list[e.Event], tool: str, **totals: int) -> list[e.Event]:
    """The log, with these totals in the tool's summary."""

    def changed(event: e.Event) -> e.Event:
        mine = isinstance(event, e.Summary) and event.tool == tool
        return msgspec.structs.replace(event, totals=totals) if mine else event

    return [changed(event) for event in events]


def control(drill: Drill) -> list[e.Event]:
    """A second prober on the node, which came to its end."""
    here = drill.where("control_host")
    return [
        e.Header(t=at(-0.5), tool="probe", version="0.1.0", **here),
        e.Heartbeat(t=at(1), tool="probe", interval_ns=S, max_lag_ns=MS, **here),
        e.Summary(t=at(drill.end + 0.1), tool="probe", **here),
    ]


# --- a tool that was killed ------------------------------------------------------------------------------------------


def test_a_prober_that_was_killed_is_noticed_beside_another_that_came_to_its_end() -> None:
    drill = Drill()
    drill.extra += control(drill)
    agent = the(drill.without(lambda event: isinstance(event, e.Summary) and event.stream == "probe"))
    assert agent.verdict == "inconclusive"
    assert "the record of probe is cut off: it did not come to its end" in agent.reasons


def test_attempts_without_a_record_are_counted_for_each_prober() -> None:
    """A heartbeat is older than the last attempts: what one prober wrote since must not hide what another lacks."""
    drill = Drill(config={"restart_evidence": True})
    other = drill.where("probe_second")
    drill.extra += [
        e.Heartbeat(t=at(5), tool="probe", interval_ns=S, begun=8_000, **drill.where("probe")),
        e.Heartbeat(t=at(5), tool="probe", interval_ns=S, begun=500, **other),
        e.Attempts(t=at(3), interval_ns=S // 10, kind="tcp", family="ipv4", sent=100, ok=100, **other),
    ]
    agent = the(drill.log())
    assert (agent.undecided, agent.attempted) == (400, 9_500)
    assert agent.verdict == "inconclusive"


def test_skipped_attempts_are_counted_for_each_prober() -> None:
    drill = Drill()
    other = drill.where("probe_second")
    drill.extra += [
        e.Heartbeat(t=at(5), tool="probe", interval_ns=S, skipped=900, **other),
        e.Summary(t=at(9), tool="probe", totals={"skipped_late": 800}, **drill.where("probe")),
    ]
    agent = the(drill.log())
    assert (agent.skipped, agent.verdict) == (1_700, "inconclusive")


# --- lines that are missing, or there twice --------------------------------------------------------------------------


def test_attempts_that_are_missing_from_the_middle_of_the_log_are_noticed() -> None:
    whole = with_totals(Drill().log(), "probe", tcp_sent=9_000)
    assert the(whole).verdict == "pass"
    agent = the([event for event in whole if not (isinstance(event, e.Attempts) and event.t == at(4.5))])
    assert agent.verdict == "inconclusive"
    assert "the log has 8,900 of the 9,000 attempts that the prober counted: a part of its record is missing" in (
        agent.reasons
    )


def test_attempts_that_are_in_the_log_twice_are_noticed() -> None:
    whole = with_totals(Drill().log(), "probe", tcp_sent=9_000)
    agent = the(whole + [event for event in whole if isinstance(event, e.Attempts) and event.t == at(4.5)])
    assert agent.verdict == "inconclusive"
    assert "the log has 9,100 of the 9,000 attempts that the prober counted: a part of its record is there twice" in (
        agent.reasons
    )


def test_losses_that_only_the_summary_counts_are_a_failure() -> None:
    agent = the(with_totals(Drill().log(), "probe", tcp_sent=9_000, tcp_lost=3))
    assert (agent.verdict, agent.lost) == ("fail", 3)
    assert "lost 3 attempts that the prober counted without saying which" in agent.reasons


def test_broken_streams_that_only_the_summary_counts_are_noticed() -> None:
    agent = the(with_totals(Drill().log(), "probe", tcp_sent=9_000, stream_breaks=1))
    assert agent.verdict == "inconclusive"
    assert any("0 of the 1 broken stream that the prober counted" in reason for reason in agent.reasons)


def test_a_gap_whose_line_is_missing_is_known_from_the_states() -> None:
    drill = Drill().gap(2.3, 0.05)
    agent = the(drill.without(lambda event: isinstance(event, e.Gap)))
    assert (agent.verdict, agent.gaps, agent.longest_gap_ms) == ("fail", 1, 50.0)


def test_states_and_gap_lines_of_the_same_gap_are_one_gap() -> None:
    agent = the(Drill().gap(2.3, 0.05).gap(4.3, 0.07).log())
    assert (agent.gaps, agent.gap_ms, agent.longest_gap_ms) == (2, 120.0, 70.0)


def test_a_gap_that_only_the_watch_counted_is_noticed() -> None:
    agent = the(with_totals(Drill().log(), "watch", gaps=1))
    assert agent.verdict == "inconclusive"
    assert any("0 of the 1 gap that the watch counted" in reason for reason in agent.reasons)


def test_lost_rule_events_that_only_the_watch_counted_are_noticed() -> None:
    agent = the(with_totals(Drill().log(), "watch", lost_events=2))
    assert agent.verdict == "inconclusive"
    assert any("0 of the 2 losses of rule events that the watch counted" in reason for reason in agent.reasons)


def test_leaks_that_the_far_end_only_counted_are_a_failure() -> None:
    agent = the(with_totals(Drill().log(), "farend", leaks=5))
    assert (agent.verdict, agent.leaked) == ("fail", 5)
    assert "5 packets left the node with a pod's source address" in agent.reasons


def test_packets_that_prober_and_far_end_both_saw_are_counted_once() -> None:
    drill = Drill().leak(2.3)
    (leak,) = (event for event in drill.extra if isinstance(event, e.Leak))
    drill.extra.append(msgspec.structs.replace(leak, stream="probe"))
    agent = the(drill.log())
    assert (agent.leaked, agent.leaked_flows) == (1, 1)


@pytest.mark.parametrize("families", [("ipv4",), ("ipv4", "ipv6")])
def test_rules_of_which_nothing_is_recorded_did_not_carry_throughout(families: tuple[str, ...]) -> None:
    drill = Drill(families=families)
    agent = the(drill.without(lambda event: isinstance(event, e.RuleState) and event.family == families[-1]))
    assert agent.verdict == "inconclusive"
    assert f"the watch did not report whether the rules carry {families[-1]} egress" in agent.reasons


def test_rules_that_were_first_read_after_the_first_restart_were_not_known_until_then() -> None:
    drill = Drill()
    late = [
        msgspec.structs.replace(event, t=at(2.6)) if isinstance(event, e.RuleState) else event for event in drill.log()
    ]
    agent = the(late)
    assert (agent.verdict, agent.cannot_tell_ms) == ("inconclusive", 600.0)


# --- whole records that are missing ----------------------------------------------------------------------------------


def test_a_node_that_was_to_be_drilled_and_of_which_nothing_came_keeps_its_agent_from_passing() -> None:
    verdict = decide(Drill(config={"nodes": ["node-1", "node-2"]}).log())
    (agent,) = verdict.agents
    assert agent.verdict == "inconclusive"
    assert any("node-2: no connection was attempted" in reason for reason in agent.reasons)


def test_a_judged_agent_of_which_nothing_came_is_a_row_of_every_report() -> None:
    verdict = decide(Drill(config={"judged": ["flannel-0.28", "hitless"]}).log())
    assert [(one.agent, one.verdict) for one in verdict.agents] == [
        ("flannel-0.28", "pass"),
        ("hitless", "inconclusive"),
    ]
    assert verdict.verdict == "inconclusive"


def test_a_log_without_agents_is_an_error_in_junit() -> None:
    """A suite without test cases is green in most CI systems."""
    log: list[e.Event] = [e.Header(t=at(0), tool="drill", version="0.1.0"), e.Summary(t=at(1), tool="drill")]
    told = grouped(log)
    suite = ET.fromstring(render("junit", told, judge(told)))[0]
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    (error,) = suite.iter("error")
    assert error.get("message") == "the log names no agent"


# --- the same in every report ----------------------------------------------------------------------------------------


def warned() -> dict[str, str]:
    drill = Drill()
    text = "the probe runs on the host: it does not pass the pods' egress path"
    drill.extra.append(e.Note(t=at(0), level="warning", text=text, **drill.where("drill")))
    told = grouped(drill.log())
    return {form: render(form, told, judge(told)) for form in ("terminal", "json", "junit", "html")}


@pytest.mark.parametrize("form", ["terminal", "json", "junit", "html"])
def test_a_warning_about_an_agent_reaches_every_report(form: str) -> None:
    assert "does not pass the pods" in " ".join(warned()[form].split())


def test_a_warning_names_its_agent_and_node_where_there_are_several() -> None:
    drill, other = Drill(), Drill(node="node-2")
    other.extra.append(e.Note(t=at(0), level="warning", text="attempts are skipped", **other.where("probe")))
    log = [drill.header(), *drill.events(), *other.events(), e.Summary(t=at(30), tool="drill")]
    assert decide(log).notes == ("flannel-0.28 (stand-in) on node-2: attempts are skipped",)


def test_many_warnings_are_counted_and_the_first_are_listed() -> None:
    drill = Drill()
    drill.extra += [
        e.Note(t=at(number / 10), level="warning", text=f"warning {number}", **drill.where("drill"))
        for number in range(30)
    ]
    notes = decide(drill.log()).notes
    assert notes[0] == "warning 0"
    assert notes[-1] == "and 20 more warnings (hitless report --format html lists them)"
    assert len(notes) == 11


def figures(drill: Drill) -> dict[str, Any]:
    told = grouped(drill.log())
    found: dict[str, Any] = json.loads(render("json", told, judge(told)))
    return found


def test_the_line_to_cite_names_what_failed_where_nothing_was_lost() -> None:
    assert "0 of 9,000 lost, 1 gap in the rules, longest 50.0 ms" in figures(Drill().gap(2.3, 0.05))["cite"]
    assert "0 of 9,000 lost, 1 packet leaked" in figures(Drill().leak(2.3))["cite"]
    clean = figures(Drill())["cite"]
    assert "gap" not in clean
    assert "leaked" not in clean


def test_the_page_says_how_many_reasons_it_leaves_out() -> None:
    told = grouped(Drill().log())
    verdict = judge(told)
    long = msgspec.structs.replace(verdict.agents[0], verdict="fail", reasons=tuple(f"reason {n}" for n in range(25)))
    page = render("html", told, msgspec.structs.replace(verdict, agents=(long,)))
    assert "reason 19" in page
    assert "and 5 more" in page


def test_metrics_tell_a_log_that_was_cut_off_and_rules_that_were_not_understood() -> None:
    drill = Drill()
    told = replace(grouped(drill.log()), whole=False)
    text = render("prometheus", told, judge(told))
    assert "\nhitless_drill_log_complete 0\n" in text
    assert 'hitless_drill_cannot_tell_seconds{agent="flannel-0.28"} 0\n' in text
    assert 'hitless_drill_unrecovered_flows{agent="flannel-0.28"} 0\n' in text
