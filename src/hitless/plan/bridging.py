"""Carrying the pods while another program flushes whole tables.

Problem: a firewall's reload by single commands (``iptables -F``, ``-X``, ``-t nat -F`` …) fails when our chains are
filled and called again between its ``-F`` and its ``-X``. Promise: ``torn`` recognises such a flush, and ``bridge``
plans what carries the pods until the reload has ended, without a chain at which iptables could fail: the masquerade
rules in the native nftables table, which iptables neither sees nor flushes, and, where FORWARD might refuse, the two
accepts directly in FORWARD. What is left of the iptables rules stays. Pure. Next stage: ``hitless.agent.reloads``
decides how long.
"""

from __future__ import annotations

from dataclasses import replace

from hitless.model.families import Backend
from hitless.model.rules import Comment, Rule
from hitless.model.state import Holding, NodeState, Place, Purpose, is_owned
from hitless.plan.planning import Plan, plan

__all__ = ["bridge", "torn"]

_NOTHING = Holding()


def torn(desired: NodeState, observed: NodeState) -> bool:
    """Whether some table was probably flushed whole: no rule jumps to our chain, and our chain, or the whole base
    chain, is empty. If only our chain was emptied (flannel does that), it is not a reload."""
    return any(_torn(place, observed) for place in desired.places)


def _torn(place: Place, observed: NodeState) -> bool:
    if place.backend.native:
        return False
    held = observed.places.get(place, _NOTHING)
    return not any(is_owned(rule, place) for rule in held.entry) and not (held.chain and held.entry)


def bridge(desired: NodeState, observed: NodeState) -> Plan:
    """What the bridge still lacks; empty: nothing. Families that are cut off come first, then those that the reload may
    reach next."""
    lost: dict[Place, Holding] = {}
    open_: dict[Place, Holding] = {}
    ready: dict[Place, Holding] = {}
    for place, wanted in desired.places.items():
        if place.purpose is Purpose.MASQUERADE:
            beside = replace(place, backend=Backend.NFTABLES)  # not seen by scripts that flush iptables' tables
            rules = tuple(_bare(rule) for rule in wanted.chain or ())
            into = lost if _torn(place, observed) else ready
            into[beside] = Holding((), rules, beside.names.hook, pods=wanted.pods)
        elif _torn(place, observed) and _may_refuse(place, observed):
            open_[place] = Holding(wanted.chain or (), None, pods=wanted.pods)
    return plan(NodeState({**lost, **open_, **ready}), observed, others=False)


def _may_refuse(place: Place, observed: NodeState) -> bool:
    """Whether FORWARD might stop a packet: without rules and with the policy accept it cannot. Then nothing is written,
    because some scripts do not wait for iptables-legacy's lock."""
    held = observed.places.get(place, _NOTHING)
    return held.policy != "accept" or bool(held.entry)


def _bare(rule: Rule) -> Rule:
    """Native rules carry no comment."""
    return Rule(tuple(step for step in rule.steps if not isinstance(step, Comment)))
