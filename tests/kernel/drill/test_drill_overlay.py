"""Drills of several nodes whose agents carry pods to pods on other nodes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.excuses import check
from tests.kernel.drill.drills import BUSY_MACHINE, busy, hitless
from tests.kernel.lab.worlds import need

from hitless import lab
from hitless.evidence import read
from hitless.model import events as e

SHORT = ("--rounds", "1", "--baseline", "1", "--settle", "0.3", "--rate", "400", "--json", "--quiet")

AGENT = """#!/bin/sh
# an agent of somebody: tells its subnet in a folder, routes to the others' (as host-gw does), and masquerades the rest
here=$1 leases=$2 subnet=$3 address=$4 leaving=$5
mkdir -p "$leases"
echo "$subnet $address" > "$leases/.$here" && mv "$leases/.$here" "$leases/$here"
for other in $(ls "$leases"); do
    read -r theirs via < "$leases/$other"
    [ "$other" = "$here" ] || ip route replace "$theirs" via "$via"
done
rule="POSTROUTING -s $HITLESS_NETWORK ! -d $HITLESS_NETWORK -j MASQUERADE"
iptables-nft -t nat -C $rule 2>/dev/null || iptables-nft -t nat -A $rule
touch /run/routing.ready
if [ "$leaving" = cuts ]; then
    trap 'for other in $(ls "$leases"); do read -r theirs via < "$leases/$other"
          [ "$other" = "$here" ] || ip route del "$theirs"; done; sleep 2; exit 0' TERM
else
    trap 'exit 0' TERM
fi
while sleep 0.05; do
    for other in $(ls "$leases"); do
        read -r theirs via < "$leases/$other"
        [ "$other" = "$here" ] || ip route show "$theirs" | grep -q via || ip route replace "$theirs" via "$via"
    done
done
"""


@pytest.fixture
def agent(tmp_path: Path) -> str:
    need(lab.LabPlan(nodes=2, overlay="host-gw"))
    script = tmp_path / "routing.sh"
    script.write_text(AGENT)
    script.chmod(0o755)
    return f"{script} {{node}} {{lease_dir}} {{subnet}} {{public_ip}}"


def test_our_agents_lose_nothing_in_both_families_all_replaced_at_once_and_back(tmp_path: Path) -> None:
    need(lab.LabPlan(nodes=2, family="dual", overlay="vxlan"))
    words = ("--nodes", "2", "--overlay", "vxlan", "--underlay", "routed", "--family", "dual", "--at-once", "2")
    how = ("--agents", "hitless", "--restart", "replace", "--replace-by", "adopter", *SHORT, "--rounds", "2")
    found = hitless("drill", *words, *how, "--out", str(tmp_path / "out")).agent("hitless")
    assert (found["nodes"], found["restarts"]) == (["node0", "node1"], 4)
    assert found["pod_to_pod"]["attempted"] > 200
    assert found["attempted"] > 200
    assert check((found["lost"], found["pod_to_pod"]["lost"]) == (0, 0), busy(found), BUSY_MACHINE), found
    assert check(found["verdict"] == "pass", busy(found), BUSY_MACHINE), found
    assert {one["node"] for one in found["per_round"] if one["pod_to_pod"]["attempted"]} == {"node0", "node1"}
    log = read(tmp_path / "out/events.jsonl").events
    steps = [one for one in log if isinstance(one, e.Restart) and one.step == "started" and one.node == "node1"]
    assert [one.detail.partition(":")[0] for one in steps] == ["hitless", "adopter", "hitless"]
    between = [one for one in log if isinstance(one, e.Attempts) and one.stream == "pods"]
    assert {(one.node, one.family) for one in between} == {(n, f) for n in ("node0", "node1") for f in ("ipv4", "ipv6")}


def test_one_node_whose_agent_removes_its_routes_is_distinguished_from_the_others(agent: str, tmp_path: Path) -> None:
    words = ("--overlay", "host-gw", "--agent-command", f"{agent} keeps", "--agent-command", f"node1={agent} cuts")
    ready = ("--ready-command", "test -e /run/routing.ready")
    done = hitless("drill", *words, *ready, *SHORT, "--out", str(tmp_path / "out"))
    found = done.agent("routing.sh")
    assert (done.code, found["verdict"]) == (1, "fail"), found
    assert found["pod_to_pod"]["lost"] > 10
    assert check(found["lost"] == 0, busy(found), BUSY_MACHINE), found
    assert found["gaps"] == 0
    assert any("pod to pod: lost" in reason for reason in found["reasons"])
    assert done.verdict()["headline"] == "FAIL for routing.sh with routing.sh on node1"


def test_agents_without_an_overlay_end_the_drill_before_any_restart(tmp_path: Path) -> None:
    words = ("--nodes", "2", "--overlay", "vxlan", "--agents", "adopter", "--ready-within", "6")
    done = hitless("drill", *words, *SHORT, "--out", str(tmp_path / "out"))
    found = done.agent("adopter")
    assert (done.code, found["verdict"], found["rounds"]) == (2, "inconclusive", 0)
    assert "node0-pod0 did not reach node1-pod0 by ipv4" in " ".join(found["reasons"])
