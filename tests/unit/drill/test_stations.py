"""Desks of a drill on several nodes: what is whose, and who hears of it."""

from __future__ import annotations

from pathlib import Path

from hitless.drill import DrillLog, SubjectRecorder
from hitless.drill.stations import CompanionRecorder, SharedRecorder
from hitless.evidence import LogWriter, read
from hitless.kernel.clock import Clock
from hitless.model import events as e

FLOW = {"kind": "tcp", "family": "ipv4", "sport": 1, "dst": "198.51.100.1", "dport": 2}


def _desks(record: DrillLog) -> tuple[SubjectRecorder, CompanionRecorder]:
    first = record.recorder("a", "node0")
    return first, CompanionRecorder(record, "a", "node1", trouble=first.trouble, first=first)


def test_the_first_desk_hears_what_the_others_write_and_their_trouble_is_its_own(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log") as writer:
        first, other = _desks(DrillLog(writer, Clock()))
        other.write(e.Attempts(t=1, interval_ns=1, kind="tcp", family="ipv4", sent=7, ok=7), "probe")
        other.write(e.RuleState(t=1, family="ipv4", network="10.42.0.0/16", state="not_carried"), "watch")
        assert first.attempted == 7
        assert not first.restored({})
        other.fail("broken")
        assert first.trouble.is_set()
    assert {event.node for event in _written(tmp_path)} == {"node1"}


def test_what_the_one_far_end_saw_goes_to_the_node_of_the_pod_or_to_all(tmp_path: Path) -> None:
    with LogWriter(tmp_path / "log") as writer:
        record = DrillLog(writer, Clock())
        first, other = _desks(record)
        shared = SharedRecorder(
            record,
            "a",
            "",
            trouble=first.trouble,
            recorders=[first, other],
            owner=lambda leak: int("10.42.1." in leak.src),
        )
        for source in ("10.42.0.2", "10.42.1.2", "10.42.1.3"):
            shared.write(e.Leak(t=1, src=source, **FLOW), "farend")  # type: ignore[arg-type]
        shared.write(e.Heartbeat(t=2, tool="farend", interval_ns=1), "farend")
        shared.write(e.Summary(t=3, tool="farend", totals={"leaks": 5, "answers": 9}), "farend")
    events = _written(tmp_path)
    leaks = [(event.node, event.src) for event in events if isinstance(event, e.Leak)]
    assert leaks == [("node0", "10.42.0.2"), ("node1", "10.42.1.2"), ("node1", "10.42.1.3")]
    totals = {event.node: event.totals for event in events if isinstance(event, e.Summary)}
    assert totals == {"node0": {"leaks": 3, "answers": 9}, "node1": {"leaks": 2, "answers": 9}}, (
        "those only counted too"
    )
    assert [event.node for event in events if isinstance(event, e.Heartbeat)] == ["node0", "node1"]


def _written(tmp_path: Path) -> list[e.Event]:
    lines = (tmp_path / "log").read_bytes()
    path = tmp_path / "whole"
    path.write_bytes(b'{"type":"header","t":0,"tool":"drill","version":"0","schema":1}\n' + lines)
    return list(read(path).events[1:])
