"""What the agent needs of a node's rules: the few methods that the real kernel and the fake one share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset
from hitless.model.state import NodeState
from hitless.plan import Transaction

__all__ = ["RulesPort"]


class RulesPort(Protocol):
    """Rules of one node. Real: ``hitless.agent.node.Node``; fake: ``hitless.testing.FakeKernel``."""

    def observe(self, families: Collection[Family]) -> NodeState:
        """What stands at every place of these families, in every backend."""

    def apply(self, transaction: Transaction) -> None:
        """Commit one transaction, whole or not at all; raises ``ProgramError`` (``LockBusy``, ``NotSupported``)."""

    def egress(self, families: Collection[Family]) -> Ruleset:
        """The rules that a pod's packet to the outside passes, for the evaluator."""

    def detect(self) -> Backend:
        """The iptables backend that the kubelet and kube-proxy use."""

    def knows_random_fully(self, backend: Backend) -> bool:
        """Whether MASQUERADE --random-fully can be had."""
