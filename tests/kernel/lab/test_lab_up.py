from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.lab.worlds import (
    HANG,
    finish,
    holders,
    machine,
    missing,
    need,
    reaches,
    run,
    seen_source,
    stand_in,
    until,
    up,
)

from hitless import lab
from hitless.errors import KernelError, MissingError, ProgramError
from hitless.kernel import namespaces, processes
from hitless.lab import building, keeping, topology
from hitless.lab.keeping import alive, held_processes
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("backend", list(Backend))
def test_pods_reach_the_world_only_while_flannels_rules_stand(backend: Backend) -> None:
    with up(lab.Plan(family="dual", backend=backend)) as cluster:
        node, pod = cluster.nodes[0], cluster.pods[0]
        for family in Family:
            # without: the packet arrives under the pod's own address, and nobody can answer it
            assert seen_source(cluster, pod, family) == str(pod.addresses[family])
            assert not reaches(pod, cluster.far_end.addresses[family][0])
        finish(stand_in(cluster, "flannel-0.28"))
        for family in Family:
            assert reaches(pod, cluster.far_end.addresses[family][1])
            # a flow of its own: the earlier one is bound without translation
            assert seen_source(cluster, pod, family) in (str(node.addresses[family]), str(pod.addresses[family]))


def test_the_far_end_sees_the_node_once_the_rules_stand() -> None:
    with up(lab.Plan(family="dual")) as cluster:
        finish(stand_in(cluster, "adopter"))
        for family in Family:
            assert seen_source(cluster, cluster.pods[0], family) == str(cluster.nodes[0].addresses[family])


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_pods_of_different_nodes_reach_each_other_untranslated(backend: Backend) -> None:
    with up(lab.Plan(nodes=2, pods_per_node=2, family="dual", backend=backend, services=20)) as cluster:
        here, there = cluster.nodes[0].pods[1], cluster.nodes[1].pods[0]
        for family in Family:
            assert reaches(here, there.addresses[family])
            assert reaches(here, cluster.nodes[0].pods[0].addresses[family])
            assert reaches(here, cluster.nodes[1].addresses[family])


def test_with_policy_drop_pods_depend_on_the_agents_forward_rules() -> None:
    with up(lab.Plan(family="ipv4", forward_policy="drop")) as cluster:
        node, pod, far = cluster.nodes[0], cluster.pods[0], cluster.far_end.address
        finish(stand_in(cluster, "adopter"))
        assert reaches(pod, far)
        run(node.namespace, "iptables-nft", "-F", "FLANNEL-FWD")
        assert not reaches(pod, cluster.far_end.addresses[Family.IPV4][1])


def test_two_labs_with_the_same_addresses_know_nothing_of_each_other() -> None:
    with up(lab.Plan()) as one, up(lab.Plan()) as two:
        finish(stand_in(one, "adopter"))
        assert reaches(one.pods[0], one.far_end.address)
        assert not reaches(two.pods[0], two.far_end.address)
        assert "FLANNEL" not in run(two.nodes[0].namespace, "iptables-nft-save")
        assert one.members.inodes.isdisjoint(two.members.inodes)


def test_each_node_has_a_run_of_its_own_and_so_its_own_lock() -> None:
    with up(lab.Plan(nodes=2)) as cluster:
        one, two = cluster.nodes
        run(one.namespace, "sh", "-c", "echo 1 > /run/xtables.lock.test")
        assert (one.root / "run/xtables.lock.test").read_text() == "1\n"
        assert not (two.root / "run/xtables.lock.test").exists()
        assert not os.path.lexists("/run/xtables.lock.test")


def test_the_machine_is_the_same_before_during_and_after() -> None:
    before = machine()
    with up(lab.Plan(nodes=2, family="dual", services=5)) as cluster:
        finish(stand_in(cluster, "flannel-0.26"))
        assert machine() == before
    assert machine() == before


