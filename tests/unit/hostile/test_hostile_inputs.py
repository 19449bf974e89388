"""A short attack on every door; ``bench/hostile.py`` makes the long one."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.hostile.doors import doors
from tests.unit.hostile.mutating import Target, attack

INPUTS = 1000
SLOWLY_READ = ("kubeconfig (tools)", "kubeconfig (agent)", "watch profile")  # a YAML or TOML reader in Python
SLOW_S = 2.0  # of processor time, for one input of at most 64 KB

SHARED = Path("/dev/shm")
FOLDER = (SHARED if SHARED.is_dir() else Path(tempfile.gettempdir())) / f"hitless-doors-{uuid.uuid4().hex}"
DOORS = list(doors(FOLDER))
SEED = "the same for everybody" if "CI" in os.environ or "REQUIRE_KERNEL" in os.environ else os.urandom(8).hex()


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    """Not made at import: what is, goes when a child that any other test forked ends."""
    FOLDER.mkdir(mode=0o700)
    yield
    shutil.rmtree(FOLDER)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_whatever_comes_in_raises_nothing_but_our_errors_and_takes_no_time(door: Target) -> None:
    inputs = INPUTS // 5 if door.name in SLOWLY_READ else INPUTS
    result = attack(door, inputs, SEED)
    assert not result.failures, (SEED, result.failures)
    assert result.slowest_s < SLOW_S, (SEED, result.slowest)
    assert result.inputs == inputs


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_the_good_examples_are_good(door: Target) -> None:
    """Else an attack would change what is refused at its first byte."""
    good = 0
    for seed in door.seeds:
        try:
            door.take(seed)
        except door.allowed:
            continue
        good += 1
    assert good
