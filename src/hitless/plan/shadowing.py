"""Does a foreign rule end the chain for the pods' new flows before they reach our rules?

Problem: a jump after ``-j RETURN`` has no effect, while a rule for one destination before it is its owner's decision.
Promise: a rule counts only when it ends the chain for *all* pods of the node, to anywhere outside, for at least one
whole protocol; anything narrower, or anything that is not understood, is left alone (the evaluator,
``hitless.semantics``, still reports its effect on the egress path). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from hitless.model.families import Network, within
from hitless.model.packets import TCP, UDP
from hitless.model.rules import (
    Accept,
    AddrType,
    Comment,
    CtState,
    Destination,
    Drop,
    InInterface,
    Mark,
    Masquerade,
    OutInterface,
    Protocol,
    Reject,
    Return,
    Rule,
    Snat,
    Source,
    Step,
)
from hitless.model.state import Holding, Place, Purpose, is_owned

__all__ = ["accepts", "first_stop", "refuses_all", "takes_all"]


def first_stop(rules: Sequence[Rule], purpose: Purpose, pods: Sequence[Network], *, refusals: bool) -> int | None:
    """The index of the first rule that keeps the pods' flows from the rules after it; ``None`` where there is none.

    ``refusals``: whether DROP and REJECT count. They are an operator's decision: an existing jump is not moved before
    them, but a jump that was removed is inserted where it works (firewalld ends FORWARD with a REJECT).
    """
    for index, rule in enumerate(rules):
        action = rule.steps[-1] if rule.steps else None
        if isinstance(action, Masquerade | Snat) and takes_all(rule, pods):
            return None  # carried already, by a foreign rule
        stops = isinstance(action, Return) or (isinstance(action, Accept) and purpose is Purpose.MASQUERADE)
        if isinstance(action, Drop | Reject):
            stops = refusals
        if stops and takes_all(rule, pods):
            return index
        if isinstance(action, Accept) and purpose is Purpose.FORWARD and takes_all(rule, pods):
            return None  # accepted already
    return None


def refuses_all(rule: Rule, pods: Sequence[Network]) -> bool:
    """Whether a rule drops or rejects all new flows of some pod network."""
    return bool(rule.steps) and isinstance(rule.steps[-1], Drop | Reject) and takes_all(rule, pods)


def accepts(place: Place, held: Holding, pods: Sequence[Network]) -> bool:
    """Whether our rules at a forward place accept the new flows of some pod network."""
    ours = [rule for rule in (*held.entry, *(held.chain or ())) if is_owned(rule, place)]
    return any(rule.steps and isinstance(rule.steps[-1], Accept) and takes_all(rule, pods) for rule in ours)


def takes_all(rule: Rule, pods: Sequence[Network]) -> bool:
    """Whether every condition holds for the new flows of some pod network as a whole (one protocol at least)."""
    return any(all(_holds(step, network) for step in rule.steps[:-1]) for network in pods)


def _holds(step: Step, pods: Network) -> bool:
    match step:
        case Comment():
            return True
        case Source(network, negated):
            if network.version != pods.version:
                return False
            return not network.overlaps(pods) if negated else within(pods, network)
        case Destination(network, negated):
            return negated or network.prefixlen <= 1
        case Protocol(number, negated):
            return negated or number in (TCP, UDP)
        case CtState(states, negated):
            return ("NEW" in states) is not negated
        case Mark(value, mask, negated):
            return (value == 0 or mask == 0) is not negated
        case InInterface(_, negated) | OutInterface(_, negated):
            return negated
        case AddrType(direction, types, negated):
            return direction == "dst" and (types == {"UNICAST"} if not negated else types == {"LOCAL"})
        case _:
            return False
