"""The small parts of the daemon: fights, readiness, metrics, logs, notification."""

from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.agent.fights import Fights
from hitless.agent.health import Health
from hitless.agent.metrics import agent_metrics
from hitless.agent.pages import page
from hitless.agent.retries import Retries
from hitless.daemon.logs import Log
from hitless.daemon.notify import Notifier


def test_a_third_damage_within_a_minute_is_a_fight_and_is_reported_once() -> None:
    fights = Fights()
    assert [fights.damage("flanneld", now).new for now in (0.0, 5.0, 10.0, 15.0)] == [False, False, True, False]
    assert fights.current(15.0) == ["flanneld"]
    assert fights.current(100.0) == []


def test_rare_damage_is_not_a_fight() -> None:
    fights = Fights()
    assert not any(fights.damage("iptables", now).new for now in (0.0, 61.0, 122.0, 183.0))


def test_two_writers_do_not_add_up() -> None:
    fights = Fights()
    for now in (0.0, 1.0):
        assert not fights.damage("a", now).new
        assert not fights.damage("b", now).new


def test_a_loop_is_answered_more_and_more_slowly_and_never_slower_than_ten_seconds() -> None:
    fights = Fights()
    now, delays = 0.0, []
    for _ in range(60):
        delays.append(fights.damage("kube-proxy", now).delay)
        now += 0.01
    assert delays[:20] == [0.0] * 20
    assert delays[20] > 0 and max(delays) == 10.0
    assert delays == sorted(delays)


def test_a_quiet_minute_ends_a_fight() -> None:
    fights = Fights()
    for number in range(40):
        fights.damage("x", number * 0.01)
    assert fights.damage("x", 120.0).delay == 0.0


def test_ready_is_reported_only_while_it_is_true() -> None:
    health = Health(stale_after=25.0)
    assert health.reasons(0.0) == ("waiting for the first comparison with the kernel",)
    health.problems = ("the program nft is not installed",)
    assert health.reasons(0.0)[1:] == ("the program nft is not installed",), "why it waits"
    health.problems = ()
    health.last_pass = 100.0
    assert health.reasons(101.0) == ()
    assert "126" not in str(health.reasons(126.0)) and "26 s ago" in str(health.reasons(126.0))
    health.not_carried = {"ipv4": "chain FORWARD drops"}
    assert "ipv4" in health.reasons(101.0)[0] and "drops" in health.reasons(101.0)[0]
    health.not_carried, health.problems = {}, ("the xtables lock cannot be had",)
    assert "lock" in health.reasons(101.0)[0]


def test_the_addresses_answer() -> None:
    health, metrics = Health(stale_after=25.0), agent_metrics()
    assert page("/readyz", health, metrics, 0.0).status == 503
    assert page("/healthz", health, metrics, 0.0).status == 200
    health.last_pass = 0.0
    assert page("/readyz", health, metrics, 1.0).status == 200
    assert json.loads(page("/readyz", health, metrics, 1.0).text) == {
        "ready": True,
        "message": "flanneld is ready",
        "reasons": [],
        "fighting": [],
        "cannot_tell": [],
    }
    assert page("/healthz", health, metrics, 1000.0).status == 503
    assert page("/", health, metrics, 1.0).status == 404
    shown = page("/metrics", health, metrics, 1.0)
    assert shown.status == 200 and "0.0.4" in shown.kind and "hitless_agent_ready 1" in shown.text


def test_a_loop_that_hangs_is_not_alive_although_the_server_answers() -> None:
    health = Health(stale_after=25.0, last_pass=100.0, turned=100.0)
    assert health.alive(120.0)
    assert not health.alive(131.0)
    assert not Health(stale_after=25.0, turned=0.0).alive(31.0)


def test_metrics_are_prometheus_text() -> None:
    metrics = agent_metrics()
    metrics.add("hitless_agent_gaps_total", family="ipv4", writer='ip"tables\n\\')
    metrics.add("hitless_agent_gaps_total", 2, family="ipv4", writer='ip"tables\n\\')
    text = metrics.render()
    assert 'hitless_agent_gaps_total{family="ipv4",writer="ip\\"tables\\\\n\\\\"} 3' in text
    assert metrics.total("hitless_agent_gaps_total") == 3
    for line in text.splitlines():
        assert line.startswith(("# HELP ", "# TYPE ", "hitless_"))
    with pytest.raises(KeyError):
        metrics.add("hitless_agent_misspelt")


