"""The self-test must be able to fail: each of its checks on records that are wrong in one way."""

from __future__ import annotations

import pytest
from tests.unit.evidence.drill_logs import FAR, IPTABLES, Drill, at

from hitless.drill.injector import CommitTime, Injected
from hitless.drill.selftest import overall
from hitless.drill.trials import Finding, Gaps, Harmless, Losses, Quiet, Signalled, Trial, trials
from hitless.evidence import decide, grouped
from hitless.model import events as e
from hitless.model.families import Backend

MS = 1_000_000


def checked(trial: Trial, drill: Drill) -> list[Finding]:
    events = drill.log()
    (record,) = grouped(events).records
    return list(trial.check(record, decide(events).agents[0]))


def wrong(trial: Trial, drill: Drill) -> list[str]:
    return [finding.done for finding in checked(trial, drill) if not finding.right]


def injected(*gaps: tuple[float, float]) -> list[Injected]:
    """Gaps by begin and length in seconds, each commit bounded to a tenth of a millisecond."""
    tenth = MS // 10
    return [
        Injected(
            length * 1000,
            CommitTime(at(begin) - tenth, at(begin)),
            CommitTime(at(begin + length) - tenth, at(begin + length)),
        )
        for begin, length in gaps
    ]


def gaps(*made: tuple[float, float]) -> Gaps:
    return Gaps([1.0, 50.0], 2 * MS, injected=injected(*made), pid=IPTABLES.pid)


def lossy(*made: tuple[float, float]) -> Drill:
    """A drill that found gaps, and lost every connection that was begun in one."""
    drill = Drill(rounds=1)
    sport = 30000
    for begin, length in made:
        drill.gap(begin, length)
        for index in range(round(length * 1000)):
            sport += 1
            drill.lose(begin + index / 1000, sport)
    return drill


def test_gaps_that_were_found_and_measured_right_are_right() -> None:
    assert wrong(gaps((2.3, 0.05), (2.6, 0.1)), lossy((2.3, 0.05), (2.6, 0.1))) == []


def test_a_gap_that_was_missed_is_wrong() -> None:
    found = wrong(gaps((2.3, 0.05), (2.6, 0.1)), lossy((2.3, 0.05)))
    assert "2 gaps of 1 to 50 ms" in found


def test_a_gap_that_was_not_made_is_wrong() -> None:
    assert "1 gaps of 1 to 50 ms" in wrong(gaps((2.3, 0.05)), lossy((2.3, 0.05), (2.6, 0.05)))


@pytest.mark.parametrize("off", [-0.003, 0.003])
def test_a_begin_that_is_off_is_wrong(off: float) -> None:
    assert wrong(gaps((2.3, 0.05)), lossy((2.3 + off, 0.05 - off))) == ["begin and end within 2 ms"]


def late(drill: Drill, seconds: float) -> Drill:
    """The watch knows that it was late by so much."""
    here = drill.where("watch")
    drill.extra.append(e.Heartbeat(t=at(2.9), tool="watch", interval_ns=MS, max_lag_ns=round(seconds * 1e9), **here))
    return drill


def test_gaps_that_were_seen_late_are_found_and_only_their_times_are_unknown() -> None:
    made, seen = ((2.3, 0.002), (2.4, 0.005), (2.5, 0.05)), ((2.505, 0.002), (2.510, 0.005), (2.52, 0.04))
    for lag, busy in ((0.2, True), (0.001, False)):
        (wrong,) = [each for each in checked(gaps(*made), late(lossy(*seen), lag)) if not each.right]
        assert (wrong.done, wrong.busy) == ("begin and end within 2 ms", busy)


def test_a_gap_that_was_missed_is_excused_only_where_rules_are_asked_and_were_asked_too_late() -> None:
    made, seen = ((2.3, 0.005), (2.4, 0.05)), ((2.4, 0.05),)
    for asked, lag, busy in ((True, 0.02, True), (True, 0.004, False), (False, 0.02, False)):
        trial = gaps(*made)
        trial.polled = asked
        found = {each.done: each for each in checked(trial, late(lossy(*seen), lag))}["2 gaps of 1 to 50 ms"]
        assert (found.right, found.busy) == (False, busy)
        assert "not those of 5 ms" in found.found


def test_two_gaps_that_were_merged_are_excused_if_the_watch_was_later_than_the_pause_between_them() -> None:
    made, seen = ((2.3, 0.2), (2.58, 0.2)), ((2.3, 0.48),)
    for asked, lag, busy in ((True, 0.1, True), (True, 0.05, False), (False, 0.1, False)):
        trial = gaps(*made)
        trial.polled = asked
        found = {each.done: each for each in checked(trial, late(lossy(*seen), lag))}["2 gaps of 1 to 50 ms"]
        assert (found.right, found.busy) == (False, busy)
        assert found.found.startswith("0 found") and found.found.endswith("0 more")


def test_connections_are_counted_by_the_gaps_that_were_made_not_by_those_that_were_seen() -> None:
    drill = late(Drill(rounds=1).gap(2.45, 0.05), 0.15)
    for index in range(200):
        drill.lose(2.3 + index / 1000, 30000 + index)
    (felt,) = [one for one in checked(gaps((2.3, 0.2)), drill) if one.done == "about 200 connections begun in them"]
    assert felt.right or felt.busy
    drill = late(Drill(rounds=1).gap(2.45, 0.05), 0.15)  # but a late watch does not excuse losses that are missing
    (felt,) = [one for one in checked(gaps((2.3, 0.2)), drill) if one.done.startswith("about")]
    assert not felt.right and not felt.busy


def test_another_writer_is_wrong() -> None:
    trial = gaps((2.3, 0.05))
    trial.pid = 1
    assert wrong(trial, lossy((2.3, 0.05))) == ["process 1 wrote all"]


