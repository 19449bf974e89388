"""Two nodes change their backend one after the other while their pods talk: not one answer is missing."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
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


MORE = 60  # answers: those that overtake each other are nearer


class Talk:
    """A pod asks another node's pod two hundred times a second, in one family, until it is told to stop."""

    def __init__(self, made: Ground, version: int) -> None:
        one, other = made.members[0], made.members[1]
        words = ["ping", f"-{version}", "-i0.005", "-W1", other.pod_address(version)]
        self._process = processes.start(processes.command_in(one.pod.namespace, words), stdout=subprocess.PIPE)
        self._answered: list[int] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(rb"bytes from .*seq=(\d+)", line):
                self._answered.append(int(found[1]))

    def goes_on(self) -> int:
        """Wait for more answers; the newest question that was answered before."""
        count, end = len(self._answered), time.monotonic() + HANG
        while len(self._answered) < count + MORE:
            assert time.monotonic() < end, "nothing is answered any more"
            time.sleep(0.01)
        return max(self._answered[:count], default=0)

    def end(self) -> tuple[int, set[int]]:
        """The newest question that was surely answered or lost, and those up to it that were lost."""
        until = self.goes_on()
        self.stop()
        return until, set(range(1, until + 1)) - set(self._answered)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(HANG)
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


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
        with contextlib.ExitStack() as stack:
            talks = [Talk(two, version) for version in (4, 6)]
            for talk in talks:
                stack.callback(talk.stop)
            for talk in talks:
                talk.goes_on()
            for member in two.members:
                member.agents[-1].end(signal.SIGKILL)
                two.start(member, backend=backend).wait_ready(peers=1)
            for talk in talks:
                asked, lost = talk.end()
                assert asked > MORE and not lost, (backend, asked, lost)
    two.all_reach()
