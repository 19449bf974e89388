from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.lab.worlds import HANG, Witness, machine, missing, need, until, up

from hitless import lab
from hitless.lab.keeper_client import alive, held_processes
from hitless.lab.states import Store

pytestmark = pytest.mark.kernel

HITLESS = [sys.executable, "-m", "hitless"]


@dataclass
class Shell:
    """The command line, with a folder of its own for its notes."""

    folder: Path
    prefix: tuple[str, ...] = ()

    def __call__(self, *words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.prefix, *HITLESS, "lab", *words],
            env={**os.environ, "HITLESS_RUNTIME_DIR": str(self.folder)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def status(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(self("status", "--json").stdout)
        return found


@pytest.fixture
def hitless(tmp_path: Path) -> Iterator[Shell]:
    need(lab.LabPlan(family="dual"))
    shell = Shell(tmp_path / "labs")
    yield shell
    shell("down", "--all")


def test_a_lab_goes_up_runs_commands_and_comes_down_and_the_machine_is_the_same(hitless: Shell) -> None:
    before = machine()
    told = hitless("up", "--nodes", "2").stdout
    assert "the lab is up" in told
    assert "no network agent runs: pods reach the outside only with one" in told
    tried = next(line for line in told.splitlines() if line.startswith("try:")).partition("hitless lab ")[2].split()
    assert hitless(*tried).returncode == 0, "what is offered works, without an agent too"
    assert "10.42.1.2" in hitless("exec", "node1-pod0", "--", "ip", "addr").stdout
    assert hitless("exec", "node0-pod0", "--", "ping", "-c1", "-w30", "fd42:0:0:1::2").returncode == 0
    assert machine() == before
    hitless("down")
    assert hitless.status() == []
    assert machine() == before


def test_exec_passes_streams_exit_code_and_working_directory(hitless: Shell, tmp_path: Path) -> None:
    hitless("up")
    assert hitless("exec", "far-end", "--", "cat", stdin="through and through").stdout == "through and through"
    hitless("exec", "node0", "--", "sh", "-c", "exit 7", code=7)
    assert hitless("exec", "node0", "pwd").stdout.strip() == str(Path.cwd())
    gone = tmp_path / "gone"
    gone.mkdir()
    with contextlib.chdir(gone):  # a folder that the node does not have: nobody has it
        gone.rmdir()
        assert hitless("exec", "node0", "--", "echo", "--", "a").stdout == "-- a\n"
    assert "lab exec: names no command" in hitless("exec", "node0", "--", code=3).stderr


def test_exec_says_which_places_there_are(hitless: Shell) -> None:
    hitless("up")
    problem = hitless("exec", "node9", "--", "true", code=3).stderr
    assert "'node9' is not a place of lab lab (expected node0, node0-pod0, underlay, far-end)" in problem
    assert "there is no lab other" in hitless("exec", "--name", "other", "node0", "true", code=3).stderr
    assert "no-such-program" in hitless("exec", "node0", "no-such-program", code=127).stderr


def test_labs_side_by_side_have_names_and_a_name_is_taken_once(hitless: Shell) -> None:
    hitless("up")
    hitless("up", "--name", "two", "--family", "ipv4")
    assert "lab two is up already" in hitless("up", "--name", "two", code=3).stderr
    assert [each["name"] for each in hitless.status()] == ["lab", "two"]
    hitless("down", "--name", "two")
    assert [(each["name"], each["alive"]) for each in hitless.status()] == [("lab", True)]


def test_down_cleans_up_after_a_crash_and_the_name_is_free_again(hitless: Shell) -> None:
    hitless("up", "--agent", "flannel-0.28")
    (state,) = hitless.status()
    keeper = int(str(state["keeper"]))
    stray = subprocess.Popen(
        [*HITLESS, "lab", "exec", "node0", "--", "sleep", "1000"],
        env={**os.environ, "HITLESS_RUNTIME_DIR": str(hitless.folder)},
    )
    note = Store(hitless.folder).read("lab")
    until(lambda: stray.pid in held_processes(note.inodes), "sleep entering the node")
    with up(lab.LabPlan(kubernetes=False)) as observer:
        witness = Witness(observer, note.cluster())
        os.kill(keeper, signal.SIGKILL)
        # the agents go with the keeper; what a person started there does not, and keeps his namespace
        until(lambda: witness.standing() == {"node0"}, "the end of everything else")
        assert [each["alive"] for each in hitless.status()] == [False]
        assert "dead" in hitless("status").stdout
        assert "is dead" in hitless("exec", "node0", "true", code=3).stderr
        hitless("down")
        assert stray.wait(HANG) == -signal.SIGKILL
        until(lambda: not witness.standing(), "the end of the last namespace")
    hitless("up")


def test_down_all_leaves_alone_what_is_in_use_and_a_dry_run_changes_nothing(hitless: Shell) -> None:
    hitless("up", "--family", "ipv4")
    hitless("up", "--name", "two", "--family", "ipv4")
    guest = subprocess.Popen(
        [*HITLESS, "lab", "exec", "--name", "two", "node0", "--", "sleep", "1000"],
        env={**os.environ, "HITLESS_RUNTIME_DIR": str(hitless.folder)},
    )
    try:
        note = Store(hitless.folder).read("two")
        until(lambda: guest.pid in held_processes(note.inodes), "sleep entering the node")
        left_alone = f"lab two is left alone: commands run in it (process {guest.pid})"
        told = hitless("down", "--all", "--dry-run").stdout
        assert left_alone in told
        assert "the lab would be taken down" in told
        assert [(each["name"], each["alive"]) for each in hitless.status()] == [("lab", True), ("two", True)]
        for words, said in ((("--all", "--name", "two"), "--name"), (("--force",), "--force")):
            assert said in hitless("down", *words, code=3).stderr
        told = hitless("down", "--all").stdout
        assert left_alone in told
        assert [each["name"] for each in hitless.status()] == ["two"]
        assert guest.poll() is None
        hitless("down", "--all", "--force")
        assert hitless.status() == []
    finally:
        guest.kill()
        guest.wait()


def test_a_dead_lab_is_replaced_by_up_without_down(hitless: Shell) -> None:
    hitless("up")
    os.kill(int(str(hitless.status()[0]["keeper"])), signal.SIGKILL)
    until(lambda: not hitless.status()[0]["alive"], "the keeper's end")
    hitless("up")
    assert [each["alive"] for each in hitless.status()] == [True]


def test_an_agent_is_looked_after_for_as_long_as_the_lab_stands(hitless: Shell) -> None:
    assert "flannel-0.28 is ready on node0" in hitless("up", "--agent", "flannel-0.28").stdout

    def agent() -> dict[str, object]:
        agents = hitless.status()[0]["agents"]
        assert isinstance(agents, dict)
        found: dict[str, object] = agents["node0"]
        return found

    hitless("exec", "node0-pod0", "--", "ping", "-c1", "-w30", "198.51.100.1")
    first = int(str(agent()["pid"]))
    os.kill(first, signal.SIGKILL)
    until(lambda: agent()["ready"] and agent()["pid"] != first, "the agent's return")
    assert agent()["restarts"] == 1


def test_an_agent_that_does_not_come_up_is_said_so(hitless: Shell) -> None:
    # it is never ready: without a probe, living for a tenth of a second would be enough
    words = ("--agent-command", "sh -c 'echo no config; exit 9'", "--ready", "exec:false")
    problem = hitless("up", *words, code=3).stderr
    assert "node0: ended before it was ready (exit code 9): no config; the lab was taken down again" in problem
    assert hitless.status() == [], "a whole lab or nothing"


def test_an_agent_s_program_may_be_named_from_the_working_directory(hitless: Shell) -> None:
    script = hitless.folder.with_name("agent.sh")
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    assert "agent.sh is ready on node0" in hitless("up", "--agent-command", os.path.relpath(script)).stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("up", "--nodes", "0"), "nodes: 0 is out of range (expected 1 to 100)"),
        (("up", "--services", "6000"), "services: 6000 is out of range (expected 0 to 5000)"),
        (("up", "--name", "../x"), "is not a valid lab name"),
        (("up", "--agent", "weave"), "'weave' is not an agent"),
        (("up", "--agent-command", "a 'b"), "agent-command"),
        (("up", "--agent-command", "a", "--ready", "x"), "is not a readiness probe"),
        (("up", "--agent-command", "nosuch"), "the program nosuch is not installed"),
        (("up", "--agent-command", ""), "--agent-command: is empty"),
        (("up", "--agent", "hitless", "--ready", "exec:true"), "--ready: is for an agent of your own"),
        (("up", "--agent", "hitless", "--agent-command", "a"), "exclude each other"),
        (("up", "--family", "ipx"), "none of the choices"),
    ],
)
def test_bad_input_is_exit_3_names_the_field_and_builds_nothing(
    hitless: Shell, words: tuple[str, ...], message: str
) -> None:
    assert message in hitless(*words, code=3).stderr
    assert hitless.status() == []


