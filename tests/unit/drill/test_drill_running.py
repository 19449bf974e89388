"""The course of a drill, in virtual time: phases, early ends, overlap, and a verdict that is read from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tests.unit.drill.fake_targets import FakeSubject, FakeTarget, VirtualClock
from tests.unit.lab.virtual_time import run as virtually

from hitless.drill import DrillPlan, Method, SubjectRecorder, run
from hitless.errors import HitlessError, InputError, MissingError
from hitless.evidence import Verdict, decide, read
from hitless.model import events as e

PLAN = DrillPlan(rounds=2, baseline=1.0, settle=0.5, recovery=3.0, patience=5.0)


def drilled(
    tmp_path: Path, *, plan: DrillPlan = PLAN, **kinds: Callable[[SubjectRecorder], FakeSubject] | HitlessError
) -> Verdict:
    return drill(FakeTarget(kinds), tmp_path, plan)


def drill(target: FakeTarget, tmp_path: Path, plan: DrillPlan = PLAN) -> Verdict:
    async def main() -> Verdict:
        log = tmp_path / "events.jsonl"
        judged = target.subjects()[-1].agent
        _, verdict = await run(plan, target, log, judged=judged, clock=VirtualClock())
        assert verdict == decide(read(log).events, path=str(log))
        return verdict

    return virtually(main())


def reasons(verdict: Verdict) -> str:
    return "; ".join(reason for agent in verdict.agents for reason in agent.reasons)


def test_a_drill_has_a_baseline_its_rounds_a_recovery_and_an_end(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, good=FakeSubject)
    assert (verdict.verdict, verdict.agents[0].rounds, verdict.agents[0].restarts) == ("pass", 2, 2)
    events = read(tmp_path / "events.jsonl").events
    assert [(one.phase, one.round) for one in events if isinstance(one, e.Phase)] == [
        ("baseline", 0), ("round", 1), ("round", 2), ("recovery", 0), ("end", 0),
    ]  # fmt: skip
    phases = [one.t for one in events if isinstance(one, e.Phase)]
    lengths = [round((after - before) / 1e9, 1) for before, after in pairwise(phases)]
    assert lengths == [1.0, 0.8, 0.8, 3.0]
    assert isinstance(events[0], e.Header)
    assert (events[0].tool, events[0].config["rounds"], events[0].config["judge"]) == ("drill", 2, "good")
    assert isinstance(events[-1], e.Summary)


def test_every_event_carries_its_agent_node_and_stream(tmp_path: Path) -> None:
    drilled(tmp_path, good=FakeSubject)
    events = read(tmp_path / "events.jsonl").events[1:-1]
    assert {(event.agent, event.node) for event in events} == {("good", "node-1")}
    assert {event.stream for event in events} == {"drill", "watch", "probe"}


def test_what_a_restart_costs_is_the_verdict(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, bad=lambda recorder: FakeSubject(recorder, gap=0.05, lost=5))
    assert (verdict.verdict, verdict.agents[0].lost, verdict.agents[0].gaps) == ("fail", 10, 2)


def test_a_round_ends_only_when_the_rules_carry_again(tmp_path: Path) -> None:
    class Late(FakeSubject):
        async def restart(self, round: int) -> None:
            await super().restart(round)
            self.state("not_carried")
            asyncio.get_running_loop().call_later(2.0, self.state, "carried")

    drilled(tmp_path, late=Late, plan=DrillPlan(rounds=1, baseline=1.0, settle=0.5, recovery=3.0))
    phases = [one for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Phase)]
    assert 2.7 <= (phases[2].t - phases[1].t) / 1e9 <= 3.0


def test_rules_that_never_carry_again_are_waited_for_with_patience_and_fail(tmp_path: Path) -> None:
    class Broken(FakeSubject):
        async def restart(self, round: int) -> None:
            await super().restart(round)
            self.state("not_carried")

    verdict = drilled(tmp_path, broken=Broken)
    assert verdict.verdict == "fail"
    assert "when the drill ended" in reasons(verdict)


def test_an_agent_that_does_not_come_back_is_inconclusive(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, lame=lambda recorder: FakeSubject(recorder, ready=False))
    assert verdict.verdict == "inconclusive"
    assert "only 0 of 2 restarts came to ready again" in reasons(verdict)


def test_a_tool_that_dies_ends_the_subject_early_and_the_next_one_goes_on(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, ill=lambda recorder: FakeSubject(recorder, dies=True), good=FakeSubject)
    assert [agent.verdict for agent in verdict.agents] == ["inconclusive", "pass"]
    assert verdict.agents[0].reasons[0] == "probe ended by itself with exit code 1: out of memory"
    phases = [one for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Phase) and one.agent == "ill"]
    assert [one.phase for one in phases] == ["baseline", "round", "end"]


def test_a_subject_without_traffic_ends_within_a_bound_and_never_passes(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, mute=lambda recorder: FakeSubject(recorder, silent=True))
    assert verdict.verdict == "inconclusive"
    assert "no attempt within 15 s of the start" in reasons(verdict)


def test_a_slow_node_has_as_long_for_its_first_events_as_for_a_restart(tmp_path: Path) -> None:
    class Slow(FakeSubject):
        def state(self, state: str) -> None:
            if not self.recorder.states:  # its first word comes late
                asyncio.get_running_loop().call_later(20.0, FakeSubject.state, self, state)
            else:
                super().state(state)

    plan = DrillPlan(rounds=1, baseline=1.0, settle=0.5, recovery=3.0, patience=30.0)
    assert drilled(tmp_path, slow=Slow, plan=plan).verdict == "pass"


def test_rules_that_were_never_understood_are_not_waited_for(tmp_path: Path) -> None:
    class Foreign(FakeSubject):
        def state(self, state: str) -> None:
            super().state("cannot_tell")

    verdict = drilled(tmp_path, foreign=Foreign)
    assert "the rules could not be understood" in reasons(verdict)
    phases = [one.t for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Phase)]
    assert [round((after - before) / 1e9, 1) for before, after in pairwise(phases)] == [1.0, 0.8, 0.8, 3.0]


def test_nothing_is_restarted_on_rules_that_do_not_carry(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, bare=lambda recorder: FakeSubject(recorder, carried=False))
    assert verdict.verdict == "inconclusive"
    assert "nothing was restarted" in reasons(verdict)
    assert not any(isinstance(one, e.Restart) for one in read(tmp_path / "events.jsonl").events)


def test_a_first_subject_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="nft is not installed"):
        drilled(tmp_path, first=MissingError("nft is not installed", remedy="install it"), second=FakeSubject)


def test_a_later_subject_that_cannot_be_made_is_inconclusive(tmp_path: Path) -> None:
    verdict = drilled(tmp_path, first=FakeSubject, second=MissingError("no such program", remedy="install it"))
    assert [agent.verdict for agent in verdict.agents] == ["pass", "inconclusive"]
    assert "no such program; install it" in reasons(verdict)


def test_the_next_subject_is_set_up_while_the_last_answers_of_the_one_before_come_in(tmp_path: Path) -> None:
    target = FakeTarget({"a": FakeSubject, "b": FakeSubject})
    drill(target, tmp_path)
    assert target.story == ["a opens", "b opens", "a closed", "b closed"]
    events = read(tmp_path / "events.jsonl").events
    end = next(one.t for one in events if isinstance(one, e.Phase) and one.agent == "a" and one.phase == "end")
    assert all(one.t >= end for one in events if one.agent == "b"), "the rounds of a were not disturbed"


def test_an_interrupted_drill_closes_what_it_opened_and_leaves_a_log_that_is_cut(tmp_path: Path) -> None:
    target = FakeTarget({"a": FakeSubject, "b": FakeSubject})

    async def main() -> None:
        running = asyncio.create_task(run(PLAN, target, tmp_path / "events.jsonl", judged="b", clock=VirtualClock()))
        await asyncio.sleep(3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    virtually(main())
    assert target.story == ["a opens", "a closed"]
    log = read(tmp_path / "events.jsonl")
    assert not log.whole
    assert decide(log.events).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("flag", "change"),
    [
        ("--rounds", {"rounds": 0}),
        ("--rounds", {"rounds": 100_000}),
        ("--rate", {"rate": 0}),
        ("--baseline", {"baseline": 0.1}),
        ("--recovery", {"recovery": 1.0}),
        ("--stop-for", {"stop_for": -1.0}),
        ("--family", {"families": ()}),
    ],
)
def test_a_plan_that_asks_for_the_impossible_is_refused_by_its_flag(flag: str, change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=flag):
        DrillPlan(**change)  # type: ignore[arg-type]


def test_every_method_has_the_name_of_the_command_line() -> None:
    assert [str(method) for method in Method] == ["sigterm", "sigkill", "crash-loop", "stop", "replace"]