@given(st.lists(st.text(max_size=8), max_size=300))
def test_names_from_outside_do_not_grow_the_metrics_without_bound(writers: list[str]) -> None:
    metrics = agent_metrics()
    for writer in writers:
        metrics.add("hitless_agent_repairs_total", writer=writer)
    assert metrics.total("hitless_agent_repairs_total") == len(writers)
    assert metrics.render().count("hitless_agent_repairs_total{") <= 65


def test_a_log_line_is_one_object_and_a_repeated_failure_is_counted() -> None:
    stream, now = io.StringIO(), [0.0]
    log = Log(stream, node="n1", monotonic=lambda: now[0])
    for _ in range(5):
        log.error("not applied", reason="the lock")
    log.debug("as desired")
    log.info("ready", milliseconds=1.5, empty="", nothing=None)
    log.error("not applied", reason="another")
    now[0] = 100.0
    log.error("not applied", reason="another")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["not applied", "ready", "not applied", "not applied"]
    assert lines[2]["repeated_before"] == 4
    assert all(line["node"] == "n1" and line["time"] and line["level"] for line in lines)
    assert "empty" not in lines[1] and "nothing" not in lines[1]


def test_a_log_without_a_reader_stops_nothing() -> None:
    stream = io.StringIO()
    log = Log(stream)
    stream.close()
    log.info("ready")


def test_the_service_manager_is_notified(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000"})
        notifier.say("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"
        assert notifier.watchdog == 2.0
    notifier.say("STOPPING=1")  # the manager is gone: no error of ours
    Notifier({}).say("READY=1")


def test_every_metric_is_in_the_documentation_and_every_documented_one_exists() -> None:
    text = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    documented = set(re.findall(r"`(hitless_\w+)", text))
    names = {line.split()[2] for line in agent_metrics().render().splitlines() if line.startswith("# TYPE")}
    assert documented == names


def test_what_repeats_is_bounded_and_counted_whatever_its_kind_and_numbers() -> None:
    """Ten minutes of ten failures a second, two of them in turn, and of gaps whose writers have ever new numbers."""
    stream, now = io.StringIO(), [0.0]
    log = Log(stream, monotonic=lambda: now[0])
    for turn in range(6000):
        now[0] = turn / 10
        log.error("not applied", reason=("the lock", "the kernel")[turn % 2])
        log.notice("gap", family="ipv4", writer=f"iptables (pid {turn})", milliseconds=turn * 1.5)
    log.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) < 10 * (60 + 10)
    for event in ("not applied", "gap"):
        printed = [line for line in lines if line["event"] == event]
        counted = sum(line.get("repeated_before", 0) for line in printed)
        counted += sum(line["times"] for line in lines if line["event"] == "repeated" and line["of"] == event)
        assert len(printed) + counted == 6000, event


def test_lines_that_are_all_new_are_bounded_too() -> None:
    stream, now = io.StringIO(), [0.0]
    log = Log(stream, monotonic=lambda: now[0])
    words = ["".join(chr(97 + (turn // 26**place) % 26) for place in range(4)) for turn in range(20_000)]
    for turn, word in enumerate(words):
        now[0] = turn / 1000
        log.notice("kept", reason=f"a rule of {word}")
    now[0] = 100.0
    log.info("stop")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len([line for line in lines if line["event"] == "kept"]) == 1000
    assert [(line["event"], line.get("times")) for line in lines[1000:]] == [("repeated", 19_000), ("stop", None)]


def test_a_failure_that_lasts_is_tried_more_and_more_seldom() -> None:
    retries, now, tries = Retries(), 0.0, 0
    while now < 60.0:
        retries.failed(now)
        tries += 1
        now = max(now + 0.1, retries.not_before)  # somebody's events wake the loop ten times a second
    assert 3 < tries <= 12
    assert retries.not_before - now <= 10.0
    retries.reset()
    assert retries.not_before == 0.0
    retries.failed(100.0)
    assert retries.not_before <= 100.0
