"""Rules as their tools write them: for reasons, plans and logs that people read.

Problem: an operator looks for a rule in the output of ``iptables-save`` or ``nft list ruleset``, so it must be told in
those words. Promise: ``rule`` and ``conditions`` give the words of iptables for what iptables wrote, and those of nft
for native rules. What a decoder could not put into the model carries its tool's text along. Nothing reads these words
back; what hitless writes into the kernel is ``hitless.plan``'s. Next stage: whoever tells people about a rule.
"""

from __future__ import annotations

from collections.abc import Callable

from hitless.model.notation import iptables as _iptables
from hitless.model.notation import nft as _nft
from hitless.model.rules import Comment, Destination, Match, Rule, SetMember, Source, Step

__all__ = ["Names", "condition", "conditions", "rule"]

_FEW = 64  # members of a set that are looked at

Names = Callable[[int], str | None]
"""The name of the ipset that rules know by a number."""


def rule(each: Rule, *, iptables: bool, names: Names | None = None) -> str:
    """The whole rule, without the chain that it stands in."""
    steps = _named(_clean(each.steps), names)
    return _iptables.words(steps) if iptables else _nft.words(steps)


def conditions(each: Rule, *, iptables: bool, names: Names | None = None) -> str:
    """What must hold for the rule to apply, without its comment; empty when that is nothing."""
    steps: list[Step] = [
        step for step in _clean(each.steps) if isinstance(step, Match) and not isinstance(step, Comment)
    ]
    return _iptables.words(_named(steps, names)) if iptables else _nft.words(_named(steps, names))


def condition(step: Step, *, iptables: bool, names: Names | None = None, of: Rule | None = None) -> str:
    """One condition; ``of``: the rule that it stands in, which says which protocol's ports are meant."""
    (named,) = _named([step], names)
    around = of.steps if of is not None else ()
    return _iptables.words([named], around) if iptables else _nft.words([named], around)


def _clean(steps: tuple[Step, ...]) -> list[Step]:
    """Without what is said twice: nft writes down the family before it looks at an address."""
    found: list[Step] = []
    for number, step in enumerate(steps):
        if isinstance(step, Source) and step.network.prefixlen == 0 and not step.negated:
            others = (*steps[:number], *steps[number + 1 :])
            if any(step.network.version in _versions(other) for other in others):
                continue
        if step not in found:
            found.append(step)
    return found


def _versions(step: Step) -> set[int]:
    """The IP versions that a condition's own words name."""
    if isinstance(step, Source | Destination):
        return {step.network.version}
    return {network.version for network in step.networks(_FEW) or ()} if isinstance(step, SetMember) else set()


def _named(steps: list[Step], names: Names | None) -> list[Step]:
    """The steps with the names of ipsets in place of their numbers."""
    return [_with_name(step, names) if isinstance(step, SetMember) else step for step in steps]


def _with_name(step: SetMember, names: Names | None) -> SetMember:
    known = names(step.number) if names is not None and step.number is not None else None
    return step if not known else SetMember(known, step.direction, step.elements, step.negated)
