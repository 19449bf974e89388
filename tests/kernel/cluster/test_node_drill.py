"""``hitless node-drill`` on a node of the lab: real rules, real packets, somebody's own restart command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.excuses import check
from tests.kernel.drill.drills import blamed, felt, lateness
from tests.kernel.lab.worlds import need, until

from hitless import lab
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

RULES = """*nat
:FLANNEL-POSTRTG - [0:0]
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.0.0/16 -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
COMMIT
"""
JUMP = "*nat\n-A POSTROUTING -j FLANNEL-POSTRTG\nCOMMIT\n"
RESTORE = ["iptables-nft-restore", "--noflush"]
HITLESS = (sys.executable, "-P", "-m", "hitless")


@pytest.fixture
def built() -> Iterator[lab.Lab]:
    plan = lab.LabPlan()
    need(plan)
    with lab.up(plan) as made:
        node = made.nodes[0].namespace
        processes.run(RESTORE, namespace=node, stdin=RULES)
        processes.run(RESTORE, namespace=node, stdin=JUMP)
        addresses = [str(one) for one in made.far_end.addresses[Family.IPV4]]
        words = [*HITLESS, "farend", "--json", *(word for one in addresses for word in ("--bind", one))]
        far = processes.start(words, namespace=made.far_end.namespace, stdout=processes.PIPE)
        try:
            assert far.stdout is not None
            far.stdout.readline()
            yield made
        finally:
            far.kill()
            far.wait()
            if far.stdout is not None:
                far.stdout.close()


def drill(built: lab.Lab, folder: Path, command: str, *more: str) -> tuple[int, dict[str, Any]]:
    far = str(next(iter(built.far_end.addresses[Family.IPV4])))
    pod: Namespace = built.nodes[0].pods[0].namespace
    words = ["node-drill", "--yes", "--json", "--quiet", "--to", f"farend://{far}", "--pod", str(pod.net)]
    words += ["--network", "10.42.0.0/16", "--restart-command", command, "--rounds", "2", "--rate", "300"]
    words += ["--baseline", "1.5", "--settle", "0.5", "--recovery", "3", "--out", str(folder / "out"), *more]
    done = processes.run([*HITLESS, *words], namespace=built.nodes[0].namespace, check=False, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_unit_is_restarted_by_systemctl_and_its_gap_is_caught(built: lab.Lab, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(RULES)
    programs = tmp_path / "bin"
    programs.mkdir()
    restore = f"iptables-nft -t nat -F FLANNEL-POSTRTG; sleep 0.3; {' '.join(RESTORE)} < {tmp_path / 'rules'}"
    (programs / "systemctl").write_text(f'#!/bin/sh\n[ "$1" = restart ] || exit 0\n{restore}\n')
    (programs / "systemctl").chmod(0o755)
    far = str(next(iter(built.far_end.addresses[Family.IPV4])))
    words = ["node-drill", "--yes", "--json", "--quiet", "--to", f"farend://{far}", "--restart-unit", "k3s"]
    words += ["--pod", str(built.nodes[0].pods[0].namespace.net), "--network", "10.42.0.0/16", "--rounds", "1"]
    words += ["--rate", "300", "--settle", "0.5", "--recovery", "3", "--out", str(tmp_path / "out")]
    path = {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = processes.run(
        [*HITLESS, *words], namespace=built.nodes[0].namespace, environment=path, check=False, timeout=120
    )
    assert done.returncode == 1, done.stderr
    (agent,) = json.loads(done.stdout)["agents"]
    assert (agent["agent"], agent["gaps"], agent["rounds"]) == ("k3s", 1, 1)


def test_a_probe_from_the_host_is_said_not_to_pass_the_pods_way_and_the_rules_still_judge(
    built: lab.Lab, tmp_path: Path
) -> None:
    (tmp_path / "rules").write_text(RULES)
    body = f"iptables-nft -t nat -F FLANNEL-POSTRTG\nsleep 0.3\n{' '.join(RESTORE)} < {tmp_path / 'rules'}"
    far = str(next(iter(built.far_end.addresses[Family.IPV4])))
    words = ["node-drill", "--yes", "--json", "--quiet", "--to", f"farend://{far}", "--network", "10.42.0.0/16"]
    words += ["--restart-command", script(tmp_path, body), "--rounds", "1", "--rate", "100", "--settle", "0.5"]
    words += ["--recovery", "3", "--out", str(tmp_path / "out")]
    done = processes.run([*HITLESS, *words], namespace=built.nodes[0].namespace, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["agents"][0]["gaps"], blamed(told["agents"][0])) == (1, 0)
    assert "does not pass the pods' egress path" in (tmp_path / "out/events.jsonl").read_text()


def script(folder: Path, body: str) -> str:
    path = folder / "restart"
    path.write_text(f"#!/bin/sh\nset -e\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_command_that_empties_the_chain_for_a_while_is_caught(built: lab.Lab, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(RULES)
    body = f"iptables-nft -t nat -F FLANNEL-POSTRTG\nsleep 0.3\n{' '.join(RESTORE)} < {tmp_path / 'rules'}"
    with lateness() as late:
        code, told = drill(built, tmp_path, script(tmp_path, body))
        late_ms = late(tmp_path / "out/events.jsonl") / 1e6
    (agent,) = told["agents"]
    assert code == 1, agent["reasons"]
    assert agent["agent"] == "restart"
    assert agent["gaps"] == 2
    longest = agent["longest_gap_ms"]
    assert check(longest >= 300, longest >= 300 - late_ms, "a gap's length: the watch was late"), (agent, late_ms)
    assert felt(agent), agent


def test_a_command_that_replaces_the_chain_in_one_go_loses_nothing(built: lab.Lab, tmp_path: Path) -> None:
    (tmp_path / "rules").write_text(RULES)
    code, told = drill(built, tmp_path, script(tmp_path, f"{' '.join(RESTORE)} < {tmp_path / 'rules'}"))
    (agent,) = told["agents"]
    assert code in (0, 2), agent["reasons"]  # 2 on a machine too busy to measure
    assert (agent["gaps"], blamed(agent)) == (0, 0)


def test_a_restart_that_fails_is_told_and_no_pass(built: lab.Lab, tmp_path: Path) -> None:
    code, told = drill(built, tmp_path, script(tmp_path, "echo no such agent >&2; exit 7"))
    assert code == 2
    assert "no such agent" in json.dumps(told)


def test_a_command_that_restarts_nothing_is_inconclusive_with_its_words(built: lab.Lab, tmp_path: Path) -> None:
    code, told = drill(built, tmp_path, script(tmp_path, "echo unit is masked >&2"), "--patience", "2")
    (agent,) = told["agents"]
    assert (code, agent["verdict"], agent["restarts"]) == (2, "inconclusive", 0), agent
    assert agent["reasons"][0].startswith("no sign that an agent restarted in round 1: no process of it is known")
    assert "said on standard error: unit is masked" in agent["reasons"][0]
    assert [one["round"] for one in agent["per_round"]] == [1], "one such round is enough"


DAEMON = "setsid bash -c 'exec -a flanneld sleep 600' >/dev/null 2>&1 </dev/null & echo $! >"


@pytest.fixture
def flanneld(built: lab.Lab, tmp_path: Path) -> Iterator[Path]:
    """A process by the name of the agent in the node's network; the file holds its number."""
    file = tmp_path / "pid"
    processes.run(["sh", "-c", f"{DAEMON} {file}"], namespace=built.nodes[0].namespace)
    try:
        yield file
    finally:
        processes.run(["kill", file.read_text().strip()], check=False)


