from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.agent.real import RealKernel
from tests.kernel.nftables.nodes import Node, node, programs


@pytest.fixture
def place() -> Iterator[Node]:
    programs("nft", "iptables-nft", "iptables-legacy", "unshare", "nsenter")
    with node() as made:
        yield made


@pytest.fixture
def kernel(place: Node) -> Iterator[RealKernel]:
    made = RealKernel(place.namespace)
    yield made
    made.close()
