"""The real node: reads by netlink and getsockopt, and runs one program for each transaction that it writes.

Two readers, for two threads. ``AgentNode`` reads only the chains that a plan and healing need (``observer``), each time
again, within milliseconds. ``AllRules`` reads the rules of all programs by the observer of guard and watch
(``hitless.observe.rules``), which starts at the first call and is kept current by events; with 50,000 rules that first
read takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Self

from hitless.agent.observer import Observer
from hitless.kernel import iptables
from hitless.kernel.addresses import NodeFacts
from hitless.kernel.chains import ChainName
from hitless.kernel.conntrack import Conntrack
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.families import Backend, Family, KernelPath
from hitless.model.rules import Ruleset
from hitless.model.state import NodeState
from hitless.observe import LiveNode
from hitless.plan import PlannedTransaction

if TYPE_CHECKING:
    from hitless.observe.rules import RulesObserver

__all__ = ["HINTS", "AgentNode", "AllRules"]

HINTS = ("KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY")
"""Chains that the kubelet creates in the mangle table of its backend (kubernetes-sigs/iptables-wrappers)."""


class AgentNode:
    """Our rules in one namespace. One thread at a time. ``commands``: how many programs were run."""

    def __init__(self, namespace: Namespace = HERE, *, lock_wait: int = 5) -> None:
        self.namespace = namespace
        self._lock_wait = lock_wait
        self._observer = Observer(namespace)
        self._surroundings: NodeSurroundings | None = None
        self.commands = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets; the rules stay."""
        self._observer.close()
        if self._surroundings is not None:
            self._surroundings.close()

    @property
    def generation(self) -> int:
        """The nf_tables generation that the last observation belongs to."""
        return self._observer.generation

    def has_legacy(self) -> bool:
        """Whether there are legacy tables."""
        return self._observer.has_legacy()

    def observe(self, families: Collection[Family]) -> NodeState:
        """The rules at every place of these families, in every backend."""
        return self._observer.observe(families)

    def apply(self, transaction: PlannedTransaction) -> None:
        """Commit one transaction; the xtables lock is held by the program alone, and only while it writes."""
        self.commands += 1
        if transaction.backend.native:
            iptables.batch(transaction.text, namespace=self.namespace)
        else:
            iptables.restore(transaction.program, transaction.text, namespace=self.namespace, lock_wait=self._lock_wait)

    def egress(self, families: Collection[Family]) -> Ruleset:
        """The chains that a forwarded packet passes near ours; sets are not read."""
        if self._surroundings is None:
            self._surroundings = NodeSurroundings(self.namespace)
        self._surroundings.refresh()
        return Ruleset(self._observer.egress_rules(families).tables, self._surroundings)

    def conntrack(self) -> Conntrack:
        """Open the connection table."""
        return Conntrack(self.namespace)

    def facts(self) -> NodeFacts:
        """Open the addresses and routes."""
        return NodeFacts(self.namespace)

    def around(self, families: tuple[Family, ...]) -> LiveNode:
        """Open the view of the node's pods and uplink."""
        return LiveNode(self.namespace, families)

    def hinted(self) -> Backend | None:
        """The iptables backend in which the kubelet left its hints; ``None`` where it left none."""
        for backend in Backend:
            if not backend.native and any(self._hints(backend.path, family) for family in Family):
                return backend
        return None

    def _hints(self, path: KernelPath, family: Family) -> bool:
        if path is KernelPath.NF_TABLES:
            return any(self._observer.has_chain(ChainName(family.nft, "mangle", hint)) for hint in HINTS)
        table = self._observer.legacy_table(family, "mangle")
        return table is not None and any(hint in table.chains for hint in HINTS)

    def detect(self) -> Backend:
        """The backend with the kubelet's hints; else the one with more rules (as iptables-wrappers does for old
        kubelets); else nft.

        Rules count, not chains: ``iptables-legacy -L`` creates empty tables with a dozen chains. No program is run and
        no table is created.
        """
        hinted = self.hinted()
        if hinted is not None:
            return hinted
        legacy = self._observer.rule_count(legacy=True)
        more = legacy and legacy > self._observer.rule_count(legacy=False)
        return Backend.of(KernelPath.XTABLES if more else KernelPath.NF_TABLES, native=False)

    def knows_random_fully(self, backend: Backend) -> bool:
        """Runs a program; needed only when something is to be written."""
        if backend.native:
            return True
        self.commands += 1
        return iptables.knows_random_fully(backend.tool(Family.IPV4), namespace=self.namespace)


class AllRules:
    """The rules of all programs in one namespace. For one thread, which need not be that of ``AgentNode``. ``give_way``
    is called between the pieces of a long read, and may wait for something more urgent."""

    def __init__(self, namespace: Namespace = HERE, give_way: Callable[[], None] | None = None) -> None:
        self._namespace, self._give_way = namespace, give_way
        self._rules: RulesObserver | None = None

    def close(self) -> None:
        """Stop observing."""
        if self._rules is not None:
            self._rules.close()

    def everything(self, families: Collection[Family]) -> Ruleset:
        """All rules that a pod's packet to the outside may meet, with sets and facts of the node."""
        if self._give_way is not None:
            self._give_way()  # legacy tables are read in one piece
        return self._following(families).now(families)

    def changed(self, families: Collection[Family]) -> bool:
        """Whether rules of nf_tables, or facts of the node, have changed since the last call. Legacy tables are not
        compared."""
        return self._following(families).settle()

    def around(self, families: tuple[Family, ...]) -> LiveNode:
        """Open the view of the node's pods and uplink."""
        return LiveNode(self._namespace, families)

    def _following(self, families: Collection[Family]) -> RulesObserver:
        found = self._rules
        if found is None or not set(families) <= set(found.families):
            wanted = tuple(family for family in Family if family in families or (found and family in found.families))
            if found is not None:
                found.close()
            # 30 ms: no start waits for them in this thread
            from hitless.kernel.nftables.mirror import Sockets
            from hitless.observe.rules import RulesObserver

            sockets = Sockets(self._namespace, self._give_way)
            found = self._rules = RulesObserver(wanted, self._namespace, follow_legacy=False, sockets=sockets)
        return found
