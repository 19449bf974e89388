"""Is the egress path carried? The evaluator's answer, for the agent.

Two questions: ``judge`` asks about the rules as they stand now, with everything that a pod's packet passes, and says
in words what happens to it (refused is not the same as un-translated);
``was_open`` asks about an observed state after the fact, without reading again, so that a repair is not delayed by
asking. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.model.families import Backend, Family
from hitless.model.packets import TCP
from hitless.model.rules import Chain, Goto, Hook, Jump, Ruleset, Table
from hitless.model.state import NodeState, Purpose
from hitless.observe import Asking, Fate, How, LiveNode, Panel, Pod, questions
from hitless.semantics import evaluate, witnesses
from hitless.sources import FamilyNetworks, Snapshot

__all__ = ["judge", "was_open"]

_HOOKS = ("forward", "postrouting")  # what ``Node.egress`` reads


def judge(ruleset: Ruleset, networks: FamilyNetworks, around: LiveNode, *, masquerade: bool = True) -> str:
    """What happens to the new flows of this node's pods that are certainly not carried, and why; empty: nothing is.

    The pods that are there are asked about, and what their answers come to is decided where the watch decides it: what
    keeps only some of them in is somebody's policy for them. Without ``masquerade`` only refusals count.
    """
    whom = around.whom(Asking(networks.network, networks.subnet, destinations=1))

    def ask(pod: Pod, explain: bool) -> Fate:
        if masquerade:
            return questions.egress(ruleset, whom.of(pod), whom.way, hooks=_HOOKS, explain=explain)
        return questions.through(ruleset, whom.of(pod), whom.way, _HOOKS, explain=explain)

    poll = Panel().poll(ruleset, ask, whom.pods, whom.strangers, whom.far_ends, whole=False)
    if poll.state != "not_carried":
        return ""
    return f"{_HAPPENS[poll.how]}: {poll.reason}"


_HAPPENS: Mapping[How, str] = {
    "": "pods' packets are refused, or not translated",
    "dropped": "pods' new connections are dropped",
    "rejected": "pods' new connections are rejected",
    "untranslated": "pods' packets are not translated",
    "unanswered": "pods' new connections are not answered",
}


def was_open(state: NodeState, snapshot: Snapshot) -> Mapping[Family, str]:
    """The families whose masquerading was certainly interrupted in an observed state.

    Neighbours' chains were not read and count as neutral: what is asked here is whether *our* part was there.
    """
    found: dict[Family, str] = {}
    if not snapshot.masquerade:
        return found
    for family, networks in snapshot.networks.items():
        ruleset = _ruleset(state, family)
        packet = witnesses(networks.network, networks.subnet, protocols=(TCP,))[0]
        outcome = evaluate(ruleset, packet, hooks=("postrouting",))
        if outcome.state == "not_carried":
            found[family] = outcome.reason
    return found


def _ruleset(state: NodeState, family: Family) -> Ruleset:
    tables: list[Table] = []
    for place, held in state.places.items():
        if place.family is not family or place.purpose is not Purpose.MASQUERADE:
            continue
        names = place.names
        chains: dict[str, Chain] = {}
        if place.backend is Backend.NFTABLES:
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
        tables.append(Table(family.nft, names.table, chains, legacy=place.backend is Backend.LEGACY))
    return Ruleset(tuple(tables))
