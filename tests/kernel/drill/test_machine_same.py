"""No command changes the machine it runs on: its rules, links, routes, sysctls, mounts and files are as before.

Each command runs in a namespace that stands for the machine, to its end, to a Ctrl-C and to a SIGKILL in the middle.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.drill.drills import HANG
from tests.kernel.drill.standing_machine import Machine, changes, standing_machine
from tests.kernel.lab.worlds import missing, need, until
from tests.unit.evidence.drill_logs import outage_drill

from hitless import lab
from hitless.cli import COMMANDS, DAEMONS
from hitless.evidence import LogWriter

pytestmark = pytest.mark.kernel

BRIEF = ("--rounds", "1", "--baseline", "1", "--settle", "0", "--quiet")
QUICK = (*BRIEF, "--rate", "200")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need(lab.LabPlan(family="dual"))
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        missing("only root can make a namespace that stands for the machine (and unshare)")
    with standing_machine(tmp_path) as found:
        yield found


@dataclass(frozen=True)
class Command:
    """A command line; ``codes`` of a good end; ``middle``: whether it is at work; the ``signals`` that it gets then."""

    words: tuple[str, ...]
    codes: tuple[int, ...] = (0,)
    middle: Callable[[Machine], object] = lambda _machine: True
    signals: tuple[signal.Signals, ...] = ()

    def filled(self, machine: Machine) -> list[str]:
        return [word.replace("HOME", str(machine.home)) for word in self.words]


def _restarting(machine: Machine) -> bool:
    logs = [machine.home / "out-folder/events.jsonl"]
    return any(log.exists() and b'"round":1' in log.read_bytes() for log in logs)


def _speaking(machine: Machine) -> bool:
    return bool(machine.out)


def _probing(machine: Machine) -> bool:
    return '"type":"attempts"' in machine.out


INT, TERM, KILL = signal.SIGINT, signal.SIGTERM, signal.SIGKILL

OUT = ("--out", "HOME/out-folder")
PLAN = ('--net-config={"Network":"10.42.0.0/16","Backend":{"Type":"vxlan"}}', "--node-subnet=10.42.3.0/24", "--ip-masq")
GUARD = ("guard", "--observe", "--run-dir", "HOME/guard", "--journal", "HOME/guard.jsonl")
ONCE = ("--restart-command", "true", "--yes", "--recovery", "3")

COMMAND = {
    "drill": Command(("drill", "--agents", "flannel-0.28", *QUICK, *OUT), (1,), _restarting, (INT, KILL)),
    "drill hitless legacy": Command(("drill", "--agents", "hitless", "--backend", "legacy", *QUICK, *OUT), (0, 2)),
    "node-drill": Command(
        ("node-drill", *ONCE, "--to", "icmp://127.0.0.1", *BRIEF, *OUT), (0, 1, 2), _restarting, (INT,)
    ),
    "watch": Command(("watch", "--json"), (0,), _speaking, (INT, KILL)),
    "watch once": Command(("watch", "--once"), (0,)),
    "watch legacy": Command(("watch", "--once", "--backend", "legacy"), (0, 1, 2)),
    "probe": Command(
        ("probe", "--json", "--to", "icmp://127.0.0.1", "--rate", "200", "--duration", "2"), (0,), _probing, (TERM,)
    ),
    "farend": Command(
        ("farend", "--json", "--bind", "192.0.2.77", "--leaks", "10.42.0.0/16"), (0,), _speaking, (KILL,)
    ),
    "lab up": Command(
        ("lab", "up", "--services", "2000", "--agent", "hitless"),
        (0,),
        lambda machine: list((machine.home / "labs").glob("lab-*.json")),
        (INT, TERM, KILL),
    ),
    "lab check": Command(("lab", "up", "--check")),
    "report": Command(("report", "HOME/log.jsonl"), (1,)),
    "report junit": Command(("report", "HOME/log.jsonl", "--format", "junit"), (1,)),
    "selftest": Command(("selftest", "--only", "harmless changes", *OUT), (0, 2), _restarting, (KILL,)),
    "advise": Command(("advise", "--version", "v1.32.5+rke2r1"), (0, 1)),
    "doctor": Command(("doctor", "--json"), (0, 1, 2)),
    "window": Command(("window", "status", "--file", "HOME/windows.toml"), (0, 1)),
    "doctor bundle": Command(("doctor", "--bundle", "HOME/report.tgz", "--mask"), (0, 1, 2)),
    "agent": Command(("agent", "plan", *PLAN)),
    "agent json": Command(("agent", "plan", "--json", *PLAN)),
    "guard": Command(GUARD, (0,), lambda machine: (machine.home / "guard/state.json").exists(), (TERM, KILL)),
    "guard status": Command(("guard", "status", "--run-dir", "HOME/guard"), (0, 1, 2, 3)),
    "relay": Command(("relay", "clock"), (0,)),
    "drills": Command(("drills", "prune", "--keep", "0", "--dry-run")),
    "retry": Command(("retry", "--", "true")),
    "rollout": Command(("rollout", "status"), (3,)),  # there is no cluster
    "version": Command(("version",)),
    "help": Command(("help", "lab", "up")),
}
FOR_EVER = ("watch", "farend", "guard")
"""End by a signal only: that is their good end."""


def test_every_command_is_compared() -> None:
    assert {name.split()[0] for name in COMMAND} == {*COMMANDS, *DAEMONS}


@pytest.mark.parametrize("name", [name for name in COMMAND if name not in FOR_EVER and name != "lab up"])
def test_the_machine_is_the_same_after(name: str, machine: Machine) -> None:
    command = COMMAND[name]
    with LogWriter(machine.home / "log.jsonl") as log:
        log.write(*outage_drill().log())
    (machine.home / "windows.toml").write_text('[[window]]\nname = "cni"\ncron = "0 2 * * 0"\nduration = "2h"\n')
    before = machine.state()
    done = machine.hitless(*command.filled(machine))
    assert done.returncode in command.codes, done.stdout + done.stderr
    machine.quiet()
    assert changes(before, machine.state()) == {}


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, command in COMMAND.items() for number in command.signals]
)
def test_the_machine_is_the_same_after_a_signal_in_the_middle_of(
    name: str, number: signal.Signals, machine: Machine
) -> None:
    command = COMMAND[name]
    before = machine.state()
    with machine.start(*command.filled(machine)) as process:
        until(lambda: command.middle(machine) or process.poll() is not None, f"{name} at work")
        process.send_signal(number)
        _, err = process.communicate(timeout=HANG)
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL, err
    else:
        asked = command.codes if name in FOR_EVER or name == "probe" else (130,)
        assert process.returncode in asked, err
    machine.hitless("lab", "down", "--all")
    machine.quiet()
    assert changes(before, machine.state()) == {}


def test_the_machine_is_the_same_while_a_lab_is_up_and_after_it(machine: Machine) -> None:
    before = machine.state()
    assert machine.hitless("lab", "up", "--family", "dual", "--nodes", "2", "--agent", "flannel-0.28").returncode == 0
    assert changes(before, machine.state()) == {}
    assert machine.hitless("lab", "exec", "node0", "--", "iptables-nft", "-t", "nat", "-F").returncode == 0
    assert machine.hitless("lab", "exec", "node0", "--", "iptables-legacy", "-t", "nat", "-S").returncode == 0
    assert machine.hitless("lab", "status").returncode == 0
    assert changes(before, machine.state()) == {}
    assert machine.hitless("lab", "down").returncode == 0
    machine.quiet()
    assert changes(before, machine.state()) == {}


def test_the_comparison_would_see_a_change(machine: Machine) -> None:
    before = machine.state()
    for words in (
        ("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG"),
        ("iptables-legacy", "-t", "nat", "-S"),  # loads the table, which is a change too
        ("ip", "route", "add", "10.42.8.0/24", "via", "192.0.2.8"),
        ("mount", "-t", "tmpfs", "none", "/mnt"),
        ("touch", "/run/netns/lab"),
        ("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
        ("touch", "stray.jsonl"),
    ):
        subprocess.run(machine.line(*words), check=True, capture_output=True, timeout=HANG)
    assert set(changes(before, machine.state())) == {
        "rules",
        "legacy tables",
        "routes",
        "mounts",
        "run",
        "sysctls",
        "working directory",
    }