def test_check_lists_what_is_there_and_builds_nothing(hitless: Shell) -> None:
    found = json.loads(hitless("up", "--check", "--json").stdout)
    assert len(found) > 10
    assert all(each["present"] for each in found)
    assert hitless.status() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["building", "waiting for the agent"])
def test_an_interrupted_up_leaves_nothing(hitless: Shell, tmp_path: Path, stage: str, number: signal.Signals) -> None:
    begun = tmp_path / "begun"
    never = ("--agent-command", f"sh -c 'touch {begun}; exec sleep 1000'", "--ready", "exec:false")
    words = ("--services", "5000") if stage == "building" else never
    maker = subprocess.Popen(
        [*HITLESS, "lab", "up", *words],
        env={**os.environ, "HITLESS_RUNTIME_DIR": str(hitless.folder)},
        stderr=subprocess.PIPE,
        text=True,
    )
    if stage == "building":
        until(lambda: list(hitless.folder.glob("lab-*.json")) if hitless.folder.exists() else [], "the note")
    else:
        until(begun.exists, "the agent's start")
    inside = Store(hitless.folder).read("lab").keep
    maker.send_signal(number)
    maker.send_signal(number)  # a person who thinks that the first was not heard
    maker.communicate(timeout=HANG)
    assert maker.returncode == 130
    assert hitless.status() == []
    assert not alive(inside), "the lab's keeper, and with it everything"


