"""The drill on real rules and real packets, run as users run it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest
from tests.excuses import check
from tests.kernel.drill.drills import HANG, blamed, felt, hitless, lateness, left, start, unharmed
from tests.kernel.lab.worlds import machine, until

from hitless.evidence import decide, read
from hitless.model import events as e

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SHORT = ("--rounds", "2", "--json", "--quiet")


def test_flannel_fails_by_name_and_the_agent_hitless_does_not_and_the_machine_is_as_before(tmp_path: Path) -> None:
    before = machine()
    done = hitless("drill", "--agents", "flannel-0.28,hitless", *SHORT, "--out", str(tmp_path / "out"))
    assert machine() == before
    bad, good = done.agent("flannel-0.28"), done.agent("hitless")

    assert bad["verdict"] == "fail", bad
    assert bad["gaps"] == 2
    assert [writer["comm"] for writer in bad["writers"]] == ["iptables-nft"]
    assert "-F FLANNEL-POSTRTG" in bad["writers"][0]["argv"]
    assert felt(bad), bad
    assert bad["lost"] == sum(bad["causes"].values())
    assert bad["leaked"] >= blamed(bad)
    assert (bad["poisoned"] > 0) == (blamed(bad) > 0), bad
    assert bad["slowest_recovery_ms"] > bad["longest_gap_ms"] or not blamed(bad), bad

    assert unharmed(good), good
    assert good["attempted"] > 1000
    assert done.code == {"pass": 0, "inconclusive": 2}[good["verdict"]]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["events.jsonl", "junit.xml", "report.html", "report.json"]


def test_every_loss_of_flannel_began_in_a_gap_that_was_seen(tmp_path: Path) -> None:
    with lateness() as late:
        hitless("drill", "--agents", "flannel-0.28", *SHORT, "--out", str(tmp_path))
        slack = 5_000_000 + late(tmp_path / "events.jsonl")
    events = read(tmp_path / "events.jsonl").events
    gaps = [(one.begin, one.end) for one in events if isinstance(one, e.Gap)]
    losses = [one for one in events if isinstance(one, e.Loss) and one.cause != "starved"]
    assert losses
    assert all(any(begin - slack <= loss.t <= end + slack for begin, end in gaps) for loss in losses)
    # and it counted what the streams counted
    agent = decide(events).agents[0]
    assert agent.attempted == sum(one.sent for one in events if isinstance(one, e.Attempts))
    summaries = {one.tool: one.totals for one in events if isinstance(one, e.Summary)}
    assert agent.attempted == sum(summaries["probe"].get(f"{kind}_sent", 0) for kind in agent.kinds)


@pytest.mark.parametrize("backend", ["legacy", "nftables"])
def test_the_other_backends_gaps_are_seen_too(backend: str, tmp_path: Path) -> None:
    words = ("--agents", "flannel-0.26", "--rounds", "1", "--json", "--quiet", "--backend", backend)
    agent = hitless("drill", *words, "--out", str(tmp_path)).agent("flannel-0.26")
    assert agent["verdict"] == "fail", agent
    assert agent["gaps"] >= 1
    assert felt(agent), agent


def test_both_families_are_drilled_side_by_side(tmp_path: Path) -> None:
    words = ("--agents", "flannel-0.28", "--rounds", "1", "--json", "--quiet", "--family", "dual")
    agent = hitless("drill", *words, "--out", str(tmp_path)).agent("flannel-0.28")
    assert agent["verdict"] == "fail", agent
    assert agent["gaps"] == 2
    assert set(agent["families"]) == {"ipv4", "ipv6"}
    assert all(one["attempted"] > 500 for one in agent["families"].values())


@pytest.mark.parametrize(("method", "restarts"), [("crash-loop", 3), ("stop", 1), ("sigkill", 1)])
def test_the_agent_hitless_survives_every_way_of_restarting(method: str, restarts: int, tmp_path: Path) -> None:
    words = ("--agents", "hitless", "--rounds", "1", "--json", "--quiet", "--restart", method)
    away = ("--stop-for", "1") if method == "stop" else ()
    agent = hitless("drill", *words, *away, "--out", str(tmp_path)).agent("hitless")
    assert agent["restarts"] == restarts
    assert unharmed(agent), agent


AGENT = """#!/bin/sh
# an agent of somebody: empties its chain at each start, thinks for a while, fills it again
rm -f /run/mine.ready
iptables-nft -t nat -N MINE 2>/dev/null
iptables-nft -t nat -C POSTROUTING -j MINE 2>/dev/null || iptables-nft -t nat -A POSTROUTING -j MINE
iptables-nft -t nat -F MINE
sleep 0.1
iptables-nft -t nat -A MINE -s "$HITLESS_NETWORK" -j MASQUERADE
touch /run/mine.ready
exec sleep 600
"""


def test_a_users_own_agent_is_drilled_by_its_command_and_its_own_readiness_check(tmp_path: Path) -> None:
    script = tmp_path / "mine.sh"
    script.write_text(AGENT)
    script.chmod(0o755)
    words = ("--agent-command", str(script), "--ready-command", "test -e /run/mine.ready")
    with lateness() as late:
        done = hitless("drill", *words, *SHORT, "--out", str(tmp_path / "out"))
        late_ms = late(tmp_path / "out/events.jsonl") / 1e6
    agent = done.agent("mine.sh")
    assert (agent["verdict"], agent["gaps"]) == ("fail", 2), agent
    longest, late_by = agent["longest_gap_ms"], "a gap's length: the machine was late by more than the tolerance"
    assert check(100 <= longest < 5000, 100 - late_ms <= longest < 5000 + late_ms, late_by), (agent, late_ms)
    assert check(blamed(agent) > 50, agent["prober_lag_ms"] > 50, "few lost in a gap: the prober was late"), agent
    assert done.code == 1


def test_an_agent_that_carries_nothing_is_inconclusive_and_is_not_restarted(tmp_path: Path) -> None:
    # hitless beside it, which loses nothing, does not answer for it
    done = hitless("drill", "--agents", "hitless", "--agent-command", "sleep 600", *SHORT, "--out", str(tmp_path))
    assert done.verdict()["judged"] == ["sleep"]
    assert done.verdict()["headline"].startswith("INCONCLUSIVE for sleep; ")
    agent = done.agent("sleep")
    assert (done.code, agent["verdict"], agent["rounds"]) == (2, "inconclusive", 0), agent
    assert "did not carry" in " ".join(agent["reasons"])


def test_an_agent_that_cannot_run_is_inconclusive_with_its_last_output(tmp_path: Path) -> None:
    command = "sh -c 'echo cannot find the datastore; exit 7'"
    # it is never ready: without a probe, living for a tenth of a second would be enough
    words = ("--agent-command", command, "--ready-command", "false")
    done = hitless("drill", *words, *SHORT, "--out", str(tmp_path))
    assert done.code == 2, done.err
    assert "cannot find the datastore" in done.agent("sh")["reasons"][0]
    failed = [one for one in read(tmp_path / "events.jsonl").events if isinstance(one, e.Restart)]
    assert any(one.step == "failed" and "exit code 7" in one.detail for one in failed)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_drill_leaves_nothing_but_a_log_that_can_be_read(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    before = machine()
    process, mark = start("drill", "--agents", "flannel-0.28", "--rounds", "50", "--quiet", "--out", str(tmp_path))
    log = tmp_path / "events.jsonl"
    until(lambda: log.exists() and b'"round":1' in log.read_bytes(), "the first round")
    assert len(left(mark)) > 4
    process.send_signal(number)
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == code, err
    assert out == ""
    until(lambda: not left(mark), f"the end of {left(mark)}")
    assert machine() == before
    again = hitless("report", str(tmp_path), "--format", "json")
    assert again.verdict()["whole"] is False
    assert again.agent("flannel-0.28")["attempted"] > 0
    assert again.code in (1, 2)


def test_ctrl_c_prints_what_is_known_and_blames_no_tool(tmp_path: Path) -> None:
    """As a terminal does it: SIGINT to the whole process group, in the middle of a gap's aftermath."""
    words = ("drill", "--agents", "flannel-0.28", "--rounds", "50", "--quiet", "--out", str(tmp_path))
    process, _ = start(*words, new_session=True)
    log = tmp_path / "events.jsonl"
    until(lambda: log.exists() and b'"round":3' in log.read_bytes(), "the third round")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=HANG)
    assert (process.returncode, out) == (130, "")
    assert "flannel-0.28 (stand-in)" in err and "verdict" in err and "interrupted" in err
    assert "ended by itself" not in err
    found = hitless("report", str(tmp_path), "--format", "json").agent("flannel-0.28")
    (head, *_) = read(log).events
    assert isinstance(head, e.Header) and head.machine is not None
    assert head.command.startswith("hitless drill --agents flannel-0.28") and len(head.drill) == 8
    assert (head.machine.host, head.machine.kernel) == (os.uname().nodename, os.uname().release)
    assert head.machine.iptables and head.machine.nft and head.utc.endswith("Z")
    # what the last seconds began is neither lost nor answered: the prober said so itself
    events = read(log).events
    assert any(isinstance(one, e.Summary) and one.tool == "probe" for one in events)
    undecided = sum(one.undecided for one in events if isinstance(one, e.Attempts))
    assert found["undecided"] == undecided and found["verdict"] in ("fail", "inconclusive")


