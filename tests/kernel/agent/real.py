"""The real kernel behind the same interface as the fake one."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.kernel.nftables.nodes import HANG

from hitless.agent.node import AgentNode
from hitless.kernel import processes
from hitless.kernel.nftables import Mirror, Update
from hitless.model.families import Backend, Family


class RealKernel(AgentNode):
    """A ``Node`` that can also be written to as other programs do."""

    def write(self, backend: Backend, family: Family, text: str) -> None:
        if backend.native:
            processes.run(["nft", "-f", "-"], namespace=self.namespace, stdin=text)
        else:
            program = f"{family.iptables}-{backend.value}-restore"
            processes.run([program, "--noflush", "--wait", "5"], namespace=self.namespace, stdin=text)


def committed(mirror: Mirror) -> Iterator[Update]:
    """Everything that was committed by now, however late the mirror's thread is run."""
    last, end = mirror.committed, time.monotonic() + HANG
    while mirror.generation != last:  # a commit that touched no table of the mirror's families makes no update
        assert time.monotonic() < end, f"the mirror stays at {mirror.generation}, the kernel is at {last}"
        if (update := mirror.next(0.05)) is not None:
            yield update
