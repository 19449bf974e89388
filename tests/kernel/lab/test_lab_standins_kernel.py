from __future__ import annotations

import json
import re
import signal
import stat
import time
from functools import partial
from pathlib import Path

import pytest
from tests.kernel.lab.worlds import HANG, finish, reaches, run, silent, stand_in, until, up

from hitless import lab
from hitless.kernel import processes
from hitless.lab.agents import AGENTS
from hitless.lab.saboteurs import FAULTS, SabotageTarget, opens_a_gap
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel

XTABLES = [Backend.NFT, Backend.LEGACY]


def rules(node: lab.LabNode, backend: Backend, family: Family = Family.IPV4) -> list[str]:
    saved = run(node.namespace, f"{family.iptables}-{backend}-save", "-t", "nat")
    return [line for line in saved.splitlines() if "FLANNEL-POSTRTG" in line and line.startswith("-A")]


def expected(family: Family) -> list[str]:
    network, subnet, multicast = {
        Family.IPV4: ("10.42.0.0/16", "10.42.0.0/24", "224.0.0.0/4"),
        Family.IPV6: ("fd42::/48", "fd42::/64", "ff00::/8"),
    }[family]
    comment = '-m comment --comment "flanneld masq"'
    chain = "-A FLANNEL-POSTRTG"
    return [
        f"-A POSTROUTING {comment} -j FLANNEL-POSTRTG",
        f"{chain} -m mark --mark 0x4000/0x4000 {comment} -j RETURN",
        f"{chain} -s {subnet} -d {network} {comment} -j RETURN",
        f"{chain} -s {network} -d {subnet} {comment} -j RETURN",
        f"{chain} ! -s {network} -d {subnet} {comment} -j RETURN",
        f"{chain} -s {network} ! -d {multicast} {comment} -j MASQUERADE --random-fully",
        f"{chain} ! -s {network} -d {network} {comment} -j MASQUERADE --random-fully",
    ]


SHIM = """#!/bin/sh
# notes whether a pod's flow would be translated when a command begins, then becomes the command
if {save} -t nat | grep -q -- '-A POSTROUTING .*-j FLANNEL-POSTRTG' && {save} -t nat | grep -q 'FLANNEL-POSTRTG .*MASQ'
then echo carried >> {log}; else echo "dark $*" >> {log}; fi
exec {real} "$@"
"""


