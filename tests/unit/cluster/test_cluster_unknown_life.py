"""A drill's process that cannot be looked at is not dead: what is dead is removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hitless.cluster import heartbeat
from hitless.kube.objects import ConfigMap


def owner() -> ConfigMap:
    """What this very process would write as a driver."""
    return ConfigMap(data=heartbeat.driver())


def test_a_process_that_runs_is_alive_and_one_of_another_start_is_dead() -> None:
    assert heartbeat.here(owner()) == "alive"
    words = heartbeat.driver()[heartbeat._PROCESS].split()
    other = {heartbeat._PROCESS: " ".join([*words[:3], "1"])}
    assert heartbeat.here(ConfigMap(data=other)) == "dead"


@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(5, "I/O"), FileNotFoundError(2, "hidden")])
def test_a_process_that_cannot_be_looked_at_is_unknown(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    data = owner()

    def hidden(*_: Any) -> str:
        raise error

    monkeypatch.setattr(heartbeat, "_start", hidden)
    assert heartbeat.here(data) == "unknown"  # this process lives, whatever /proc shows of it


def test_a_process_that_is_gone_is_dead(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    words = heartbeat.driver()[heartbeat._PROCESS].split()
    gone = ConfigMap(data={heartbeat._PROCESS: " ".join([*words[:2], str(child), words[3]])})
    assert heartbeat.here(gone) == "dead"
