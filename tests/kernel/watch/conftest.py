from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.nftables.nodes import Node, programs
from tests.kernel.watch.watched import node as make_node


@pytest.fixture
def node() -> Iterator[Node]:
    programs("nft", "iptables-nft", "ip6tables-nft", "iptables-legacy", "ip", "unshare", "nsenter")
    with make_node() as made:
        yield made
