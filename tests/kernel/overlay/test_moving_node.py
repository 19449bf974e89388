"""A node's own address, outer interface and its MTU change while the agent runs: nobody has to restart it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.kernel.agent.nodes import readyz
from tests.kernel.overlay.ground import HANG, Ground, Member, batch, connect, ground

pytestmark = pytest.mark.kernel


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        yield made


def started(made: Ground, *more: str, kind: str = "vxlan") -> tuple[Member, Member]:
    for member in made.members:
        made.start(member, *more, backend={"Type": kind})
    for member in made.members:
        member.agents[-1].wait_ready(peers=1)
    one, other = made.members
    return one, other


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def reach(made: Ground) -> None:
    one, other = made.members
    for version in (4, 6):
        for here, there in ((one, other), (other, one)):
            until(partial(made.reached, here, there, version), f"{here.name} to {there.name}, IPv{version}")


def test_a_node_gets_another_address(two: Ground) -> None:
    one, other = started(two, "--iface=eth0")
    index = one.ip("-o link show flannel.1").partition(":")[0]
    # as a DHCP client does: the old one goes, the new one comes, in both families one after the other
    for words in (
        "addr del 192.0.2.1/24 dev eth0", "addr add 192.0.2.31/24 dev eth0", "route add default via 192.0.2.254",
    ):  # fmt: skip
        one.ip(words)
    # and here so late that nobody can take it for one change: meanwhile only the link-local address is there
    one.ip("addr del fd00::1/64 dev eth0")
    until(lambda: "fd00::1 is no longer on eth0" in str(one.agents[-1].said), "it is said that it is away")
    for words in ("addr add fd00::31/64 dev eth0 nodad", "route replace default via fd00::ff"):
        one.ip(words)
    until(lambda: "dst 192.0.2.31 " in other.node.run("bridge", "fdb"), "the peer hears of it")
    until(lambda: "dst fd00::31 " in other.node.run("bridge", "fdb"), "in IPv6 as well")
    reach(two)
    # the device was changed in place
    assert one.ip("-o link show flannel.1").partition(":")[0] == index
    assert "local 192.0.2.31 " in one.ip("-d link show flannel.1")
    until(lambda: one.agents[-1].metric("hitless_overlay_outer_changes_total") >= 1, "it is counted")


def test_one_more_address_moves_nobody_and_a_moment_without_it_neither(two: Ground) -> None:
    one, _ = started(two)
    before = (two.directory / "node1.json").stat().st_mtime_ns
    one.ip("addr add 192.0.2.77/24 dev eth0")
    batch(one.node, "addr del 192.0.2.1/24 dev eth0\naddr add 192.0.2.1/24 dev eth0\n")  # within a second
    one.ip("route replace default via 192.0.2.254")
    one.ip("link set eth0 mtu 1400")  # this one is followed, so that we know that the others were seen
    until(lambda: "mtu 1350" in one.ip("link show flannel.1"), "the smaller MTU")
    until(lambda: "FLANNEL_MTU=1330\n" in one.node.run("cat", "/run/subnet.env"), "the pods' MTU")
    assert "local 192.0.2.1 " in one.ip("-d link show flannel.1")
    assert (two.directory / "node1.json").stat().st_mtime_ns == before
    reach(two)


@pytest.mark.parametrize("kind", ["vxlan", "host-gw"])
def test_the_outer_interface_is_made_anew(two: Ground, kind: str) -> None:
    one, _ = started(two, "--iface=eth0", kind=kind)
    one.ip("link del eth0")
    until(lambda: readyz(one.namespace)[0] == 503, "it is said that there is none")
    connect(two.switch, one.number, one.node)
    until(lambda: readyz(one.namespace)[0] == 200, "it is ready again")
    reach(two)
    one.ip("link set eth0 down")
    one.ip("link set eth0 up")
    for words in ("addr replace fd00::1/64 dev eth0 nodad", "route replace default via 192.0.2.254"):
        one.ip(words)
    reach(two)