def test_a_standby_that_a_guard_left_is_named_with_the_gaps_and_flows_that_it_carried(
    built: lab.Lab, tmp_path: Path
) -> None:
    node = built.nodes[0]
    guard = processes.start([*HITLESS, "guard", "--journal", str(tmp_path / "journal")], namespace=node.namespace)
    state = node.root / "run/hitless-guard/state.json"
    until(lambda: state.exists() and "standing by" in state.read_text(), "the standby")
    guard.terminate()
    guard.wait()
    (tmp_path / "rules").write_text(RULES)
    body = f"iptables-nft -t nat -F FLANNEL-POSTRTG\nsleep 0.3\n{' '.join(RESTORE)} < {tmp_path / 'rules'}"
    code, told = drill(built, tmp_path, script(tmp_path, body))
    (agent,) = told["agents"]
    assert code in (0, 2), agent["reasons"]  # 2 on a machine too busy to measure
    assert (agent["standby"], agent["gaps"], agent["bridged_gaps"]) == ("left", 0, 2), agent
    assert agent["bridged_flows"] > 10
    assert "a standby that a guard which is gone has left is on the node and bridged 2 gaps" in str(agent["reasons"])


def test_another_process_of_the_agent_is_the_sign_of_its_restart(
    built: lab.Lab, flanneld: Path, tmp_path: Path
) -> None:
    first = flanneld.read_text().strip()
    code, told = drill(built, tmp_path, script(tmp_path, f"kill $(cat {flanneld})\n{DAEMON} {flanneld}"))
    (agent,) = told["agents"]
    assert code in (0, 2), agent["reasons"]  # 2 on a machine too busy to measure
    seen = [one["evidence"] for one in agent["per_round"]]
    assert [one.partition(":")[0] for one in seen] == ["flanneld", "flanneld"], seen
    assert f"process {first} has ended" in seen[0]
    assert agent["restarts"] == 2


def test_nothing_is_restarted_without_a_yes(tmp_path: Path) -> None:
    mark = tmp_path / "restarted"
    words = ["node-drill", "--to", "http://127.0.0.1:1/", "--restart-command", f"touch {mark}"]
    done = subprocess.run([*HITLESS, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "--yes" in done.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--restart-unit", "a", "--restart-container", "b"], "2 ways"),
        ([], "0 ways"),
        (["--restart-command", "'"], "--restart-command"),
        (["--restart-command", "true", "--grace", "3"], "--grace: cannot be used without --restart-container"),
        (["--restart-unit", "k3s", "--runtime", "ctr"], "--runtime: cannot be used without --restart-container"),
        (["--restart-container", "a", "--agent-process", "b"], "--agent-process: cannot be used without"),
        (["--restart-command", "true", "--agent-process", "no-such-agent"], "no process no-such-agent runs"),
        (["--restart-command", "no-such-program-here"], "no-such-program-here"),
    ],
)
def test_what_cannot_be_restarted_is_refused_before_anything_happens(words: list[str], said: str) -> None:
    command = [*HITLESS, "node-drill", "--yes", "--to", "http://127.0.0.1:1/", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert said in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--to", "far.example"], "--to: 'far.example' is not a URL"), (["--profile", "none"], "--profile none")],
)
def test_what_a_tool_refuses_is_refused_before_anything_is_restarted(
    tmp_path: Path, words: list[str], said: str
) -> None:
    mark = tmp_path / "restarted"
    command = [
        *HITLESS,
        "node-drill",
        "--yes",
        "--quiet",
        "--out",
        str(tmp_path / "out"),
        "--to",
        "http://127.0.0.1:1/",
    ]
    command += ["--restart-command", f"touch {mark}", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(f"hitless: {said}")
    assert not mark.exists()
