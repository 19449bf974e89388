"""A standby as its kernel table: the nat chains, the leak meter, and a note of what it is for; and back again.

Problem: the standby must be its own memory: a guard that starts beside a damaged primary has nothing else to learn
from. Promise: ``image`` gives the whole table of a family, ``canonical`` the chains exactly as they will be read back,
so that equal means equal; places are noted as comments in a chain that nothing calls. The leak meter says the same as
the nat chains, behind them and in the filter path, about flows that are not translated: it counts and never decides,
sets no mark and has no verdict but accept. Next stage: ``hitless.kernel.nftables.owned`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.kernel import netlink
from hitless.kernel.nftables import encoding, expressions, wire
from hitless.kernel.nftables.owned import OwnedChain
from hitless.model.families import Family, Network
from hitless.model.rules import (
    Accept,
    Chain,
    Comment,
    Goto,
    Hook,
    Jump,
    Masquerade,
    Return,
    Rule,
    SetMark,
    Snat,
    Source,
    Step,
)
from hitless.model.standby import ABOUT, CARRIED, LEAK, LEAKED, METER

__all__ = ["COUNTERS", "canonical", "image"]

COUNTERS = (CARRIED, LEAKED)
"""Counter objects of the table."""

_METER_PRIORITY = 200  # behind the nat core (100), so that it sees what really leaves


def _version(family: Family) -> int:
    return 4 if family is Family.IPV4 else 6


def _comment(rule: Rule) -> str:
    return " ".join(step.text for step in rule.steps if isinstance(step, Comment))


def canonical(chains: Iterable[Chain], family: Family) -> tuple[Chain, ...]:
    """These chains as the kernel's reader gives them back, sorted by name; raises ``Inexact``."""
    found = []
    for chain in chains:
        rules: list[Rule] = []
        for rule in chain.rules:
            data = netlink.attribute(wire.RULE_USERDATA, encoding.userdata(_comment(rule))) if _comment(rule) else b""
            for form in encoding.expressions(rule, _version(family), before_translation=encoding.count(CARRIED)):
                payload = netlink.nfgenmsg(0) + netlink.nested(wire.RULE_EXPRESSIONS, form) + data
                rules += expressions.decode(payload, family.nft, lambda _name: None)
        found.append(Chain(chain.name, tuple(rules), chain.hook))
    return tuple(sorted(found, key=lambda chain: chain.name))


def image(
    family: Family, chains: Sequence[Chain], places: Iterable[tuple[Network, Network | None]], *, meter: bool = True
) -> tuple[OwnedChain, ...]:
    """The whole table; without ``chains`` an empty one. ``places``: pod network and this node's part of it."""
    version = _version(family)
    pairs = tuple(places)
    written = [
        OwnedChain(
            chain.name,
            tuple(
                (form, _comment(rule))
                for rule in chain.rules
                for form in encoding.expressions(rule, version, before_translation=encoding.count(CARRIED))
            ),
            chain.hook,
        )
        for chain in chains
    ]
    if meter:
        written += _meter(chains, tuple(network for network, _ in pairs), version)
    (nothing,) = encoding.expressions(Rule((Return(),)), version)
    notes = tuple((nothing, f"pods {network} {part or ''}".rstrip()) for network, part in pairs)
    return (*written, OwnedChain(ABOUT, notes))


def _meter(chains: Sequence[Chain], networks: tuple[Network, ...], version: int) -> list[OwnedChain]:
    counted = encoding.count(LEAKED)
    written = []
    for chain in chains:
        rules: list[tuple[bytes, str]] = []
        for rule in chain.rules:
            steps = tuple(step for step in rule.steps if not isinstance(step, SetMark))
            translates = any(isinstance(step, Masquerade | Snat) for step in steps)
            # a translation here is a packet that should have been translated: count it and be done
            plain = Rule(tuple(_renamed(step) for step in steps if not isinstance(step, Masquerade | Snat)))
            if not translates and not any(isinstance(step, Accept | Return | Jump | Goto) for step in plain.steps):
                continue
            for form in encoding.expressions(plain, version):
                (accept,) = encoding.expressions(Rule((Accept(),)), version)
                rules.append((form + counted + accept, "") if translates else (form, ""))
        written.append(OwnedChain(LEAK + chain.name, tuple(rules)))
        if chain.hook is not None:
            gate = tuple(
                (form, "")
                for network in networks
                for form in encoding.expressions(
                    # the source first: it ends the rule at once for what is translated, which is nearly everything
                    Rule((Source(network), Jump(LEAK + chain.name))),
                    version,
                    before_effect=encoding.direction_original(),
                )
            )
            priority = _METER_PRIORITY + chain.hook.priority
            written.append(OwnedChain(f"{METER}{chain.name}", gate, Hook("filter", "postrouting", priority)))
    return written


def _renamed(step: Step) -> Step:
    return type(step)(LEAK + step.chain) if isinstance(step, Jump | Goto) else step
