"""Evidence of a restart: real processes on this machine, and rule changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hitless.drill import restart_signs
from hitless.drill.nodes import RestartMethod
from hitless.drill.restart_signs import BeforeRestart
from hitless.errors import InputError
from hitless.kernel.proc import Running, running
from hitless.model import events as e

Start = Callable[..., subprocess.Popen[bytes]]
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program under any name; what still runs at the end is killed."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(name: str, *more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([name, "-c", SLEEP, *more], executable=sys.executable)
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def test_another_process_of_the_name_is_evidence_and_the_same_one_is_evidence_against(start: Start) -> None:
    name = f"agent-{uuid.uuid4()}"
    first = start(name)
    way = RestartMethod(command="true", process=name)
    way.check()
    before = way.before()
    change = e.Change(t=9, family="ipv4", backend="nft", table="nat", writer=e.Writer(1, "iptables"))
    # rules that are written are no sign while the agent's process goes on: it may have written them
    assert way.sign(before, [change], 5) == ("", f"{name} (process {first.pid}) did not end")
    assert way.gone(before) == ""
    end(first)
    assert way.sign(before, [change], 5) == ("", "the agent's process has ended, and no other has come")
    assert way.gone(before) == f"{name}: process {first.pid} has ended"
    second = start(name, "other arguments")
    assert way.sign(before, (), 5) == (f"{name}: process {second.pid} runs, process {first.pid} has ended", "")


def test_a_process_that_was_only_signalled_did_not_restart(start: Start) -> None:
    name = f"agent-{uuid.uuid4()}"
    first = start(name)
    before = RestartMethod(command="true", process=name).before()
    first.send_signal(signal.SIGSTOP)
    first.send_signal(signal.SIGCONT)
    sign, against = restart_signs.of_processes(before, name)
    assert (sign, against) == ("", f"{name} (process {first.pid}) did not end")


def test_a_name_without_a_process_is_refused_before_anything_is_restarted() -> None:
    with pytest.raises(InputError, match="--agent-process: no process no-such runs in this network namespace"):
        RestartMethod(command="true", process="no-such").check()


def process(pid: int, *argv: str, name: str = "", administrator: bool = True, age: float = 60.0) -> Running:
    return Running(pid, pid, name or argv[0].rpartition("/")[2], argv, age, administrator)


@pytest.mark.parametrize(
    "known",
    [
        process(1, "/opt/bin/flanneld", "--ip-masq"),
        process(1, "calico-node", "-felix"),
        process(1, "/usr/local/bin/k3s server"),
        process(1, "/usr/local/bin/k3s", name="k3s-server"),
        process(1, "/usr/bin/python3", "-m", "hitless", "agent", "--ip-masq"),
        process(1, "/usr/bin/python3", "/usr/bin/hitless", "agent"),
    ],
)
def test_network_agents_are_known_by_their_names(monkeypatch: pytest.MonkeyPatch, known: Running) -> None:
    monkeypatch.setattr(restart_signs, "running", lambda: (known,))
    assert restart_signs.processes_of() == ((known,), ())


@pytest.mark.parametrize(
    ("one", "counts"),
    [
        (process(1, "/usr/bin/python3", "/opt/agent.py", "--flag"), True),
        (process(1, "/usr/bin/python3", "-m", "hitless", "node-drill"), True),  # it is not replaced while it drills
        (process(1, "sleep", "60"), False),  # a script starts one after another while it waits
        (process(1, "/usr/bin/python3", "/opt/any.py", administrator=False), False),
        (process(1, "/usr/bin/python3", "/opt/any.py", age=0.1), False),
    ],
)
def test_an_unknown_daemon_counts_if_it_may_change_the_network(
    monkeypatch: pytest.MonkeyPatch, one: Running, counts: bool
) -> None:
    monkeypatch.setattr(restart_signs, "running", lambda: (one,))
    agents, others = restart_signs.processes_of()
    assert (agents, others) == ((), (one,) if counts else ())
    before = BeforeRestart(others=others)
    monkeypatch.setattr(restart_signs, "running", lambda: (process(2, *one.argv, age=0.0),))
    sign, against = restart_signs.of_processes(before)
    assert (bool(sign), against) == (counts, "")
    monkeypatch.setattr(restart_signs, "running", lambda: (process(2, *one.argv, "another", age=0.0),))
    assert restart_signs.of_processes(before) == ("", "")


def change(t: int, writer: e.Writer | None, *, relevant: bool = True) -> e.Change:
    return e.Change(t=t, family="ipv4", backend="nft", table="nat", writer=writer, relevant=relevant)


def test_rules_count_where_nothing_else_can_be_had_and_not_those_of_others() -> None:
    proxy = change(7, e.Writer(1, "iptables-resto", "iptables-restore -w 5", "kube-proxy"))
    guard = change(7, e.Writer(2, "python3", "/usr/bin/python3 -m hitless guard --journal x"))
    early, aside = change(3, e.Writer(3, "iptables")), change(7, e.Writer(3, "iptables"), relevant=False)
    assert restart_signs.of_rules([proxy, guard, early, aside], 5) == ""
    told = restart_signs.of_rules([proxy, change(8, e.Writer(4, "iptables"))], 5)
    assert told == "rules were written by iptables (process 4); no process of the agent is known"
    assert restart_signs.of_rules([change(8, None)], 5).startswith("rules were written by an unknown writer")


def test_what_runs_here_is_read_with_its_start(start: Start) -> None:
    name = f"agent-{uuid.uuid4()}"
    begun = start(name)
    (found,) = [one for one in running() if one.pid == begun.pid]
    assert found.argv[0] == name
    assert 0 <= found.age < 600
    assert (found.pid, found.began) == found.key
    assert any(one.pid == os.getpid() for one in running())
    assert running(Path("/nonexistent")) == ()
