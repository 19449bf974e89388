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
    Witness,
    finish,
    machine,
    missing,
    need,
    reaches,
    run,
    seen_source,
    silent,
    stand_in,
    until,
    up,
)

from hitless import lab
from hitless.errors import KernelError, MissingError, ProgramError
from hitless.kernel import namespaces, processes
from hitless.lab import building, keeper_client, topology
from hitless.lab.keeper_client import alive, held_processes
from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("backend", list(Backend))
def test_pods_reach_the_world_only_while_flannels_rules_stand(backend: Backend) -> None:
    with up(lab.LabPlan(family="dual", backend=backend)) as cluster:
        node, pod = cluster.nodes[0], cluster.pods[0]
        for family in Family:
            # without: the packet arrives under the pod's own address, and nobody can answer it
            assert seen_source(cluster, pod, family) == str(pod.addresses[family])
            assert silent(pod, cluster.far_end.addresses[family][0])
        finish(stand_in(cluster, "flannel-0.28"))
        for family in Family:
            assert reaches(pod, cluster.far_end.addresses[family][1])
            # a flow of its own: the earlier one is bound without translation
            assert seen_source(cluster, pod, family) in (str(node.addresses[family]), str(pod.addresses[family]))


def test_the_far_end_sees_the_node_once_the_rules_stand() -> None:
    with up(lab.LabPlan(family="dual")) as cluster:
        finish(stand_in(cluster, "adopter"))
        for family in Family:
            assert seen_source(cluster, cluster.pods[0], family) == str(cluster.nodes[0].addresses[family])


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_pods_of_different_nodes_reach_each_other_untranslated(backend: Backend) -> None:
    with up(lab.LabPlan(nodes=2, pods_per_node=2, family="dual", backend=backend, services=20)) as cluster:
        here, there = cluster.nodes[0].pods[1], cluster.nodes[1].pods[0]
        for family in Family:
            assert reaches(here, there.addresses[family])
            assert reaches(here, cluster.nodes[0].pods[0].addresses[family])
            assert reaches(here, cluster.nodes[1].addresses[family])


def test_with_policy_drop_pods_depend_on_the_agents_forward_rules() -> None:
    with up(lab.LabPlan(family="ipv4", forward_policy="drop")) as cluster:
        node, pod, far = cluster.nodes[0], cluster.pods[0], cluster.far_end.address
        finish(stand_in(cluster, "adopter"))
        assert reaches(pod, far)
        run(node.namespace, "iptables-nft", "-F", "FLANNEL-FWD")
        assert silent(pod, cluster.far_end.addresses[Family.IPV4][1])


def test_two_labs_with_the_same_addresses_know_nothing_of_each_other() -> None:
    with up(lab.LabPlan()) as one, up(lab.LabPlan()) as two:
        finish(stand_in(one, "adopter"))
        assert reaches(one.pods[0], one.far_end.address)
        assert silent(two.pods[0], two.far_end.address)
        assert "FLANNEL" not in run(two.nodes[0].namespace, "iptables-nft-save")
        assert one.members.inodes.isdisjoint(two.members.inodes)


def test_each_node_has_a_run_of_its_own_and_so_its_own_lock() -> None:
    with up(lab.LabPlan(nodes=2)) as cluster:
        one, two = cluster.nodes
        run(one.namespace, "sh", "-c", "echo 1 > /run/xtables.lock.test")
        assert (one.root / "run/xtables.lock.test").read_text() == "1\n"
        assert not (two.root / "run/xtables.lock.test").exists()
        assert not os.path.lexists("/run/xtables.lock.test")


def test_the_machine_is_the_same_before_during_and_after() -> None:
    before = machine()
    with up(lab.LabPlan(nodes=2, family="dual", services=5)) as cluster:
        finish(stand_in(cluster, "flannel-0.26"))
        assert machine() == before
    assert machine() == before


