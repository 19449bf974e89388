"""Is the egress path carried? The evaluator's answer, for the agent.

Two questions: ``judge`` asks about the rules as they stand now, with everything that a pod's packet passes;
``was_open`` asks about an observed state after the fact, without reading again, so that a repair is not delayed by
asking. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hitless.model.families import Backend, Family
from hitless.model.packets import TCP, UDP
from hitless.model.rules import Chain, Goto, Hook, Jump, Ruleset, Table
from hitless.model.state import NodeState, Purpose
from hitless.semantics import evaluate, witnesses
from hitless.sources import Snapshot

__all__ = ["judge", "was_open"]


def judge(ruleset: Ruleset, snapshot: Snapshot, families: Collection[Family]) -> Mapping[Family, str]:
    """Those of ``families`` whose pods' new flows are certainly not carried, with the evaluator's reason."""
    found: dict[Family, str] = {}
    if not snapshot.masquerade:
        return found
    for family in families:
        networks = snapshot.networks[family]
        for packet in witnesses(networks.network, networks.subnet, protocols=(TCP, UDP)):
            outcome = evaluate(ruleset, packet)
            if outcome.state == "not_carried":
                found[family] = outcome.reason
                break
    return found


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