def test_connections_lost_elsewhere_or_not_lost_at_all_are_wrong() -> None:
    assert wrong(gaps((2.3, 0.05)), Drill(rounds=1).gap(2.3, 0.05)) == ["about 50 connections begun in them"]
    assert wrong(gaps((2.3, 0.05)), lossy((2.3, 0.05)).lose(3.0)) == ["about 50 connections begun in them"]


def test_no_gap_at_all_is_never_right() -> None:
    assert "0 gaps of 1 to 50 ms" in wrong(gaps(), Drill(rounds=1))


def dropped() -> Losses:
    return Losses(2, victims=frozenset({(FAR, 40000, 7), (FAR, 40001, 7)}))


def test_exactly_the_dropped_connections_are_right() -> None:
    assert wrong(dropped(), Drill().lose(2.3, 40000).lose(2.31, 40001)) == []


@pytest.mark.parametrize("ports", [(40000,), (40000, 40002), (40000, 40001, 40002), ()])
def test_other_losses_than_those_dropped_are_wrong(ports: tuple[int, ...]) -> None:
    drill = Drill()
    for port in ports:
        drill.lose(2.3, port)
    assert "2 connections dropped" in wrong(dropped(), drill)


def test_a_connection_to_elsewhere_by_the_source_port_of_a_dropped_one_is_not_that_one() -> None:
    assert "2 connections dropped" in wrong(dropped(), Drill().lose(2.3, 40000).lose(2.31, 40001, family="ipv6"))


def test_a_dropped_connection_that_is_blamed_on_a_gap_is_wrong() -> None:
    drill = Drill().gap(2.29, 0.05).lose(2.3, 40000).lose(2.31, 40001)
    assert "2 connections dropped" in wrong(dropped(), drill)


def test_harmless_changes_must_be_seen_and_must_not_be_a_gap() -> None:
    seen = Drill()
    seen.extra.append(e.Change(t=at(2.3), family="ipv4", backend="nft", table="nat", **seen.where("watch")))
    assert wrong(Harmless(), seen) == []
    assert wrong(Harmless(), Drill()) == ["rules doubled, reordered, put back"]
    assert len(wrong(Harmless(), Drill().gap(2.3, 0.001))) == 2


def test_a_restart_with_nothing_wrong_must_pass() -> None:
    assert wrong(Quiet(), Drill()) == []
    assert len(wrong(Quiet(), Drill().lose(2.3))) == 2


def slept(drill: Drill, tool: str, seconds: float) -> Drill:
    """A tool that did not run for a while, and says so; what was lost meanwhile was lost for that."""
    for at_once in range(3):
        drill.lose(2.3 + at_once / 1000, 50000 + at_once, cause="starved" if tool == "probe" else "far_end_down")
    here = drill.where(tool)
    drill.extra.append(e.Heartbeat(t=at(3.9), tool=tool, interval_ns=MS, max_lag_ns=round(seconds * 1e9), **here))
    return drill


@pytest.mark.parametrize("tool", ["probe", "farend"])
def test_losses_of_a_stalled_tool_are_excused_only_if_the_tool_reports_its_lag(
    tool: str,
) -> None:
    for lag, busy in ((3.0, True), (0.1, False)):
        changed = Drill()
        changed.extra.append(e.Change(t=at(2.3), family="ipv4", backend="nft", table="nat", **changed.where("watch")))
        victims = Drill().lose(2.3, 40000).lose(2.31, 40001)
        for trial, drill in ((Quiet(), Drill()), (Harmless(), changed), (dropped(), victims)):
            found = [one for one in checked(trial, slept(drill, tool, lag)) if not one.right]
            assert found
            assert [one.busy for one in found] == [busy] * len(found), trial
    # a gap is none of it, and neither is a loss that nobody slept through, however long a tool slept
    assert not any(one.busy for one in checked(Quiet(), slept(Drill().gap(2.3, 0.1), tool, 3.0)))
    others = slept(Drill().lose(2.3, 40000).lose(2.31, 40001).lose(2.32, 40002), tool, 3.0)
    assert not any(one.busy for one in checked(dropped(), others))


def test_a_tool_that_was_killed_must_make_the_drill_inconclusive_and_say_so() -> None:
    trial = Signalled("watch", True, "watcher killed")
    assert wrong(trial, Drill()) == ["verdict inconclusive"]
    told = Drill()
    told.extra.append(e.Note(t=at(3), level="error", text="something else", **told.where("drill")))
    assert wrong(trial, told) == ["verdict inconclusive"]
    told.extra.append(e.Note(t=at(3), level="error", text="watch ended", code="watch_ended", **told.where("drill")))
    assert wrong(trial, told) == []


def test_the_overall_verdict_is_the_worst_and_without_findings_a_fail() -> None:
    right, busy, bad = Finding("a", "b", "c", True), Finding("a", "b", "c", False, True), Finding("a", "b", "c", False)
    assert overall([right, right]) == "pass"
    assert overall([right, busy]) == "inconclusive"
    assert overall([right, busy, bad]) == "fail"
    assert overall([]) == "fail"


@pytest.mark.parametrize("backend", list(Backend))
def test_every_backend_has_every_trial_and_no_gap_shorter_than_promised(backend: Backend) -> None:
    for quick in (False, True):
        chosen = trials(backend, quick=quick)
        assert len({trial.name for trial in chosen}) == len(chosen) == 7
        lengths = next(trial.lengths for trial in chosen if isinstance(trial, Gaps))
        assert min(lengths) == (3.0 if backend is Backend.LEGACY else 1.0)
        assert max(lengths) == 1000.0
