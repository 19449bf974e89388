"""A stream may contain only what its tool on its node can know; the rest is refused and reported, within bounds."""

from __future__ import annotations

import ast
import typing
from pathlib import Path

import msgspec
import pytest

import hitless
from hitless.drill.event_checks import EventCheck, refused
from hitless.model import events as e

T = 1_790_000_000_000_000_000
WATCHED: list[e.Event] = [
    e.Header(t=T, tool="watch", version="1"),
    e.RuleState(t=T, family="ipv4", network="10.42.0.0/16", state="carried"),
    e.Change(t=T, family="ipv4", backend="nft", table="nat"),
    e.Gap(t=T, family="ipv4", network="10.42.0.0/16", begin=T - 1, end=T),
    e.Bridged(t=T, family="ipv4", network="10.42.0.0/16", begin=T - 1, end=T),
    e.Standby(t=T, family="ipv4", guard=True),
    e.LostEvents(t=T),
    e.Heartbeat(t=T, tool="watch", interval_ns=1),
    e.Note(t=T, level="info", text="x"),
    e.Summary(t=T, tool="watch"),
]
FLOW = {"family": "ipv4", "src": "10.42.0.7", "sport": 1, "dst": "192.0.2.1", "dport": 2}
PROBED: list[e.Event] = [
    e.Header(t=T, tool="probe", version="1"),
    e.Attempts(t=T, interval_ns=1, kind="tcp", family="ipv4", sent=1, ok=1),
    e.Attempts(t=T, interval_ns=1, kind="tcp", family="ipv4", sent=1, ok=1, stream="control"),
    e.Loss(t=T, kind="tcp", planned=T, end=T, cause="timeout", **FLOW),  # type: ignore[arg-type]
    e.Recovery(t=T, kind="tcp", begin=T, duration_ns=1, recovered=True, **FLOW),  # type: ignore[arg-type]
    e.StreamBreak(t=T, begin=T, **FLOW),  # type: ignore[arg-type]
    e.Leak(t=T, kind="tcp", **FLOW),  # type: ignore[arg-type]
    e.Summary(t=T, tool="probe"),
]
FAR: list[e.Event] = [e.Leak(t=T, kind="tcp", **FLOW), e.Summary(t=T, tool="farend")]  # type: ignore[arg-type]
OURS: list[e.Event] = [e.Phase(t=T, phase="end"), e.Restart(t=T, step="killed", round=1)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        ("watch", WATCHED),
        ("probe", PROBED),
        ("control_host", PROBED),
        ("farend", FAR),
        ("pods", PROBED),
        ("pods_farend", FAR),
    ],
)
def test_events_of_the_tools_types_are_accepted(stream: str, events: list[e.Event]) -> None:
    for event in events:
        assert refused(event, stream, "n1") == ""
        assert refused(msgspec.structs.replace(event, node="n1"), stream, "n1") == ""


SOURCES = {
    "watch": ["watch"],
    "probe": ["probe/accounting.py", "probe/outcomes.py", "probe/prober.py", "probe/streams.py"],
    "farend": ["probe/farend.py"],
}


@pytest.mark.parametrize("tool", SOURCES)
def test_every_event_that_a_tools_code_makes_is_taken(tool: str) -> None:
    """A prober's leaks were refused: the drill reported an error of the tool, and dropped the leaks."""
    root = Path(hitless.__file__).parent
    files = [
        file
        for name in SOURCES[tool]
        for file in ([root / name] if name.endswith(".py") else (root / name).glob("*.py"))
    ]
    types = {one.__name__: one for one in typing.get_args(e.Event)}
    made = {
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    }
    known = {type(event) for event in {"watch": WATCHED, "probe": PROBED, "farend": FAR}[tool]}
    known |= {e.Header, e.Heartbeat, e.Note, e.Summary}
    assert made & set(types), "the search finds the events"
    assert {types[name] for name in made & set(types)} <= known


def test_every_type_of_event_belongs_to_a_tool_or_the_drill() -> None:
    sent = {type(event) for event in WATCHED + PROBED + FAR}
    assert set(typing.get_args(e.Event)) - sent == {e.Phase, e.Restart, e.Unknown}


@pytest.mark.parametrize("stream", ["watch", "probe", "control_pods", "farend", "relay", "pods", "pods_farend"])
def test_only_the_drill_writes_phases_and_restarts(stream: str) -> None:
    for event in OURS:
        assert "does not know of" in refused(event, stream, "n1")


@pytest.mark.parametrize(
    ("stream", "foreign"), [("watch", PROBED[1:4]), ("probe", WATCHED[1:7]), ("farend", WATCHED[1:7] + PROBED[1:4]),
                            ("watch", FAR[:1]), ("relay", WATCHED[:8])],
)  # fmt: skip
def test_events_of_other_tools_types_are_refused(stream: str, foreign: list[e.Event]) -> None:
    for event in foreign:
        assert refused(event, stream, "n1"), event


def test_other_nodes_agents_streams_and_tools_are_not_spoken_for() -> None:
    state = WATCHED[1]
    assert "node 'n2'" in refused(msgspec.structs.replace(state, node="n2"), "watch", "n1")
    assert "agent 'other'" in refused(msgspec.structs.replace(state, agent="other"), "watch", "n1")
    assert "stream 'probe'" in refused(msgspec.structs.replace(state, stream="probe"), "watch", "n1")
    assert "stream 'control'" in refused(msgspec.structs.replace(state, stream="control"), "watch", "n1")
    assert "stream 'probe'" in refused(msgspec.structs.replace(PROBED[1], stream="probe"), "control_host", "n1")
    assert "says that it is 'drill'" in refused(e.Header(t=T, tool="drill", version="1"), "watch", "n1")
    assert "says that it is 'probe'" in refused(e.Summary(t=T, tool="probe"), "watch", "n1")


def test_refused_events_are_reported_three_times_and_counted() -> None:
    claims = EventCheck()
    told = [claims.admit(OURS[0], "watch", "n1") for _ in range(10_000)]
    assert not any(taken for taken, _ in told)
    words = [why for _, why in told if why]
    assert len(words) == 3 and "phase" in words[0] and "only counted" in words[2]
    assert claims.last() == "10000 lines and events were not taken in all"
    assert claims.admit(WATCHED[1], "watch", "n1") == (True, "")