def test_when_the_keeper_is_killed_everything_is_gone_at_once() -> None:
    cluster = up(lab.LabPlan(nodes=2))
    try:
        with up(lab.LabPlan(kubernetes=False)) as observer:
            witness = Witness(observer, cluster.cluster)
            assert witness.standing() == {"node0", "node0-pod0", "node1", "node1-pod0", "underlay", "far-end"}
            os.kill(cluster.keeper.keep.pid, signal.SIGKILL)
            until(lambda: not alive(cluster.keeper.keep), "the keeper's end")
            until(lambda: not witness.standing(), "the end of the namespaces")
        with pytest.raises(ProgramError):
            run(cluster.nodes[0].namespace, "true")
        with pytest.raises(KernelError):
            namespaces.inside(cluster.pods[0].namespace, lambda: None)
    finally:
        cluster.close()


@pytest.mark.parametrize("making", ["lab.up()", "asyncio.run(asyncio.to_thread(lab.up))"])
def test_when_the_maker_is_killed_everything_is_gone(making: str) -> None:
    need(lab.LabPlan())
    script = textwrap.dedent(f"""
        import asyncio, time
        from hitless import lab
        async def thread():
            return await asyncio.to_thread(lab.up)
        cluster = {making.replace("asyncio.to_thread(lab.up)", "thread()")}
        print(cluster.keeper.keep.pid, flush=True)
        time.sleep(600)
    """)
    maker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        assert keeper_client.start_time(pid)
    finally:
        maker.kill()
        maker.communicate()
    until(lambda: not keeper_client.start_time(pid), "the keeper's end")


def test_closing_twice_or_after_the_keepers_death_touches_no_stranger() -> None:
    one = up(lab.LabPlan())
    one.close()
    with up(lab.LabPlan()) as two:
        # the kernel gives the same inode numbers out again
        stranger = processes.start(["sleep", "1000"], namespace=two.pods[0].namespace)
        until(lambda: stranger.pid in held_processes(two.members.inodes), "sleep entering the pod")
        one.close()
        assert stranger.poll() is None
    assert stranger.wait(HANG) == -signal.SIGKILL


def test_a_keeper_made_in_a_thread_outlives_the_thread() -> None:
    async def main() -> None:
        async with lab.up_async(lab.LabPlan()) as cluster:
            await asyncio.sleep(0)
            assert alive(cluster.keeper.keep)
            assert reaches(cluster.pods[0], cluster.nodes[0].address)

    need(lab.LabPlan())
    asyncio.run(main())


def test_what_still_runs_inside_ends_with_the_lab() -> None:
    with up(lab.LabPlan()) as cluster:
        inside = processes.start(["sleep", "1000"], namespace=cluster.pods[0].namespace)
        until(lambda: inside.pid in held_processes(cluster.members.inodes), "sleep entering the pod")
    assert inside.wait(HANG) == -signal.SIGKILL


def test_a_lab_that_could_not_be_made_whole_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    need(lab.LabPlan())
    kept: list[keeper_client.KeeperHandle] = []
    real = topology.pod
    monkeypatch.setattr(topology, "pod", lambda *words: real(*words) + "link add x type nosuchtype\n")
    with pytest.raises(ProgramError, match=r"node0-pod0: link add x type nosuchtype: Error: "):
        building.up(lab.LabPlan(), started=kept.append)
    assert not alive(kept[0])


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = processes.program

    def without(name: str) -> str:
        return real("no-such-" + name) if name.startswith("iptables-legacy") else real(name)

    monkeypatch.setitem(processes.PACKAGES, "no-such-iptables-legacy", "iptables")
    monkeypatch.setattr(processes, "program", without)
    with pytest.raises(MissingError, match="apt-get install iptables"):
        lab.up(lab.LabPlan(backend=Backend.LEGACY))


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
        with up(lab.LabPlan(family="ipv4", backend=backend, services=5000)) as cluster:
            record_property(f"up with 5,000 Services, {backend}", round(time.monotonic() - begin, 2))
            saved = run(cluster.nodes[0].namespace, f"iptables-{backend}-save", "-t", "nat")
            assert saved.count("\n-A ") > 25_000
            finish(stand_in(cluster, "adopter"))
            assert reaches(cluster.pods[0], cluster.far_end.address)


