"""A drill begins nothing that its maintenance window speaks against, and says so in its verdict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.drill.fake_targets import FakeSubject, FakeTarget, VirtualClock
from tests.unit.lab.virtual_time import run as virtually

from hitless.cli.tools import run_tools
from hitless.drill import DrillPlan, run
from hitless.drill.permits import Permit
from hitless.evidence import RecordedDrill, Verdict, read
from hitless.evidence.reports import as_json, render
from hitless.model import events as e

PLAN = DrillPlan(rounds=3, baseline=1.0, settle=0.5, recovery=3.0, patience=5.0)
CLOSED = '[[window]]\nname = "leap"\ncron = "0 0 29 2 sun"\nduration = "1h"\npause = { reason = "audit" }\n'


def drilled(tmp_path: Path, permit: Permit, *names: str) -> tuple[RecordedDrill, Verdict]:
    async def main() -> tuple[RecordedDrill, Verdict]:
        target = FakeTarget(dict.fromkeys(names, FakeSubject))
        return await run(PLAN, target, tmp_path / "events.jsonl", judged=names[0], clock=VirtualClock(), permit=permit)

    return virtually(main())


def open_for(times: int) -> Callable[[], str]:
    left = [""] * times
    return lambda: left.pop() if left else "the window is closed"


def test_a_window_that_closes_lets_the_round_end_and_no_other_begin(tmp_path: Path) -> None:
    told, verdict = drilled(tmp_path, Permit(open_for(3)), "first", "second")
    phases = [
        (one.agent, one.phase, one.round) for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Phase)
    ]
    assert phases == [
        ("first", "baseline", 0),
        ("first", "round", 1),
        ("first", "round", 2),
        ("first", "recovery", 0),
        ("first", "end", 0),
    ]
    assert verdict.verdict == "inconclusive"
    assert any("ended after 2 of 3 rounds: the window is closed" in one for one in verdict.agents[0].reasons)
    assert any("not begun: the window is closed" in one for one in verdict.agents[1].reasons)
    assert told.whole


def test_nothing_restarts_when_it_closes_in_the_baseline(tmp_path: Path) -> None:
    _, verdict = drilled(tmp_path, Permit(open_for(1)), "first")
    assert (verdict.verdict, verdict.agents[0].restarts) == ("inconclusive", 0)
    assert any("ended after 0 of 3 rounds" in one for one in verdict.agents[0].reasons)


def test_a_forced_drill_says_why_in_its_header_and_in_every_report(tmp_path: Path) -> None:
    permit = Permit(
        config={"windows": "w.toml", "forced": "customer call 7"}, warning="--force-window: customer call 7"
    )
    told, verdict = drilled(tmp_path, permit, "first")
    assert verdict.verdict == "pass"
    header = read(tmp_path / "events.jsonl").events[0]
    assert isinstance(header, e.Header) and header.config["forced"] == "customer call 7"
    for text in (
        as_json(told, verdict),
        *(render(form, told, verdict) for form in ("html", "junit", "json", "prometheus")),
    ):
        assert "customer call 7" in text


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--window", "FILE"), 3, "are paused"),
        (("--force-window", "because"), 3, "--force-window: cannot be used without windows"),
        (("--window", "FILE", "--force-window", " "), 3, "--force-window: gives no reason"),
        (("--window", "FILE", "--configmap", "a/b"), 3, "expected one of them"),
        (("--window", "FILE", "--needs", "soon"), 3, "--needs: 'soon' is not a duration"),
        (("--window", "FILE.none"), 3, "cannot be read"),
    ],
)
@pytest.mark.parametrize(
    "command", [("drill",), ("node-drill", "--restart-command", "true", "--to", "tcp://192.0.2.1:9", "--yes")]
)
def test_outside_of_its_windows_a_drill_touches_nothing(
    command: tuple[str, ...],
    words: tuple[str, ...],
    code: int,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begun(*_: object, **__: object) -> int:
        raise AssertionError("it began")

    monkeypatch.setattr("hitless.cli.drill.run_and_show", begun)
    monkeypatch.setattr("hitless.cli.node_drill.run_and_show", begun)
    file = tmp_path / "windows.toml"
    file.write_text(CLOSED)
    given = [word.replace("FILE", str(file)) for word in words]
    assert run_tools([*command, *given]) == code
    assert says in capsys.readouterr().err
