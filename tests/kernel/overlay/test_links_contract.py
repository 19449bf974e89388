"""The fake kernel of links and the real one do the same: every story, after every write, and what events say of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.contract.link_stories import CONNECTED, SCOPE, STORIES, play, seen
from tests.kernel.nftables.nodes import HANG, Node, node, programs

from hitless.agent.overlay.mirror import LinkMirror
from hitless.kernel.links import Links
from hitless.model.links import LinkObject, LinkState
from hitless.testing.fake_links import FakeLinks

pytestmark = pytest.mark.kernel


@pytest.fixture
def place() -> Iterator[Node]:
    programs("ip")
    with node() as made:
        lines = "link add eth0 type veth peer name other\nlink set other up\nlink set eth0 up\n"
        made.run(
            "ip", "-batch", "-", stdin=f"{lines}addr add 192.0.2.1/24 dev eth0\naddr add fd00::1/64 dev eth0 nodad\n"
        )
        yield made


@pytest.mark.parametrize("name", STORIES)
def test_the_fake_kernel_does_as_the_real_one_and_events_tell_it_all(place: Node, name: str) -> None:
    fake, mirror, mirrored = FakeLinks(CONNECTED), LinkMirror(), LinkMirror()
    after: list[dict[object, LinkObject]] = []
    told = play(fake, STORIES[name], lambda _, state: after.append(seen(state)))
    with Links(place.namespace) as links:
        list(links.events(SCOPE))
        mirror.replace(links.observe(SCOPE))

        def check(number: int, state: LinkState) -> None:
            assert seen(state) == after[number], f"after write {number}"
            end = time.monotonic() + HANG
            while True:  # an IPv6 address is there before its event
                mirror.update(links.events(SCOPE))
                if mirror.whole:  # it says itself that only a full read can tell
                    mirror.replace(state)
                if seen(LinkState(mirror.objects)) == after[number] or time.monotonic() > end:
                    break
                time.sleep(0.01)
            assert seen(LinkState(mirror.objects)) == after[number], f"by events, after write {number}"

        assert play(links, STORIES[name], check) == told
    again = FakeLinks(CONNECTED)
    mirrored.replace(again.observe(SCOPE))

    def follow(number: int, state: LinkState) -> None:
        mirrored.update(again.events(SCOPE))
        if mirrored.whole:
            mirrored.replace(state)
        assert seen(LinkState(mirrored.objects)) == after[number]

    play(again, STORIES[name], follow)
