"""Is the egress path carried? The evaluator's answer, for the agent.

Two questions: ``judge`` asks about the rules as they stand now, with everything that a pod's packet passes;
``was_open`` asks about an observed state after the fact, without reading again, so that a repair is not delayed by
asking. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hitless.kernel.addresses import Paths
from hitless.model.families import Backend, Family
from hitless.model.packets import TCP, UDP
from hitless.model.rules import Chain, Goto, Hook, Jump, Ruleset, Table
from hitless.model.state import NodeState, Purpose
from hitless.semantics import evaluate, witnesses
from hitless.sources import FamilyNetworks, Snapshot

__all__ = ["judge", "was_open"]


def judge(ruleset: Ruleset, networks: FamilyNetworks, paths: Paths) -> str:
    """Why the new flows of this node's pods are certainly not carried; empty: nothing says so.

    Where a pod has a route of its own, the witness is that pod, with its interface.
    """
    source = next(paths.hosts(networks.subnet), None)
    for packet in witnesses(networks.network, networks.subnet, protocols=(TCP, UDP)):
        src = packet.src if source is None else source
        told = replace(packet, src=src, iif=paths.interface(src), oif=paths.interface(packet.dst))
        outcome = evaluate(ruleset, told, hooks=("forward", "postrouting"))  # what ``Node.egress`` reads
        if outcome.state == "not_carried":
            return outcome.reason
    return ""


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
