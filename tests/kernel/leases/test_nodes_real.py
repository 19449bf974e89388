"""Leases from Kubernetes, against a real API server with flannel's rights and no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.contract.leases.clusters import Cluster
from tests.contract.leases.node_stories import *  # noqa: F403 - the contract's tests
from tests.kernel.leases.api_server_real import real

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with real() as made:
        yield made


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    shared.clear()