@pytest.mark.parametrize("backend", XTABLES)
@pytest.mark.parametrize(("name", "count"), [("flannel-0.28", 18), ("flannel-0.28-canal", 21)])
def test_a_restart_runs_as_many_commands_in_the_dark_as_upstream(
    backend: Backend, name: str, count: int, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    save = f"{processes.program(f'iptables-{backend}-save')}"
    for tool in (f"iptables-{backend}", f"iptables-{backend}-restore"):
        shim = tmp_path / tool
        shim.write_text(SHIM.format(save=save, log=log, real=processes.program(tool)))
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    with up(lab.LabPlan(backend=backend)) as cluster:
        finish(stand_in(cluster, name))
        line = ["env", f"PATH={tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin", *_command(cluster, name)]
        ready = cluster.nodes[0].root / f"run/hitless/{name}.ready"
        ready.unlink()
        process = processes.start(line, namespace=cluster.nodes[0].namespace, stdout=processes.PIPE)
        until(lambda: ready.exists() or process.poll() is not None, "ready")
        finish(process)
        noted = log.read_text().splitlines()
        assert len([line for line in noted if line.startswith("dark")]) == count
        assert rules(cluster.nodes[0], backend) == expected(Family.IPV4)


def _command(cluster: lab.Lab, name: str) -> tuple[str, ...]:
    return AGENTS[name].command(cluster.plan, cluster.nodes[0])


@pytest.mark.parametrize("backend", XTABLES)
def test_from_release_to_release_the_rules_end_up_the_same(backend: Backend) -> None:
    with up(lab.LabPlan(family="dual", backend=backend)) as cluster:
        node = cluster.nodes[0]
        for name in ("flannel-0.26", "flannel-0.28", "flannel-0.28-canal", "adopter", "flannel-0.26"):
            process = stand_in(cluster, name)
            for family in Family:
                assert sorted(rules(node, backend, family)) == sorted(expected(family))
                assert rules(node, backend, family)[1:] == expected(family)[1:]
                saved = run(node.namespace, f"{family.iptables}-{backend}-save", "-t", "filter")
                assert saved.count("-A FLANNEL-FWD") == 2
            output = finish(process, signal.SIGKILL if name == "adopter" else signal.SIGTERM)
            ready = json.loads(output.splitlines()[1])
            assert (ready["agent"], ready["event"]) == (name, "ready")
        # 0.26 was the last: it has cleaned up after itself
        assert rules(node, backend) == []


def test_flannel_0_26_removes_its_rules_only_after_a_second() -> None:
    with up(lab.LabPlan()) as cluster:
        process = stand_in(cluster, "flannel-0.26")
        begin = time.monotonic()
        process.terminate()
        until(lambda: rules(cluster.nodes[0], Backend.NFT) == [], "the clean-up")
        assert time.monotonic() - begin >= 1.0
        process.communicate(timeout=HANG)
        assert silent(cluster.pods[0], cluster.far_end.address)


@pytest.mark.parametrize("name", ["flannel-0.26", "flannel-0.28"])
def test_resync_puts_missing_rules_back(name: str) -> None:
    with up(lab.LabPlan()) as cluster:
        node = cluster.nodes[0]
        process = stand_in(cluster, name, "--resync", "0.2")
        run(node.namespace, "iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
        until(lambda: sorted(rules(node, Backend.NFT)) == sorted(expected(Family.IPV4)), "the resync")
        finish(process, signal.SIGKILL)


@pytest.mark.parametrize("name", ["flannel-0.26", "flannel-0.28"])
def test_resync_does_not_notice_order_as_upstream_does_not(name: str) -> None:
    with up(lab.LabPlan()) as cluster:
        node = cluster.nodes[0]
        process = stand_in(cluster, name, "--resync", "0.1")
        with FAULTS["reorder"](SabotageTarget.of(cluster.cluster, node)):
            wrong = rules(node, Backend.NFT)
            time.sleep(1)
            assert rules(node, Backend.NFT) == wrong
        finish(process, signal.SIGKILL)


@pytest.mark.parametrize("name", ["adopter", "flannel-0.28"])
def test_only_the_adopter_restarts_without_a_single_rule_event(name: str, tmp_path: Path) -> None:
    with up(lab.LabPlan(family="dual")) as cluster:
        node = cluster.nodes[0]
        finish(stand_in(cluster, name))
        heard = tmp_path / "events"
        with heard.open("wb") as sink:
            monitor = processes.start(["nft", "monitor"], namespace=node.namespace, stdout=sink)
            # the monitor says nothing when it is ready: a rule of our own proves that it listens
            until(lambda: _nudge(node) or b"nudge" in heard.read_bytes(), "the monitor")
            heard_before = heard.read_bytes().count(b"FLANNEL")
            finish(stand_in(cluster, name))
            run(node.namespace, "nft", "add", "table", "ip", "last")
            until(lambda: b"last" in heard.read_bytes(), "the last event")
            monitor.kill()
            monitor.wait()
        events = heard.read_bytes().count(b"FLANNEL") - heard_before
        assert (events == 0) if name == "adopter" else (events > 10)


def _nudge(node: lab.LabNode) -> bool:
    run(node.namespace, "nft", "add", "table", "ip", "nudge")
    run(node.namespace, "nft", "delete", "table", "ip", "nudge")
    return False


def test_nftables_mode_has_no_gap_at_start_in_0_28_and_loses_its_tables_at_the_end_of_0_26() -> None:
    with up(lab.LabPlan(family="dual", backend=Backend.NFTABLES)) as cluster:
        node, pod, far = cluster.nodes[0], cluster.pods[0], cluster.far_end.addresses
        finish(stand_in(cluster, "flannel-0.28"))
        assert all(reaches(pod, addresses[0]) for addresses in far.values())
        process = stand_in(cluster, "flannel-0.26")
        assert all(reaches(pod, addresses[1]) for addresses in far.values())
        finish(process)
        assert "flannel" not in run(node.namespace, "nft", "list", "tables")
        assert all(silent(pod, addresses[2]) for addresses in far.values())


@pytest.mark.parametrize("backend", list(Backend))
def test_every_fault_does_what_it_says_and_undoes_itself(backend: Backend) -> None:
    with up(lab.LabPlan(family="ipv4", backend=backend)) as cluster:
        node, pod = cluster.nodes[0], cluster.pods[0]
        finish(stand_in(cluster, "flannel-0.28"))
        target = SabotageTarget.of(cluster.cluster, node)
        whole = _without_counters(target)
        for name, fault in FAULTS.items():
            with fault(target):
                as_told = silent if opens_a_gap(name, backend) else reaches
                assert as_told(pod, cluster.far_end.address), name
                if name != "flush-filter" and not (name == "flush-ruleset" and backend is Backend.LEGACY):
                    assert _without_counters(target) != whole or name == "firewalld-reload", name
            assert _without_counters(target) == whole, name
        with pytest.raises(ZeroDivisionError), FAULTS["flush-chain"](target):
            raise ZeroDivisionError
        assert _without_counters(target) == whole


def _without_counters(target: SabotageTarget) -> list[str]:
    return [re.sub(r"^#.*$|\[\d+:\d+\]", "", text, flags=re.MULTILINE) for _, text in target.snapshot()]


def test_a_stand_in_with_wrong_input_says_so_and_changes_nothing() -> None:
    with up(lab.LabPlan()) as cluster:
        node = cluster.nodes[0]
        base = list(_command(cluster, "flannel-0.28"))
        before = run(node.namespace, "iptables-nft-save")
        base[base.index("10.42.0.0/24")] = "10.99.0.0/24"
        done = processes.run(base, namespace=node.namespace, check=False)
        assert done.returncode == 3
        assert "--subnet: 10.99.0.0/24 is not in 10.42.0.0/16" in done.stderr
        assert run(node.namespace, "iptables-nft-save").count("\n-A") == before.count("\n-A")


def test_a_stand_in_that_stood_still_when_it_was_told_to_end_ends() -> None:
    """The kernel then gives the signal to whichever thread wakes up first; Python's handlers run in the main one."""
    with up(lab.LabPlan()) as cluster:
        for _ in range(6):
            process = stand_in(cluster, "flannel-0.28")
            process.send_signal(signal.SIGSTOP)
            until(partial(_stopped, process.pid), "it standing still")
            process.send_signal(signal.SIGTERM)
            assert '"stopped"' in finish(process, signal.SIGCONT)


def _stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
