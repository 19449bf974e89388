"""``hitless doctor`` on a node: what it says of real rules in both iptables backends, and that it changes nothing."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.nftables.nodes import Node, programs
from tests.kernel.nftables.nodes import node as make_node

from hitless.kernel import processes

pytestmark = pytest.mark.kernel

FLANNEL = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
COMMIT
"""


@pytest.fixture
def node() -> Iterator[Node]:
    programs("iptables-nft-restore", "iptables-legacy-restore", "ip", "unshare")
    with make_node() as made:
        uplink = "ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up"
        pods = "ip link add cali1 type veth peer name pod && ip link set cali1 up && ip link set pod up"
        address = "ip addr add 192.0.2.2/24 dev eth0 && ip route add default via 192.0.2.1"
        made.run("sh", "-c", f"{uplink} && {pods} && {address} && sysctl -qw net.ipv4.ip_forward=1")
        yield made


def doctor(node: Node, *words: str) -> dict[str, Any]:
    line = [sys.executable, "-P", "-m", "hitless", "doctor", "--json", *words]
    done = processes.run(line, namespace=node.namespace, check=False)
    assert done.returncode in (0, 1, 2), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == {"ok": 0, "problem": 1, "unknown": 2}[told["verdict"]]
    return {
        "verdict": told["verdict"],
        "next": told["next"],
        "summary": told["summary"],
        **{one["id"]: one for one in told["findings"]},
    }


def state(node: Node) -> list[str]:
    """All rules and links, without counters."""
    commands = (["iptables-nft-save"], ["iptables-legacy-save"], ["nft", "list", "ruleset"], ["ip", "-br", "link"])
    told = [node.run(*one, check=False) for one in commands]
    return [line for text in told for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_egress_is_told_from_the_rules_that_stand_and_an_emptied_chain_is_a_problem(node: Node, backend: str) -> None:
    node.run(f"iptables-{backend}-restore", stdin=FLANNEL)
    before = state(node)
    told = doctor(node)
    assert told["egress"]["state"] == "ok"
    assert "FLANNEL-POSTRTG rule 1" in told["egress"]["text"]
    assert f"iptables-{backend} (nat)" in told["backends"]["text"]
    assert told["forwarding"]["state"] == "ok"
    assert told["guard"]["command"] == "hitless guard --observe"
    assert state(node) == before, "a look changes nothing"
    node.run(f"iptables-{backend}", "-t", "nat", "-F", "FLANNEL-POSTRTG")
    told = doctor(node)
    assert told["verdict"] == "problem"
    assert "FLANNEL-POSTRTG stands and is empty" in told["egress"]["text"]
    assert told["summary"].startswith("pods are cut off from the outside now")
    told = doctor(node, "--network", "10.42.0.0/16")
    assert told["egress"]["state"] == "problem"
    assert told["next"].startswith("hitless watch")


def test_flannels_native_tables_are_found_without_a_profile(node: Node) -> None:
    node.run(
        "nft", "-f", "-",
        stdin="table ip flannel-ipv4 {\nchain postrtg {\ntype nat hook postrouting priority srcnat; policy accept;\n"
        "ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade\n}\n}\n",
    )  # fmt: skip
    assert doctor(node)["egress"]["state"] == "ok"


def test_a_node_without_forwarding_and_one_with_two_backends_are_told(node: Node) -> None:
    for backend in ("nft", "legacy"):
        node.run(f"iptables-{backend}-restore", stdin=FLANNEL)
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    told = doctor(node)
    assert told["backends"]["state"] == "note"
    assert told["forwarding"]["state"] == "problem"
    assert told["forwarding"]["command"] == "sysctl -w net.ipv4.ip_forward=1"


def test_a_masked_bundle_holds_the_rules_and_none_of_the_addresses(node: Node, tmp_path: Path) -> None:
    node.run("iptables-nft-restore", stdin=FLANNEL)
    path = tmp_path / "bundle.tgz"
    doctor(node, "--bundle", str(path), "--mask")
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as packed:
        parts = {one.name: packed.extractfile(one).read().decode() for one in packed.getmembers()}  # type: ignore[union-attr]
    rules = parts["hitless-doctor/rules/iptables-nft.txt"]
    assert "FLANNEL-POSTRTG" in rules
    assert "MASQUERADE" in rules
    assert "192.0.2.2" not in "".join(parts.values())
    assert "10.42.0.0" not in "".join(parts.values())
