"""Is the egress path carried?

``Egress.ask`` evaluates the node's current rules as ``hitless watch`` does (``hitless.observe``), and says what happens
to the pods' packets: dropped, rejected, or not translated. ``was_open`` evaluates an earlier observation, without
reading again, so that a repair is not delayed. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hitless.agent.ports import AroundPort
from hitless.model.families import Backend, Family, Network
from hitless.model.packets import TCP
from hitless.model.rules import Chain, Goto, Hook, Jump, Ruleset, Table
from hitless.model.state import NodeState, Place, Purpose
from hitless.observe import Asking, How, Judge
from hitless.semantics import State, evaluate, witnesses
from hitless.sources import FamilyNetworks, SourceSnapshot

__all__ = ["Egress", "EgressStatus", "Opened", "was_open"]


@dataclass(frozen=True, slots=True)
class EgressStatus:
    """Whether a network's pods have egress, and the reason where they have not."""

    state: State = "carried"
    why: str = ""


class Egress:
    """For the pod networks of one node; remembers which pod was carried last, and begins with it."""

    def __init__(self) -> None:
        self._judges: dict[tuple[Network, bool], Judge] = {}

    def moved(self, networks: FamilyNetworks, around: AroundPort, *, masquerade: bool) -> bool:
        """Whether the pods to evaluate, or their uplink, are others than last time."""
        judge = self._judges.get((networks.network, masquerade))
        return judge is None or judge.witnesses != around.witnesses(Asking(networks.network, networks.subnet))

    def ask(self, ruleset: Ruleset, networks: FamilyNetworks, around: AroundPort, *, masquerade: bool) -> EgressStatus:
        """What happens to new flows of this node's pods. Without ``masquerade`` only refusals count."""
        network = networks.network
        witnesses = around.witnesses(Asking(network, networks.subnet))
        judge = self._judges.setdefault(
            (network, masquerade), Judge(network, witnesses, _TRANSLATORS, masquerade=masquerade)
        )
        judge.witnesses = witnesses
        poll = judge.answer(ruleset)
        if poll.state == "carried":
            return EgressStatus()
        if poll.state == "cannot_tell":
            return EgressStatus("cannot_tell", poll.reason)
        return EgressStatus("not_carried", f"{_HAPPENS[poll.how]}: {poll.reason}")


_TRANSLATORS = tuple(
    dict.fromkeys(
        (place.names.table, place.names.chain)
        for family in Family
        for backend in Backend
        for place in (Place(backend, family, Purpose.MASQUERADE),)
    )
)
_HAPPENS: Mapping[How, str] = {
    "": "pods' packets are refused, or not translated",
    "dropped": "pods' new connections are dropped",
    "rejected": "pods' new connections are rejected",
    "untranslated": "pods' packets are not translated",
    "unanswered": "pods' new connections are not answered",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A network whose pods had no egress, how their packets were lost, and the reason."""

    network: Network
    how: How
    why: str


def was_open(state: NodeState, snapshot: SourceSnapshot) -> Mapping[Family, Opened]:
    """The families whose masquerading was certainly interrupted in an observation.

    Other programs' chains were not read and count as neutral: only our part is judged here.
    """
    found: dict[Family, Opened] = {}
    if not snapshot.masquerade:
        return found
    for family, networks in snapshot.networks.items():
        ruleset = _ruleset(state, family)
        packet = witnesses(networks.network, networks.subnet, protocols=(TCP,))[0]
        outcome = evaluate(ruleset, packet, hooks=("postrouting",))
        if outcome.state == "not_carried":
            how: How = "untranslated" if outcome.dropped is None else "dropped"
            found[family] = Opened(networks.network, how, outcome.reason)
    return found


def _ruleset(state: NodeState, family: Family) -> Ruleset:
    tables: list[Table] = []
    for place, held in state.places.items():
        if place.family is not family or place.purpose is not Purpose.MASQUERADE:
            continue
        names = place.names
        chains: dict[str, Chain] = {}
        if place.backend.native:
            if held.chain is not None:
                chains[names.chain] = Chain(names.chain, held.chain, held.hook)
        else:
            chains[names.base] = Chain(names.base, held.entry, Hook("nat", "postrouting", 100))
            if held.chain is not None:
                chains[names.chain] = Chain(names.chain, held.chain)
        rules = [rule for chain in chains.values() for rule in chain.rules]
        for step in [step for rule in rules for step in rule.steps]:
            if isinstance(step, Jump | Goto):
                chains.setdefault(step.chain, Chain(step.chain))
        tables.append(Table(family.nft, names.table, chains, legacy=place.backend.legacy))
    return Ruleset(tuple(tables))
