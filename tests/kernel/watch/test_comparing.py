"""How often the watch compares what it mirrors with the kernel, and how long it waits for what is still to come."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.kernel.nftables.nodes import Node
from tests.kernel.watch.watched import Host, watch_while

from hitless.model.events import Heartbeat, LostEvents, Summary
from hitless.model.families import Backend, Family
from hitless.watch import Watch, WatchOptions, loop
from hitless.watch.feeds import Feed

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(node: Node) -> Host:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    return host


def compared(options: WatchOptions, enough: int) -> int:
    """How often a watch compared until it ended by itself, or had done so often enough."""
    times = 0
    with Watch(options) as watch:
        for event in watch.events():
            times = watch._loop.totals.verified
            if isinstance(event, Heartbeat) and times >= enough:
                watch.stop()
    assert isinstance(event, Summary)
    return times


def slowly(monkeypatch: pytest.MonkeyPatch, wait: Callable[[], object]) -> None:
    """Let each comparison take long."""
    whole = Feed.verify

    def verify(self: Feed, chains: frozenset[tuple[str, str, str]]) -> object:
        wait()
        return whole(self, chains)

    monkeypatch.setattr(Feed, "verify", verify)


def work() -> None:
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass


def test_comparing_has_a_share_of_a_core_and_no_more(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    slowly(monkeypatch, work)  # the next comparison is due after fifteen seconds
    assert compared(host.options(verify_s=0.02, heartbeat_s=0.02, duration_s=0.6), enough=2) == 1


def test_a_stop_in_the_middle_is_no_work_of_comparing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It put off the next comparison by three hundred times its length."""
    slowly(monkeypatch, lambda: time.sleep(0.15))
    assert compared(host.options(verify_s=0.02, heartbeat_s=0.02), enough=3) >= 3


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_a_stop_at_the_very_end_loses_none_of_the_last_commits(
    node: Node, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had come, and were said to be lost, because all the time for them had passed meanwhile."""
    host = Host(node, Family.IPV4, backend)
    host.fill()
    whole = vars(Feed)["behind"].fget

    def stopped(self: Feed) -> bool:
        time.sleep(0.3)
        return bool(whole(self))

    monkeypatch.setattr(loop, "_LAST_S", 0.2)
    monkeypatch.setattr(Feed, "behind", property(stopped))
    seen = watch_while(host.options(), lambda: host.iptables("-t nat -F FLANNEL-POSTRTG"))
    assert seen.states == ["carried", "not_carried"]
    assert not seen.of(LostEvents)
