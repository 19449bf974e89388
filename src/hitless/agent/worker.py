"""All that the agent does to the kernel, in one thread.

Problem: waiting for a lock or a long dump must not delay /healthz, and a netlink socket belongs to one thread. Promise:
``RulesWorker`` holds the node, its connection table, addresses and routes, and is called from one thread only, the
runtime's. It does not decide when to do something, and removes nothing on its own. The rules of all programs are read
in another thread, by ``judge``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from hitless.agent.egress import Egress, EgressStatus, Opened, was_open
from hitless.agent.ports import AgentClock, AgentNodePort, ClosingConntrack, FactsPort
from hitless.agent.reconciliation import Pass, plan_pass, reconcile
from hitless.desired import desired_state
from hitless.errors import HitlessError, MissingError
from hitless.heal import heal
from hitless.model.families import Backend, Family, Network, within
from hitless.model.rules import Masquerade, Source
from hitless.model.state import NodeState, Purpose
from hitless.plan import Plan, bridge, plan, torn
from hitless.sources import FamilyNetworks, SourceSnapshot

__all__ = ["PassResult", "RulesWorker"]


@dataclass(frozen=True, slots=True)
class PassResult:
    """One pass, and its circumstances. Times are monotonic seconds; ``ended``: when the rules were right. ``opened``:
    families whose pods had no egress when it began. ``healed``: flows that were freed right after rules were written
    (``None``: none were written, or it failed with ``heal_error``). ``legacy``: there are legacy tables. ``bridged``:
    whole tables were flushed, and a separate table carries the pods. ``bridge_error``: why that is impossible here."""

    result: Pass
    backend: Backend
    begun: float
    ended: float
    first_generation: int
    generation: int
    opened: Mapping[Family, Opened] = field(default_factory=dict)
    draining: tuple[Network, ...] = ()
    legacy: bool = False
    healed: Mapping[Family, int] | None = None
    heal_error: str = ""
    bridged: bool = False
    bridge_error: str = ""


class RulesWorker:
    """One thread at a time."""

    def __init__(self, node: AgentNodePort, backend: Backend | None, clock: AgentClock) -> None:
        self._node, self._clock = node, clock
        self._chosen = backend
        self._conntrack: ClosingConntrack | None = None
        self._facts: FactsPort | None = None
        self._random_fully: bool | None = None
        self._bridges = True

    @property
    def commands(self) -> int:
        """How many programs were run."""
        return self._node.commands

    def close(self) -> None:
        """Close all sockets; the kernel keeps everything."""
        self._node.close()
        for port in (self._conntrack, self._facts):
            if port is not None:
                port.close()

    def backend(self, *, native: bool, current: Backend | None = None) -> Backend:
        """Where rules are written: the backend of the options, else that of net-conf.json (EnableNFTables), else the
        kubelet's.

        A ``current`` choice is changed by the kubelet's own hints only, not by counting chains, ours among them.
        """
        if self._chosen is not None:
            return self._chosen
        if native:
            return Backend.NFTABLES  # what flannel means by EnableNFTables
        if current is None or current.native:
            return self._node.detect()
        return self._node.hinted() or current

    def run_pass(
        self,
        snapshot: SourceSnapshot,
        backend: Backend,
        *,
        heal: bool = False,
        may_bridge: bool = False,
        must_bridge: bool = False,
    ) -> PassResult:
        """One pass. ``heal``: after rules were written, free at once what was bound without them; this comes before
        everything that is only reported, because flows wait for it. ``may_bridge``: where whole tables were flushed,
        carry the pods by a separate table instead; ``must_bridge``: go on with that."""
        begun = self._clock.monotonic()
        families = tuple(snapshot.networks)
        before = self._node.observe(families)
        first = self._node.generation
        wanted = self.with_draining(snapshot, before)
        passed, bridge_error = None, ""
        if self._bridges and (must_bridge or may_bridge) and _needs_bridge(wanted, backend, before, must_bridge):
            passed, bridge_error = self._bridge(wanted, backend, before)
        bridged = passed is not None
        # a bridge that failed took the time of some programs, in which others may have written
        read = None if bridge_error else before
        result = passed or reconcile(self._node, wanted, backend, observed=read, random_fully=self._random_fully)
        ended = self._clock.monotonic()
        if not bridged and result.settled and (result.applied or not result.random_fully):
            self._random_fully = result.random_fully
        healed, heal_error = None, ""
        if heal and result.applied and result.settled:
            try:
                healed = self.heal(snapshot, result.written)
            except HitlessError as error:
                heal_error = str(error)
        opened = was_open(before, wanted) if result.found.transactions else {}
        draining = tuple(network for networks in wanted.networks.values() for network in networks.draining)
        generation, legacy = self._node.generation, self._node.has_legacy()
        return PassResult(
            result, backend, begun, ended, first, generation, opened, draining, legacy, healed, heal_error, bridged,
            bridge_error,
        )  # fmt: skip

    def _bridge(self, wanted: SourceSnapshot, backend: Backend, observed: NodeState) -> tuple[Pass | None, str]:
        """Carry the pods by a separate table; ``None`` and the reason where nft or the kernel cannot."""
        known = self._random_fully is not False  # native nftables always knows it: no program is run to find out
        try:
            result = reconcile(self._node, wanted, backend, observed=observed, random_fully=known, how=bridge)
        except MissingError as error:
            self._bridges = False
            return None, str(error)
        stuck = result.left.transactions[:1]
        if result.error is not None and any(one.backend.native for one in stuck):
            self._bridges = False
            return None, str(result.error)
        return result, ""

    def evaluate_near(self, snapshot: SourceSnapshot) -> Mapping[Family, EgressStatus]:
        """What our chains, and those that a packet passes near them, do to each family's pods. Only "not carried" is
        certain. For the time until the rules of all programs are read."""
        around = self._node.around(tuple(snapshot.networks))
        try:
            return {
                family: Egress().ask(self._node.egress((family,)), networks, around, masquerade=snapshot.masquerade)
                for family, networks in snapshot.networks.items()
            }
        finally:
            around.close()

    def plan(self, snapshot: SourceSnapshot, backend: Backend) -> Plan:
        """What a pass would do."""
        return plan_pass(
            self._node, self.with_draining(snapshot, self._node.observe(tuple(snapshot.networks))), backend
        )

    def heal(self, snapshot: SourceSnapshot, families: Collection[Family]) -> Mapping[Family, int]:
        """Free the poisoned flows of these families, where they are masqueraded; how many there were. The kernel walks
        its whole connection table for each family."""
        if not snapshot.masquerade:
            return {}
        if self._conntrack is None:
            self._conntrack = self._node.conntrack()
        facts = self._node_facts()
        found: dict[Family, int] = {}
        for family, networks in snapshot.networks.items():
            if family not in families:
                continue
            found[family] = heal(
                self._conntrack,
                family,
                (networks.subnet, *networks.draining),
                (networks.network, *networks.draining),
                lambda family=family: facts.addresses(family),  # type: ignore[misc]  # bound at once
                lambda family=family: self._node.egress((family,)),  # type: ignore[misc]  # bound at once
                lambda family=family: facts.paths(family),  # type: ignore[misc]  # bound at once
            )
        return found

    def with_draining(self, snapshot: SourceSnapshot, observed: NodeState) -> SourceSnapshot:
        """The snapshot with the networks of an earlier configuration in which pods of this node still live.

        Such a network is one that our rules in the kernel masquerade, and to whose addresses this node has host routes.
        """
        if not snapshot.masquerade:
            return snapshot
        networks = dict(snapshot.networks)
        for family, now in snapshot.networks.items():
            earlier = _masqueraded(observed, family) - {now.network}
            kept = tuple(sorted((old for old in earlier if self._inhabited(family, old, now)), key=str))
            if kept:
                networks[family] = replace(now, draining=kept)
        return replace(snapshot, networks=networks)

    def _inhabited(self, family: Family, old: Network, now: FamilyNetworks) -> bool:
        if within(old, now.network):
            return False  # inside the current network: served already
        return any(
            route.prefixlen == route.max_prefixlen
            and route.network_address in old
            and route.network_address not in now.network
            for route in self._node_facts().routes(family)
        )

    def _node_facts(self) -> FactsPort:
        if self._facts is None:
            self._facts = self._node.facts()
        return self._facts


def _needs_bridge(wanted: SourceSnapshot, backend: Backend, observed: NodeState, begun: bool) -> bool:
    """Whether tables were flushed whole; once begun, whether anything is still missing (another agent, or the reload
    itself, may have restored it)."""
    desired = desired_state(wanted, backend)
    return bool(plan(desired, observed, others=False).transactions) if begun else torn(desired, observed)


def _masqueraded(state: NodeState, family: Family) -> set[Network]:
    """The networks that our own rules translate when they leave for anywhere."""
    found: set[Network] = set()
    for place, held in state.places.items():
        if place.family is not family or place.purpose is not Purpose.MASQUERADE:
            continue
        for rule in held.owned(place).chain or ():
            if rule.steps and isinstance(rule.steps[-1], Masquerade):
                found |= {step.network for step in rule.steps if isinstance(step, Source) and not step.negated}
    return found
