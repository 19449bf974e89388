"""Two nodes change their backend one after the other while their pods talk: not one answer is missing."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.overlay.ground import HANG, Ground, ground

from hitless.kernel import processes

pytestmark = pytest.mark.kernel

CHAIN: list[dict[str, object]] = [
    {"Type": "vxlan", "VNI": 7, "MTU": 1400},
    {"Type": "host-gw"},
    {"Type": "vxlan", "DirectRouting": True},
]


class Talk:
    """A pod asks another node's pod two hundred times a second, in one family, until it is told to stop."""

    def __init__(self, made: Ground, version: int) -> None:
        one, other = made.members[0], made.members[1]
        words = ["ping", f"-{version}", "-i0.005", "-W1", "-q", other.pod_address(version)]
        self._process = processes.start(processes.command_in(one.pod.namespace, words), stdout=subprocess.PIPE)

    def end(self) -> tuple[int, int]:
        """Sent and answered."""
        self._process.send_signal(signal.SIGINT)
        said = self._process.communicate(timeout=HANG)[0].decode()
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found, said
        return int(found[1]), int(found[2])


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        yield made


def test_backends_change_under_traffic_and_no_answer_is_missing(two: Ground) -> None:
    for member in two.members:
        two.start(member)
    for member in two.members:
        member.agents[-1].wait_ready(peers=1)
    two.all_reach()
    for backend in CHAIN:
        talks = [Talk(two, version) for version in (4, 6)]
        for member in two.members:
            member.agents[-1].end(signal.SIGKILL)
            two.start(member, backend=backend).wait_ready(peers=1)
        for talk in talks:
            sent, answered = talk.end()
            # the last question may still be on its way
            assert sent > 20 and sent - answered <= 1, (backend, sent, answered)
    two.all_reach()
