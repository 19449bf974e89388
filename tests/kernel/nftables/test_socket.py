"""The socket that every port to the kernel shares."""

from __future__ import annotations

import threading

import pytest
from tests.kernel.nftables.nodes import HANG, Node

from hitless.kernel.netlink import NETFILTER, Socket
from hitless.kernel.nftables import wire

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("timeout", [None, 0, 10 * HANG])
def test_who_does_not_want_to_wait_does_not_wait_whatever_the_timeout_is(node: Node, timeout: float | None) -> None:
    with Socket(NETFILTER, node.namespace, groups=(wire.EVENTS,), timeout=timeout) as socket:
        answers: list[bytes | None] = []
        asking = threading.Thread(target=lambda: answers.append(socket.receive(wait=False)), daemon=True)
        asking.start()
        asking.join(HANG)
        assert answers == [None]
        assert node.nft("add table ip somebody")
        assert socket.receive(wait=False)
