from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.probe.probe_world import World
from tests.kernel.probe.probe_world import world as make_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with make_world(tmp_path) as made:
        yield made
