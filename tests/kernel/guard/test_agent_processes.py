"""Whose word about masquerading counts: real processes, seen with the rights that the systemd unit has."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import CLI, HANG, World, until, world
from tests.kernel.guard.test_guard_hardening import NET_ADMIN_ONLY, flush

from hitless.guard import statements
from hitless.guard.agent_processes import agent_processes
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace

pytestmark = pytest.mark.kernel

OFF = "--ip-masq=false"
WAIT = "read -t 60 x <> <(:)"  # a shell that waits without a child
USER = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
NO_NET_ADMIN = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-all"]
RENAMED = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode())
time.sleep(60)
"""
LOOK = """
import sys
from hitless.guard.statements import read
found = read([], ["flanneld"], 0.0)
print(found.masquerade if found else None)
"""


def flanneld(folder: Path) -> str:
    """A program of that name that waits: for its word only name and arguments count."""
    program = folder / "flanneld"
    if not program.exists():
        shutil.copy(shutil.which("bash") or "/bin/bash", program)
        program.chmod(0o755)
        for each in (folder, *folder.parents):
            if each.is_relative_to("/tmp") and each != Path("/tmp"):
                each.chmod(each.stat().st_mode | 0o111)
    return str(program)


def start(made: World, namespace: Namespace, *command: str) -> processes.Process:
    process = processes.start([*command], namespace=namespace)
    made.started.append(process)
    time.sleep(0.3)
    assert process.poll() is None, command
    return process


def said(made: World) -> str:
    """What a guard with NET_ADMIN and nothing else would hear on the node."""
    line = [*NET_ADMIN_ONLY, sys.executable, "-c", LOOK]
    return processes.run(line, namespace=made.node.namespace, timeout=HANG).stdout.strip()


def test_only_a_process_that_could_switch_masquerading_off_itself_is_believed(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        program = flanneld(tmp_path)
        agent = [program, "-c", WAIT, "x", OFF]
        node, pod = made.node.namespace, made.pod.namespace
        strangers = {
            "an unprivileged process of a pod": (pod, [*USER, *agent]),
            "root in a pod": (pod, agent),
            "an unprivileged process on the host's network": (node, [*USER, *agent]),
            "root on the host's network, without NET_ADMIN": (node, [*NO_NET_ADMIN, *agent]),
            "root of a user namespace of its own": (node, [*USER, "unshare", "-r", *agent]),
            "another program that calls itself so": (node, [sys.executable, "-c", RENAMED, "flanneld", OFF]),
            "one that only its first argument calls so": (node, ["bash", "-c", f"exec -a flanneld sleep 60 # {OFF}"]),
        }
        for who, (namespace, command) in strangers.items():
            process = start(made, namespace, *command)
            heard = said(made)
            process.kill()
            process.wait(timeout=HANG)
            assert heard == "None", f"{who} is believed"
        start(made, node, *agent)
        assert said(made) == "False"  # the agent itself is
        start(made, node, program, "-c", WAIT, "x", "--ip-masq")
        assert said(made) == "None"  # two that contradict each other


def test_another_namespaces_agent_says_nothing_about_this_one(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        start(made, made.node.namespace, flanneld(tmp_path), "-c", WAIT, "x", OFF)
        assert [each.pid for each in agent_processes("flanneld", made.node.namespace)] != []
        assert list(agent_processes("flanneld", made.pod.namespace)) == []
        found = statements.read([], ["flanneld"], 0.0, made.node.namespace)
        assert found is not None
        assert not found.masquerade


def test_a_withdrawal_for_a_process_ends_with_it(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        with (tmp_path / "guard.log").open("ab") as log:
            guard = processes.start(
                [*NET_ADMIN_ONLY, *CLI, "guard", "--journal", str(tmp_path / "journal.jsonl")],
                namespace=made.node.namespace,
                stderr=log,
            )
        made.started.append(guard)
        made.until_state("standing by")
        process = start(made, made.node.namespace, flanneld(tmp_path), "-c", WAIT, "x", OFF)
        flush(made)
        until(lambda: made.records("withdrawn"), "the standby withdrawing")
        made.until_state("withdrawn")
        process.kill()
        made.until_state("carrying")
        assert "nothing says any more" in made.records("followed")[-1]["why"]
