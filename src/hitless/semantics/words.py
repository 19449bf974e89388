"""Rules in the words of iptables, short: for reasons that people read. Never parsed by anything."""

from __future__ import annotations

from hitless.model.rules import (
    AddrType,
    Comment,
    CtState,
    Destination,
    DestinationPort,
    InInterface,
    Mark,
    Match,
    Opaque,
    OutInterface,
    Ports,
    Protocol,
    ReversePath,
    Rule,
    SetMember,
    Source,
    SourcePort,
)

__all__ = ["condition", "conditions"]

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}


def condition(step: Match) -> str:
    """One condition, e.g. ``! -s 10.42.0.0/16``; empty for a comment."""
    match step:
        case Source(network, negated):
            text = f"-s {network}"
        case Destination(network, negated):
            text = f"-d {network}"
        case InInterface(name, negated):
            text = f"-i {name}"
        case OutInterface(name, negated):
            text = f"-o {name}"
        case Mark(value, mask, negated):
            text = f"mark {value:#x}/{mask:#x}"
        case Protocol(number, negated):
            text = f"-p {_PROTOCOLS.get(number, number)}"
        case SourcePort(first, last, negated):
            text = f"--sport {_range(first, last)}"
        case DestinationPort(first, last, negated):
            text = f"--dport {_range(first, last)}"
        case Ports(direction, ranges, negated):
            text = f"{direction} ports {','.join(_range(*pair) for pair in ranges)}"
        case CtState(states, negated):
            text = f"ctstate {','.join(sorted(states))}"
        case AddrType(direction, types, negated):
            text = f"{direction} type {','.join(sorted(types))}"
        case SetMember(name, direction, _, negated):
            text = f"set {name} {direction}"
        case ReversePath(negated):
            text = "reverse path filter"
        case Comment():
            return ""
        case Opaque(text):
            return f"‘{text}’"
        case _:
            negated = step.negated
            text = type(step).__name__
    return f"! {text}" if negated else text


def conditions(rule: Rule) -> str:
    """All conditions of a rule in one line; empty when it has none."""
    words = (condition(step) for step in rule.steps if isinstance(step, Match))
    return " ".join(word for word in words if word)


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}:{last}"
