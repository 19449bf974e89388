"""``hitless agent plan`` and ``cleanup`` know the overlay: devices, routes, neighbours, entries, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.overlay.ground import HITLESS, Ground, Member, conf, ground

from hitless.kernel import processes

pytestmark = pytest.mark.kernel

STATE = "/run/state.json"


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        yield made


def asked(made: Ground, member: Member, verb: str, kind: str = "vxlan") -> dict[str, Any]:
    words = [
        *HITLESS, verb, "--json", f"--net-config={conf({'Type': kind})}", f"--lease-dir={made.directory}",
        f"--node-name={member.name}", "--subnet-file=/run/subnet.env", f"--state-file={STATE}",
        f"--node-subnet=10.42.{member.number}.0/24,fd42:0:0:{member.number}::/64",
    ]  # fmt: skip
    found: dict[str, Any] = json.loads(processes.run(words, namespace=member.namespace).stdout)["overlay"]
    return found


def running(made: Ground, kind: str = "vxlan") -> tuple[Member, Member]:
    for member in made.members:
        made.start(member, f"--state-file={STATE}", backend={"Type": kind})
    for member in made.members:
        member.agents[-1].wait_ready(peers=1)
    one, other = made.members
    return one, other


def test_plan_says_what_a_start_would_do_and_does_nothing(two: Ground) -> None:
    one, other = two.members
    agent = two.start(other, f"--state-file={STATE}")
    agent.wait_ready(peers=0)
    before, files = one.state(), sorted(path.name for path in two.directory.iterdir())
    found = asked(two, one, "plan")
    assert {(each["verb"], each["kind"]) for each in found["changes"]} == {
        ("add", kind) for kind in ("device", "address", "route", "neighbour", "forwarding")
    }
    assert "route 10.42.2.0/24 via 10.42.2.0 dev flannel.1" in {each["what"] for each in found["changes"]}
    assert one.state() == before and sorted(path.name for path in two.directory.iterdir()) == files
    assert one.node.run("ls", STATE, check=False) == ""
    two.start(one, f"--state-file={STATE}").wait_ready(peers=1)
    assert asked(two, one, "plan")["changes"] == []
    one.ip("route del 10.42.2.0/24")
    one.agents[-1].wait(lambda: one.agents[-1].events("overlay repaired"), "the repair")
    assert asked(two, one, "plan") == {"changes": [], "files": [], "notes": []}


@pytest.mark.parametrize("kind", ["vxlan", "host-gw"])
def test_cleanup_takes_all_of_it_and_nothing_else(two: Ground, kind: str) -> None:
    one, _ = two.members
    before = one.state()
    one, _ = running(two, kind)
    one.agents[-1].end()
    for words in (
        "route add 10.42.77.0/24 via 192.0.2.9", "route add 203.0.113.0/24 via 192.0.2.9",
        "link add vxlan.foreign type vxlan id 9 dstport 4790",
    ):  # fmt: skip
        one.ip(words)
    found = asked(two, one, "cleanup", kind)
    assert found["files"] == ["/run/subnet.env", STATE] and found["notes"] == []
    left = [line for line in one.state() if "foreign" not in line and "192.0.2.9" not in line]
    assert left == before
    assert "vxlan.foreign" in one.ip("link") and one.ip("route").count("via 192.0.2.9") == 2
    assert asked(two, one, "cleanup", kind) == {"changes": [], "files": [], "notes": []}
    assert (two.directory / "node1.json").exists()  # what peers are told is the source's


def test_cleanup_leaves_a_device_that_may_be_flannelds(two: Ground) -> None:
    one, _ = running(two)
    one.agents[-1].end()
    one.node.run("rm", STATE)
    before = one.state()
    found = asked(two, one, "cleanup")
    assert found["changes"] == [] and len(found["notes"]) == 2 and "ip link del flannel.1" in found["notes"][0]
    assert one.state() == before
