"""Killed before and after writes on a real kernel: a sample of ``bench/deaths.py``, which tries all of them."""

from __future__ import annotations

import pytest
from tests.kernel.overlay.deaths import STORIES, place, tried

pytestmark = pytest.mark.kernel

SAMPLE = {"first start": 9, "devices deleted": 9, "port": 20, "vxlan to host-gw": 3, "a peer's hardware address": 3}
"""Every so many of the writes."""


@pytest.mark.parametrize("name", SAMPLE)
def test_the_next_start_makes_good_what_a_killed_agent_left(name: str) -> None:
    with place() as node:
        found = tried(node, name, SAMPLE[name])
    assert found.wrong == () and found.deaths > 0
    assert len(STORIES) > len(SAMPLE)
