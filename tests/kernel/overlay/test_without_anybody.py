"""A start while the source of leases is away: what was true last is repaired, and nothing is removed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.kernel.agent.nodes import readyz
from tests.kernel.overlay.ground import HANG, ground

pytestmark = pytest.mark.kernel


def numberless(state: list[str]) -> list[str]:
    """A device that was made again has another number, and other addresses of the kernel's own."""
    return sorted(line.partition(": ")[2] or line for line in state if "fe80" not in line and "inet6" not in line)


def test_a_start_while_the_leases_are_away_repairs_what_was_true_last(tmp_path: Path) -> None:
    directory = tmp_path / "leases"
    with ground(directory) as two:
        one, other = two.members
        first = two.start(one, "--state-file=/run/state.json")
        two.start(other).wait_ready(peers=1)
        first.wait_ready(peers=1)
        before = numberless(one.state())
        first.end()
        held = one.node.run("cat", "/run/state.json")
        assert '"node2"' in held
        directory.rename(tmp_path / "away")
        directory.write_text("")  # so that it cannot be made again either
        one.ip("link del flannel.1")
        one.ip("-6 route del fd42:0:0:2::/64")
        second = two.start(one, "--state-file=/run/state.json")
        end = time.monotonic() + HANG
        while numberless(one.state()) != before:
            assert time.monotonic() < end, set(numberless(one.state())) ^ set(before)
            time.sleep(0.05)
        two.all_reach()

        def told() -> bool:
            status, body = readyz(one.namespace)
            return status == 200 and any(words.startswith("leases: ") for words in body["cannot_tell"])

        second.wait(told, "readiness, and what cannot be told")
        directory.unlink()
        (tmp_path / "away").rename(directory)
        second.wait_ready(peers=1)
        assert numberless(one.state()) == before


def test_a_state_file_that_is_not_whole_is_named_and_not_used(tmp_path: Path) -> None:
    with ground(tmp_path / "leases", 1) as made:
        (one,) = made.members
        one.node.run("sh", "-c", "echo '{\"version\": 1' > /run/state.json")
        agent = made.start(one, "--state-file=/run/state.json")
        agent.wait_ready(peers=0)
        assert any("it is not used" in str(said) for said in agent.said)