def test_when_the_keeper_is_killed_everything_is_gone_at_once() -> None:
    cluster = up(lab.Plan(nodes=2))
    try:
        inodes = cluster.members.inodes
        assert len(holders(inodes)) >= len(inodes)
        os.kill(cluster.keeper.keep.pid, signal.SIGKILL)
        until(lambda: not alive(cluster.keeper.keep), "the keeper's end")
        until(lambda: not holders(inodes), "the end of the namespaces")
        with pytest.raises(ProgramError):
            run(cluster.nodes[0].namespace, "true")
        with pytest.raises(KernelError):
            namespaces.inside(cluster.pods[0].namespace, lambda: None)
    finally:
        cluster.close()


def test_when_the_maker_is_killed_everything_is_gone() -> None:
    need(lab.Plan())
    script = textwrap.dedent("""
        import sys, time
        from hitless import lab
        cluster = lab.up(lab.Plan())
        print(cluster.keeper.keep.pid, *cluster.members.inodes, flush=True)
        time.sleep(600)
    """)
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert maker.stdout is not None
        pid, *inodes = (int(word) for word in maker.stdout.readline().split())
        assert keeping.start_time(pid)
    finally:
        maker.kill()
        maker.communicate()
    until(lambda: not keeping.start_time(pid), "the keeper's end")
    until(lambda: not holders(frozenset(inodes)), "the end of the namespaces")


def test_a_keeper_made_in_a_thread_outlives_the_thread() -> None:
    async def main() -> None:
        async with lab.up_async(lab.Plan()) as cluster:
            await asyncio.sleep(0)
            assert alive(cluster.keeper.keep)
            assert reaches(cluster.pods[0], cluster.nodes[0].address)

    need(lab.Plan())
    asyncio.run(main())


def test_what_still_runs_inside_ends_with_the_lab() -> None:
    with up(lab.Plan()) as cluster:
        inside = processes.start(["sleep", "1000"], namespace=cluster.pods[0].namespace)
        until(lambda: inside.pid in held_processes(cluster.members.inodes), "sleep entering the pod")
    assert inside.wait(HANG) == -signal.SIGKILL


def test_a_lab_that_could_not_be_made_whole_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    need(lab.Plan())
    kept: list[keeping.Keep] = []
    real = topology.pod
    monkeypatch.setattr(topology, "pod", lambda *words: real(*words) + "link add x type nosuchtype\n")
    with pytest.raises(ProgramError, match="ip"):
        building.up(lab.Plan(), started=kept.append)
    assert not alive(kept[0])


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes.program

    def without(name: str) -> str:
        return real("no-such-" + name) if name.startswith("iptables-legacy") else real(name)

    monkeypatch.setitem(processes.PACKAGES, "no-such-iptables-legacy", "iptables")
    monkeypatch.setattr(processes, "program", without)
    with pytest.raises(MissingError, match="apt-get install iptables"):
        lab.up(lab.Plan(backend=Backend.LEGACY))


def test_a_kernel_that_allows_no_namespaces_is_named_with_the_remedy() -> None:
    if subprocess.run(["unshare", "-Ur", "true"], check=False).returncode:
        missing("user namespaces are not allowed")
    script = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$0" -m hitless lab up --name never'
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, sys.executable],
        env={**os.environ, "HITLESS_RUNTIME_DIR": "/nonexistent/never"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "may not make namespaces" in done.stderr
    assert "sysctl user.max" in done.stderr


def test_five_thousand_services_are_loaded_in_one_go(record_property: Callable[[str, object], None]) -> None:
    for backend in (Backend.NFT, Backend.LEGACY):
        begin = time.monotonic()
        with up(lab.Plan(family="ipv4", backend=backend, services=5000)) as cluster:
            record_property(f"up with 5,000 Services, {backend}", round(time.monotonic() - begin, 2))
            saved = run(cluster.nodes[0].namespace, f"iptables-{backend}-save", "-t", "nat")
            assert saved.count("\n-A ") > 25_000
            finish(stand_in(cluster, "adopter"))
            assert reaches(cluster.pods[0], cluster.far_end.address)


def test_a_namespace_is_entered_by_sockets_as_well_as_by_programs() -> None:
    with up(lab.Plan()) as cluster:
        here = Path("/proc/thread-self/ns/net")
        entered = namespaces.inside(cluster.pods[0].namespace, lambda: here.stat().st_ino)
        assert entered == cluster.members.held["node0-pod0"].inode
        assert here.stat().st_ino != entered