ORDINARY = 65534
NEEDED = [str(Path(folder)) for folder in (sys.base_prefix, Path(__file__).parents[3], sys.prefix)]
"""What must be within reach of an ordinary user: Python, this checkout, and its environment."""
REACH = """
set -e
mount --make-rprivate /
number=0
for folder in "$@"; do
    number=$((number + 1))
    mkdir -p "$SCRATCH/kept$number"
    mount --bind "$folder" "$SCRATCH/kept$number"
done
number=0
for folder in "$@"; do
    number=$((number + 1))
    top=/$(echo "$folder" | cut -d/ -f2)
    if [ "$(stat -c %a "$top" | tail -c 2)" -lt 5 ]; then
        mount -t tmpfs -o mode=755 none "$top"
    fi
    if [ ! -e "$folder" ]; then
        mkdir -p "$folder"
        mount --bind "$SCRATCH/kept$number" "$folder"
    fi
done
"""


def test_an_ordinary_user_has_the_same_lab(tmp_path: Path) -> None:
    """A real other user, by number; where Python lies in root's home, a private mount namespace opens it to him."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        missing("only root can become somebody else for a test (and setpriv)")
    # not below tmp_path: another pytest that starts meanwhile shuts its parent for everybody else
    with tempfile.TemporaryDirectory(prefix="hitless-test-") as folder:
        os.chown(folder, ORDINARY, ORDINARY)
        _lab_of_somebody_else(Path(folder), tmp_path)


def _lab_of_somebody_else(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "become.sh"
    script.write_text(
        REACH + f"exec setpriv --reuid={ORDINARY} --regid={ORDINARY} --clear-groups env HOME={home} TMPDIR={home} "
        'HITLESS_RUNTIME_DIR="$HITLESS_RUNTIME_DIR" sh -c "$WORDS"\n'
    )
    words = """
        set -e
        hitless() { "$PYTHON" -m hitless lab "$@"; }
        trap 'test $? = 0 || hitless down --all' EXIT
        test "$(id -u)" = 65534
        hitless up --nodes 2 --agent flannel-0.28
        hitless exec node0-pod0 -- ping -c1 -w30 198.51.100.1
        hitless exec node1-pod0 -- ping -c1 -w30 2001:db8:ffff::1
        hitless exec node0 -- iptables-nft -t nat -S FLANNEL-POSTRTG
        hitless down
        hitless up --backend legacy --agent hitless
        hitless exec node0-pod0 -- ping -c1 -w30 198.51.100.1
        hitless status
        hitless down
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", str(script), *NEEDED],
        env={
            **os.environ,
            "SCRATCH": str(tmp_path),
            "WORDS": words,
            "PYTHON": sys.executable,
            "HITLESS_RUNTIME_DIR": str(home / "run"),
        },
        capture_output=True,
        text=True,
        timeout=2 * HANG,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 received") == 3
    assert done.stdout.count("-A FLANNEL-POSTRTG") == 6
    assert list((home / "run").iterdir()) == []
