"""Journal, metrics, Events and status: what leaves the guard."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.guard.around import Node
from tests.unit.guard.flannels import nat

from hitless.daemon.logs import Log
from hitless.errors import HitlessError, InputError
from hitless.guard import gaps, primaries, records, status
from hitless.guard.gaps import OpenGap
from hitless.guard.journal import Journal
from hitless.guard.locking import AlreadyRunning, Lock, holder, stop
from hitless.guard.meter import Moved
from hitless.guard.metrics import render
from hitless.guard.poisoned_flows import Freed
from hitless.guard.reporting import Reporter
from hitless.guard.serving import serving
from hitless.guard.side import Side
from hitless.guard.standby_rules import learn
from hitless.guard.status import GuardStatus
from hitless.kernel.clock import Clock
from hitless.model.events import Writer
from hitless.model.families import Family

V4 = Family.IPV4
WRITER = Writer(42, 'ipt"ables\n')


def reporter(tmp_path: Path) -> Reporter:
    return Reporter(Log(io.StringIO()), Journal(tmp_path / "j.jsonl"), Clock(), state=tmp_path / "state.json")


def side() -> Side:
    return Side.of(V4, primaries.load("flannel"), (), Node(), learn(nat(), V4, primaries.load("flannel")))


def one_gap(told: Reporter, leaked: int = 0) -> None:
    guarded = side()
    told.opened(guarded)
    told.moved(V4, Moved(carried=17, leaked=leaked))
    told.gap(guarded, OpenGap(1_000_000_000, ("10.42.0.0/16",), "empty", WRITER), 1_050_000_000, None, healed=2)


def test_a_gap_is_written_with_its_writer_and_what_it_cost(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    one_gap(told)
    (line,) = (tmp_path / "j.jsonl").read_text().splitlines()
    gap = json.loads(line)
    assert (gap["type"], gap["covered"], gap["carried"], gap["healed"]) == ("gap", True, 17, 2)
    assert gap["opened_by"]["pid"] == 42
    assert (tmp_path / "j.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_log_holds_lists_and_writers_as_such(tmp_path: Path) -> None:
    stream = io.StringIO()
    one_gap(Reporter(Log(stream), Journal(tmp_path / "j.jsonl"), Clock(), state=tmp_path / "state.json"))
    (gap,) = [each for each in map(json.loads, stream.getvalue().splitlines()) if each["event"] == "gap"]
    assert gap["networks"] == ["10.42.0.0/16"]
    assert gap["opened_by"]["pid"] == 42


def test_a_gap_in_which_packets_leaked_was_not_covered(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    one_gap(told, leaked=3)
    assert told.numbers[V4].uncovered == 1


def test_a_gap_that_was_only_observed_was_not_covered(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    told.guarding = False
    one_gap(told)
    assert told.numbers[V4].uncovered == 1


def test_a_gap_in_which_the_standby_was_not_in_the_kernel_was_not_covered(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    guarded = side()

    def gap(*, bare_before: bool = False, bare_within: bool = False, problem: str = "") -> bool:
        told.problem = problem
        if bare_before or problem:
            told.bare()
        told.quiet(guarded)
        told.opened(guarded)
        if bare_within:
            told.bare()
        before = told.numbers[V4].uncovered
        told.gap(guarded, OpenGap(1, ("10.42.0.0/16",), "empty", WRITER), 2, None, healed=0)
        return told.numbers[V4].uncovered == before

    assert gap()
    assert not gap(bare_within=True)  # somebody took it away, and it was written again
    assert gap(bare_before=True)  # that was over when the gap began
    assert not gap(problem="the kernel refuses the table")
    assert gap()


@pytest.mark.parametrize(("other", "verdict"), [("withdrawn", "unprotected"), ("waiting for rules", "protected")])
def test_a_family_that_withdrew_is_not_protected_by_the_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, verdict: str
) -> None:
    """It names no networks any more, and was left out of the verdict. A family without pods is none to protect."""
    told = reporter(tmp_path)
    told.state({V4: side()}, None)
    facts = json.loads((tmp_path / "state.json").read_bytes())
    facts["mode"] = "guard"
    facts["families"]["ipv4"]["state"] = "standing by"
    facts["families"]["ipv6"] = {**facts["families"]["ipv4"], "state": other, "networks": []}
    monkeypatch.setattr(status, "_from_kernel", dict)
    with Lock(tmp_path / "lock"):
        (tmp_path / "state.json").write_text(json.dumps(facts))
        assert status.read(tmp_path).verdict == verdict


def test_the_journal_stays_bounded_and_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", limit=2000)
    for number in range(200):
        journal.write(records.GuardNote(t=number, level="info", text="x" * 50))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] in (["j.jsonl", "j.jsonl.1"], ["j.jsonl.1"])
    assert sum(file.stat().st_size for file in files) < 4500
    texts = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert max(each["t"] for each in texts) == 199


def test_a_journal_that_cannot_be_written_costs_records_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "j.jsonl")
    journal.write(records.GuardNote(t=1, level="info", text="x"))
    assert journal.failed == 1
    assert "file" in journal.problem


def test_half_a_line_is_taken_back_and_one_that_was_left_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"left by a guard that was kill')
    journal = Journal(path)
    journal.write(records.GuardNote(t=1, level="info", text="one"))
    full = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: full(fd, data[:10]))
    journal.write(records.GuardNote(t=2, level="info", text="two"))
    assert (journal.failed, "space" in journal.problem) == (1, True)
    monkeypatch.setattr(os, "write", full)
    journal.write(records.GuardNote(t=3, level="info", text="three"))
    assert (journal.failed, journal.problem) == (1, "")
    assert [json.loads(line)["t"] for line in path.read_text().splitlines()[1:]] == [1, 3]


def test_a_gap_that_goes_on_is_told_once_and_counted_at_its_end(tmp_path: Path) -> None:
    told, guarded = reporter(tmp_path), side()
    cut = gaps.PrimaryFate(("10.42.0.0/16",), (), "empty")
    guarded.egress.see(cut, 0, WRITER)
    guarded.forward.see(cut, 0, WRITER)
    for second in (1, 9, 11, 12, 60):
        told.goes_on(guarded, second * 1_000_000_000)
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert [(each["type"], each["end"], each["open"]) for each in lines] == [
        ("gap", 11_000_000_000, True),
        ("forward_gap", 11_000_000_000, True),
    ]
    assert told.numbers[V4].gaps == {}
    assert told.numbers[V4].forward_gaps == 0


def test_a_leak_that_goes_on_does_not_push_everything_else_out_of_the_journal(tmp_path: Path) -> None:
    now = [1_000_000_000]
    clock = Clock()
    told = Reporter(Log(io.StringIO()), Journal(tmp_path / "j.jsonl"), clock)
    told._clock = SimpleNamespace(now=lambda: now[0])  # type: ignore[assignment]
    for second in range(1, 200):
        now[0] = second * 1_000_000_000
        told.freed(V4, Freed(0, ["udp a -> b"]), "leak", 0, 2, dry=False)
    told.close({})
    leaks = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert len(leaks) == 5
    assert sum(leak["packets"] for leak in leaks) == 2 * 199
    assert max(len(leak["flows"]) for leak in leaks) == 20


def test_what_an_earlier_guard_left_is_not_shown_as_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = reporter(tmp_path)
    told.state({V4: side()}, None)
    monkeypatch.setattr(status, "_from_kernel", dict)
    with Lock(tmp_path / "lock"):
        assert status.read(tmp_path).facts["families"] != {}
        facts = json.loads((tmp_path / "state.json").read_bytes())
        (tmp_path / "state.json").write_text(json.dumps(facts | {"pid": facts["pid"] + 1}))
        assert status.read(tmp_path).facts["families"] == {}


def test_metrics_escape_names_that_come_from_outside(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    one_gap(told)
    told.freed(V4, Freed(3, ["tcp a -> b"]), "gap", 0, 0, dry=False)
    told.state({V4: side()}, None)
    page = render(told)
    assert r'hitless_guard_gaps_total{family="ipv4",writer="ipt\"ables\\n"} 1' in page
    assert 'hitless_guard_carried_flows_total{family="ipv4"} 17' in page
    assert 'hitless_guard_healed_flows_total{family="ipv4"} 3' in page
    assert "hitless_guard_problem 0" in page


def test_metrics_are_served_only_where_somebody_asked(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    with serving(None, told) as port:
        assert port == 0
    with serving("127.0.0.1:0", told) as port:
        for path in ("metrics", "healthz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
                assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=10)
        missing.value.close()
    with pytest.raises(InputError, match="--metrics"), serving("nowhere", told):
        pass


def test_a_process_id_from_another_pid_namespace_is_not_killed(tmp_path: Path) -> None:
    """A guard in a pod writes its number there: here it is somebody else's."""
    path = tmp_path / "lock"
    victim = subprocess.Popen(["sleep", "60"])
    try:
        with Lock(path):
            path.write_text(f"{victim.pid}\n")
            with pytest.raises(HitlessError, match="container"):
                stop(path)
            assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_a_loop_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    with serving("127.0.0.1:0", told) as port:
        told.turned -= 60
        with pytest.raises(urllib.error.HTTPError) as late:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
        assert late.value.code == 503
        late.value.close()
        told.state({}, None)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert answer.status == 200


def test_a_second_guard_is_told_the_first_ones_process(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    assert holder(path) == 0
    with Lock(path):
        assert holder(path) > 0
        with pytest.raises(AlreadyRunning, match=str(holder(path))), Lock(path):
            pass
    assert holder(path) == 0


def test_somebody_who_only_looks_is_no_second_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``status`` asks by taking the lock for a moment: a guard that began just then refused, for "pid 0"."""
    path = tmp_path / "lock"
    with path.open("wb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with Lock(path):
            assert holder(path) > 0


def test_status_tells_people_what_is_protected_and_what_happened(tmp_path: Path) -> None:
    told = reporter(tmp_path)
    one_gap(told)
    told.state({V4: side()}, None)
    facts = json.loads((tmp_path / "state.json").read_bytes())
    text = GuardStatus("unprotected", facts).text()
    assert "it only observes" in text
    assert "10.42.0.0/16" in text
    assert "50 ms" in text
    told.close({})
    assert not (tmp_path / "state.json").exists()