def test_two_drills_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    words = ("--rounds", "1", "--json", "--quiet")
    pair = [
        start("drill", "--agents", agent, *words, "--out", str(tmp_path / agent))
        for agent in ("hitless", "flannel-0.28")
    ]
    results = [process.communicate(timeout=HANG) for process, _ in pair]
    for (process, mark), (_, err) in zip(pair, results, strict=True):
        assert process.returncode in (0, 1, 2), err
        until(lambda mark=mark: not left(mark), "the end of all of it")  # type: ignore[misc]  # binds the loop variable
    good, bad = (
        decide(read(tmp_path / name / "events.jsonl").events).agents[0] for name in ("hitless", "flannel-0.28")
    )
    assert unharmed(msgspec.to_builtins(good)), good
    assert bad.verdict == "fail", bad
    assert bad.gaps == 1


def test_a_prober_that_is_killed_makes_the_drill_inconclusive(tmp_path: Path) -> None:
    process, mark = start("drill", "--agents", "hitless", "--rounds", "3", "--json", "--quiet", "--out", str(tmp_path))
    log = tmp_path / "events.jsonl"
    until(lambda: log.exists() and b'"round":1' in log.read_bytes(), "the first round")
    pid = next(one.pid for one in read(log).events if isinstance(one, e.Header) and one.tool == "probe")
    subprocess.run(["kill", "-KILL", str(pid)], check=True)
    _, err = process.communicate(timeout=HANG)
    assert process.returncode == 2, err
    agent = decide(read(log).events).agents[0]
    assert "probe ended by itself with signal SIGKILL" in agent.reasons
    until(lambda: not left(mark), "the end of all of it")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--agents", "cilium"), "--agents: 'cilium' is not an agent"),
        (("--agents", "hitless,hitless"), "named twice"),
        (("--agents", ","), "--agents"),
        (("--judge", "cilium"), "--judge"),
        (("--rounds", "0"), "--rounds"),
        (("--services", "9000"), "--services: 9000 is out of range"),
        (("--ready-command", "true"), "--agent-command"),
        (("--agent-command", "a 'b"), "agent-command"),
        (("--agent-command", "/nonexistent/flanneld --ip-masq"), "/nonexistent/flanneld is not a program"),
        (("--agent-command", "a", "--ready-http", "no"), "--ready-http"),
        (("--restart", "delete-pod"), "--restart"),
        (("--forward-policy", "drop", "--backend", "nftables"), "--forward-policy"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    begin = time.monotonic()
    done = hitless("drill", *words, "--out", str(tmp_path / "out"))
    assert (done.code, done.out) == (3, ""), done
    assert said in done.err
    assert not (tmp_path / "out").exists()
    assert time.monotonic() - begin < HANG


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("precious\n")
    done = hitless("drill", "--agents", "hitless", "--rounds", "1", "--out", str(tmp_path))
    assert done.code == 3
    assert "never overwritten" in done.err
    assert (tmp_path / "events.jsonl").read_text() == "precious\n"


def test_the_selftest_finds_and_measures_what_was_done(tmp_path: Path) -> None:
    done = hitless("selftest", "--quick", "--json", "--out", str(tmp_path))
    found = done.verdict()
    wrong = [one for one in found["findings"] if not one["right"] and not one["busy"]]
    assert not wrong
    assert len(found["findings"]) >= 12
    assert done.code in (0, 2)
