"""Rules as the text that iptables-restore and nft read.

Problem: two rules that mean the same are written differently by three writers. Promise: ``canonical`` orders the
conditions, so that rules with the same meaning are equal; the renderers write one form only, and refuse (``None``) what
they cannot write instead of guessing. Text is made from typed values only: a network from its number and length, a name
or a comment from foreign rules only if it consists of plain characters (``kernel.rule_text`` checks it again). Nothing
here knows what a rule is for.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hitless.model.families import Family, Network
from hitless.model.notation.limits import COMMENT, TARGET
from hitless.model.rules import (
    Accept,
    Comment,
    Destination,
    Drop,
    Goto,
    Jump,
    Mark,
    Masquerade,
    Return,
    Rule,
    SetMark,
    Source,
    Step,
    UnknownMark,
)

__all__ = ["canonical", "iptables_rule", "nft_rule"]

_RANKS = {Source: 0, Destination: 1, Mark: 2}
_OTHERS = len(_RANKS)
_LAST = _OTHERS + 1  # comments, as iptables prints them
_ACTIONS = (Accept, Drop, Return, Jump, Goto, Masquerade)
_EFFECTS_IN_PASSING = (SetMark, UnknownMark)


def canonical(rule: Rule) -> tuple[Step, ...]:
    """The rule's steps with conditions in one order: those of a rule commute as long as nothing is set in between."""
    if _is_canonical(rule.steps):
        return rule.steps
    if any(isinstance(step, _EFFECTS_IN_PASSING) for step in rule.steps):
        return rule.steps
    conditions, action = _split(rule)
    kept = [step for step in conditions if not _always(step)]

    def rank(step: Step) -> tuple[int, str]:
        known = _RANKS.get(type(step))
        if known is not None:
            return known, ""
        # the rest by their text, which is all that is needed here
        return (_LAST if isinstance(step, Comment) else _OTHERS), repr(step)

    return (*sorted(kept, key=rank), *action)


def iptables_rule(rule: Rule) -> str | None:
    """The rule's specification as iptables-restore reads it; ``None`` where it has something that we never write."""
    parts: list[str] = []
    for step in canonical(rule):
        part = _iptables_step(step)
        if part is None:
            return None
        parts.append(part)
    return " ".join(parts)


def nft_rule(rule: Rule, family: Family) -> str | None:
    """The rule as nft reads it; ``None`` where it has something that we never write."""
    parts: list[str] = []
    for step in canonical(rule):
        part = _nft_step(step, family)
        if part is None:
            return None
        parts.append(part)
    return " ".join(parts)


def _is_canonical(steps: tuple[Step, ...]) -> bool:
    """Whether these are at most one condition of each kind that we write, in order, and an action: nearly all are."""
    if not steps or not isinstance(steps[-1], _ACTIONS):
        return False
    last = -1
    for step in steps[:-1]:
        rank = _LAST if isinstance(step, Comment) else _RANKS.get(type(step), -1)
        if rank <= last or _always(step):
            return False
        last = rank
    return True


def _split(rule: Rule) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    if rule.steps and isinstance(rule.steps[-1], _ACTIONS):
        return rule.steps[:-1], rule.steps[-1:]
    return rule.steps, ()


def _always(step: Step) -> bool:
    return isinstance(step, Source | Destination) and step.network.prefixlen == 0 and not step.negated


def _iptables_step(step: Step) -> str | None:
    match step:
        case Source(network, negated):
            return f"{'! ' if negated else ''}-s {_address(network)}"
        case Destination(network, negated):
            return f"{'! ' if negated else ''}-d {_address(network)}"
        case Mark(value, mask, negated):
            return f"-m mark {'! ' if negated else ''}--mark {value:#x}/{mask:#x}"
        case Comment(text):
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            return f'-m comment --comment "{escaped}"' if COMMENT.fullmatch(text) else None
        case Masquerade(random_fully, random, persistent, ports):
            if random or persistent or ports is not None:
                return None
            return "-j MASQUERADE --random-fully" if random_fully else "-j MASQUERADE"
        case Return():
            return "-j RETURN"
        case Accept():
            return "-j ACCEPT"
        case Drop():
            return "-j DROP"
        case Jump(chain):
            return f"-j {chain}" if TARGET.fullmatch(chain) else None
        case _:
            return None


def _nft_step(step: Step, family: Family) -> str | None:
    match step:
        case Source(network, negated):
            return f"{family.nft} saddr {'!= ' if negated else ''}{_address(network)}"
        case Destination(network, negated):
            return f"{family.nft} daddr {'!= ' if negated else ''}{_address(network)}"
        case Mark(value, mask, negated):
            compare = f"{'!=' if negated else '=='} {value:#x}"
            return f"meta mark {compare}" if mask == 0xFFFFFFFF else f"meta mark & {mask:#x} {compare}"
        case Masquerade(random_fully, random, persistent, ports):
            if random or persistent or ports is not None:
                return None
            return "masquerade fully-random" if random_fully else "masquerade"
        case Return():
            return "return"
        case Accept():
            return "accept"
        case _:
            return None


def _address(network: Network) -> str:
    """From the number: an IPv6 zone in the address object is not part of a rule."""
    kind = IPv4Network if network.version == 4 else IPv6Network
    return str(kind((int(network.network_address), network.prefixlen)))
