"""The lab with an overlay: who reaches whom, what nodes share, and agents that differ by node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.lab.test_lab_command import Shell
from tests.kernel.lab.worlds import missing, need, reaches, run, silent, up

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel import processes
from hitless.lab import features, overlays
from hitless.lab.etcd import PREFIX, PROGRAM, endpoint
from hitless.lab.plans import LeaseStore, OverlayType, Wiring
from hitless.model.families import Family


@pytest.fixture
def hitless(tmp_path: Path) -> Iterator[Shell]:
    need(lab.LabPlan(nodes=2, overlay=OverlayType.VXLAN))
    shell = Shell(tmp_path / "labs")
    yield shell
    shell("down", "--all")


@pytest.mark.parametrize("wiring", list(Wiring))
def test_without_an_overlay_pods_of_all_nodes_reach_each_other(wiring: Wiring) -> None:
    with up(lab.LabPlan(nodes=2, family="dual", wiring=wiring, kubernetes=False)) as cluster:
        for family in Family:
            assert reaches(cluster.nodes[0].pods[0], cluster.nodes[1].pods[0].addresses[family])


@pytest.mark.parametrize("wiring", list(Wiring))
def test_with_an_overlay_it_is_the_agents_work(wiring: Wiring) -> None:
    with up(lab.LabPlan(nodes=2, family="dual", overlay=OverlayType.VXLAN, wiring=wiring, kubernetes=False)) as cluster:
        here, there = cluster.nodes
        for family in Family:
            assert silent(here.pods[0], there.pods[0].addresses[family])
        for node, other in ((here, there), (there, here)):
            for number, family in enumerate(Family):
                lines = [
                    f"link add v{number} address 02:00:00:00:00:0{node.index} type vxlan id {number + 1} dstport 8472 "
                    f"local {node.addresses[family]} remote {other.addresses[family]} dev {node.uplink}",
                    f"link set v{number} up",
                    f"route add {other.subnets[family]} dev v{number}",
                    f"neigh replace {other.pods[0].addresses[family]} lladdr 02:00:00:00:00:0{other.index} "
                    f"dev v{number}",
                ]
                run(node.namespace, "ip", "-batch", "-", stdin="\n".join(lines) + "\n")
        for family in Family:
            assert reaches(here.pods[0], there.pods[0].addresses[family])


def test_nodes_share_the_leases_folder_and_nothing_else_of_run() -> None:
    with up(lab.LabPlan(nodes=2, overlay=OverlayType.VXLAN, kubernetes=False)) as cluster:
        one, other = cluster.nodes
        run(one.namespace, "sh", "-c", f"mkdir -p {overlays.LEASE_DIRECTORY}; echo a > {overlays.LEASE_DIRECTORY}/x")
        run(one.namespace, "sh", "-c", "echo b > /run/own")
        assert run(other.namespace, "cat", f"{overlays.LEASE_DIRECTORY}/x") == "a\n"
        assert not (other.root / "run/own").exists()
        assert not Path(overlays.SHARED).exists(), "the machine's own /run is untouched"


@pytest.mark.parametrize("family", ["dual", "ipv6"])
def test_an_etcd_of_the_labs_own_has_the_configuration_and_each_nodes_subnet(family: str) -> None:
    if shutil.which(PROGRAM) is None:
        pytest.skip("etcd is not installed")
    plan = lab.LabPlan(
        nodes=2,
        family=family,
        overlay=OverlayType.VXLAN,
        wiring=Wiring.ROUTED,
        leases=LeaseStore.ETCD,
        kubernetes=False,
    )
    with up(plan) as cluster:
        body = '{"key": "AA==", "range_end": "AA=="}'  # everything
        ask = ["curl", "-sf", "-m10", "-d", body]
        if shutil.which("curl") is None:
            missing("curl is not installed")
        (held,) = {run(node.namespace, *ask, f"{endpoint(plan, node.index)}/v3/kv/range") for node in cluster.nodes}
        assert len(json.loads(held)["kvs"]) == 3
        keeper = cluster.keeper.keep.pid
        children = processes.run(["ps", "-o", "comm=", "--ppid", str(keeper)], check=False).stdout.split()
        assert "etcd" in children
    assert PREFIX.startswith("/coreos.com")
    assert "etcd" not in processes.run(["ps", "-o", "comm=", "--ppid", str(keeper)], check=False).stdout.split()


def test_one_command_makes_a_mixed_cluster_and_says_who_runs_where(hitless: Shell) -> None:
    told = hitless(
        "up", "--nodes", "3", "--family", "ipv4", "--overlay", "vxlan", "--agent", "adopter",
        "--agent-command", "node1=sh -c 'echo {node} {lease_dir} > /run/told; exec sleep 1000'",
        "--ready", "node1=file:/run/told",
    ).stdout  # fmt: skip
    assert "adopter is ready on node0, node2" in told
    assert "sh is ready on node1" in told
    assert hitless("exec", "node1", "--", "cat", "/run/told").stdout == "node1 /run/hitless-shared/leases\n"
    status = hitless("status").stdout
    assert "node0: adopter ready" in status
    assert "node1: sh ready" in status
    (state,) = hitless.status()
    assert state["plan"]["overlay"] == "vxlan"  # type: ignore[index]


@pytest.mark.parametrize("overlay", [OverlayType.VXLAN, OverlayType.WIREGUARD])
def test_what_the_overlay_needs_is_tried_beforehand_and_told_as_building_tells_it(overlay: OverlayType) -> None:
    plan = lab.LabPlan(nodes=2, overlay=overlay, kubernetes=False)
    (device,) = [one for one in features.probe(plan) if one.name == f"{overlay} links"]
    if device.present:
        up(plan).close()
        return
    with pytest.raises(MissingError, match=f"this kernel has no {overlay} devices; load the module"):
        lab.up(plan)
    assert "Unknown device type" in device.problem
