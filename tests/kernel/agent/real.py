"""The real kernel behind the same interface as the fake one."""

from __future__ import annotations

from hitless.agent.node import Node
from hitless.kernel import iptables
from hitless.model.families import Backend, Family


class RealKernel(Node):
    """A ``Node`` that can also be written to as other programs do."""

    def write(self, backend: Backend, family: Family, text: str) -> None:
        if backend is Backend.NFTABLES:
            iptables.batch(text, namespace=self.namespace)
        else:
            iptables.restore(f"{family.iptables}-{backend.value}-restore", text, namespace=self.namespace)
