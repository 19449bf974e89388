"""When the kernel drops events, the watch says so, reads everything again, and its answer is right afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.kernel.nftables.nodes import Node, programs
from tests.kernel.nftables.nodes import node as make_node

from hitless.kernel.netlink import Socket
from hitless.model.events import Event, LostEvents, RuleState, Summary
from hitless.model.families import Backend, Family
from hitless.watch import Watch, WatchOptions
from hitless.watch.profiles import load

pytestmark = pytest.mark.kernel

RULES = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
COMMIT
"""
FLOOD = "".join(f"add rule ip noise loud ip daddr 192.0.2.{number % 250} drop\n" for number in range(400))


@pytest.fixture
def node() -> Iterator[Node]:
    programs("iptables-nft-restore", "nft", "unshare")
    with make_node() as made:
        made.run("iptables-nft-restore", stdin=RULES)
        assert made.nft("add table ip noise\nadd chain ip noise loud\n")
        yield made


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether the receiving thread may read: where it reads as fast as the kernel writes, nothing is ever lost."""
    may, receive = threading.Event(), Socket.receive
    may.set()

    def held(self: Socket, *, wait: bool = True) -> bytes | None:
        if threading.current_thread().name == "nftables-events":
            may.wait(20)
        return receive(self, wait=wait)

    monkeypatch.setattr(Socket, "receive", held)
    return may


def test_a_gap_that_was_hidden_in_a_flood_of_events_is_found_by_reading_again(
    node: Node, reading: threading.Event
) -> None:
    options = WatchOptions(
        load("canal"),
        node.namespace,
        networks=(ip_network("10.42.0.0/16"),),
        backends=frozenset({Backend.NFT}),
        families=(Family.IPV4,),
        heartbeat_s=0.05,
        duration_s=20.0,
        receive_buffer=4096,
        urgent=False,
    )
    with Watch(options) as watch:
        seen: list[Event] = []
        flooded = False
        for event in watch.events():
            seen.append(event)
            if isinstance(event, RuleState) and not flooded:
                assert event.state == "carried"
                reading.clear()
                assert node.nft(FLOOD)
                node.iptables("-t", "nat", "-F", "FLANNEL-POSTRTG")
                reading.set()
                flooded = True
            if isinstance(event, RuleState) and event.state == "not_carried":
                watch.stop()
    lost = [event for event in seen if isinstance(event, LostEvents)]
    states = [event.state for event in seen if isinstance(event, RuleState)]
    assert lost and all(event.resynced >= event.t for event in lost)
    assert states == ["carried", "not_carried"]
    assert isinstance(seen[-1], Summary) and seen[-1].totals["lost_events"] == len(lost)
