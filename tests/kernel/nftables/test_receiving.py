"""The receiving thread ends when it is closed, whatever the kernel still sends."""

from __future__ import annotations

import threading

import pytest
from tests.kernel.nftables.nodes import HANG, Node

from hitless.errors import EventsLostError
from hitless.kernel.clock import Clock
from hitless.kernel.nftables.receiving import Receiver, subscription

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("storm", ["losses only", "losses and data", "data only"])
def test_closing_ends_it_though_the_kernel_never_stops_to_tell(
    node: Node, storm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = Receiver(subscription(node.namespace, 1 << 20), Clock())
    asked = 0

    def receive(*, wait: bool = True) -> bytes | None:
        nonlocal asked
        asked += 1
        if storm == "losses only" or (storm == "losses and data" and asked % 2):
            raise EventsLostError("receive from", "netlink socket", 105)
        return bytes(20)

    monkeypatch.setattr(receiver._socket, "receive", receive)
    receiver.start()
    while asked < 100:
        receiver._thread.join(0.01)
        assert receiver._thread.is_alive()
    closing = threading.Thread(target=receiver.close, daemon=True)
    closing.start()
    closing.join(HANG)
    assert not closing.is_alive()
    assert not receiver._thread.is_alive()