def test_a_namespace_is_entered_by_sockets_as_well_as_by_programs() -> None:
    with up(lab.LabPlan()) as cluster:
        here = Path("/proc/thread-self/ns/net")
        entered = namespaces.inside(cluster.pods[0].namespace, lambda: here.stat().st_ino)
        assert entered == cluster.members.held["node0-pod0"].inode
        assert here.stat().st_ino != entered


NO_BRIDGE = """#!/bin/sh
input=$(cat)
case $input in *"type bridge"*) echo "Error: Unknown device type." >&2; echo "Command failed -:2" >&2; exit 1;; esac
echo "$input" | {real} -batch -
"""
NO_CONNTRACK = """#!/bin/sh
case "$*" in *conntrack*) echo "Extension conntrack is not supported" >&2; exit 2;; esac
exec {real} "$@"
"""
NO_RESTORE = "#!/bin/sh\necho 'iptables-restore: line 90 failed' >&2\nexit 1\n"


@pytest.mark.parametrize(
    ("shims", "named"),
    [
        ({"ip": NO_BRIDGE}, "bridge links: Error: Unknown device type."),
        ({"iptables-nft": NO_CONNTRACK, "iptables-nft-restore": NO_RESTORE}, "iptables-nft: -m conntrack .*supported"),
    ],
)
def test_a_missing_kernel_feature_is_named_with_its_remedy(
    shims: dict[str, str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without it, as its programs report it: a shim in front of the real program says no."""
    need(lab.LabPlan())
    for name, text in shims.items():
        (tmp_path / name).write_text(text.format(real=processes.program(name)))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MissingError, match=f"the lab cannot be made whole: {named}; load"):
        lab.up(lab.LabPlan())


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY, Backend.NFTABLES])
def test_the_plain_names_of_iptables_are_the_nodes_backend_by_any_path_and_only_there(backend: Backend) -> None:
    """An agent runs ``iptables``, which on a real node is the node's backend, whatever this machine's default is."""
    plan = lab.LabPlan(backend=backend, family="dual", pods_per_node=1)
    need(plan)
    here = {name: versions(name, namespaces.HERE) for name in ("iptables", "ip6tables")}
    word = "(legacy)" if backend is Backend.LEGACY else "(nf_tables)"
    with lab.up(plan) as up:
        node = up.nodes[0].namespace
        for name in (
            "iptables",
            "ip6tables",
            "iptables-save",
            "ip6tables-save",
            "iptables-restore",
            "ip6tables-restore",
        ):
            assert versions(name, node) == [word, word, word], name
        # what the name writes is where the backend's own program finds it, and other programs are as they were
        processes.run(["iptables", "-t", "nat", "-N", "BY-THE-PLAIN-NAME"], namespace=node)
        told = processes.run([f"iptables-{plan.rules_backend}-save", "-t", "nat"], namespace=node).stdout
        assert ":BY-THE-PLAIN-NAME" in told
        assert processes.run(["ip", "-V"], namespace=node).stdout == processes.run(["ip", "-V"]).stdout
        assert {name: versions(name, namespaces.HERE) for name in here} == here


def versions(name: str, place: namespaces.Namespace) -> list[str]:
    """What the program says that it is: by its whole path, by PATH, and by a shell's own search."""
    path = processes.program(name)
    lines = [[path, "--version"], ["env", name, "--version"], ["sh", "-c", f"exec {name} --version"]]
    return [processes.run(line, namespace=place).stdout.split()[-1] for line in lines]
