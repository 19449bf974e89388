"""The guard's table as others see it: its name, the names of its chains, and the rules without it.

Problem: the guard writes the table, and the watch must recognise it: is the egress path carried without it? Promise:
names, and pure functions of a rule set; the table's contents are decided in ``hitless.guard``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.model.rules import Chain, Comment, Rule, Ruleset, Table

__all__ = ["ABOUT", "CARRIED", "LEAK", "LEAKED", "METER", "TABLE", "copied", "standby_chains", "without_guard"]

TABLE = "hitless-guard"
"""The guard's own table, in families ip and ip6: its mark of ownership."""

CARRIED, LEAKED = "carried", "leaked"
"""Its counter objects: flows that the standby translated; packets that left untranslated although they should not."""

ABOUT = "about"
"""A chain that nothing calls: its comments describe the standby."""

LEAK, METER = "leak.", "meter."
"""Prefixes of the names of the leak meter's chains."""


def copied(table: str, chain: str = "") -> tuple[str, str]:
    """The names of a chain's copy in the guard's table: for a chain of nf_tables, and of iptables-legacy."""
    return f"nft.{table}.{chain}", f"legacy.{table}.{chain}"


def without_guard(ruleset: Ruleset) -> Ruleset:
    """The rules of all other programs."""
    return Ruleset(tuple(table for table in ruleset.tables if table.name != TABLE), ruleset.node)


def standby_chains(table: Table) -> tuple[tuple[Chain, ...], tuple[tuple[str, str], ...]]:
    """The standby's chains of a table, and the pod networks noted in it as (network, part) texts."""
    chains: Mapping[str, Chain] = table.chains
    own = tuple(chains[name] for name in sorted(chains) if name != ABOUT and not name.startswith((LEAK, METER)))
    notes = []
    about = chains.get(ABOUT)
    for rule in about.rules if about is not None else ():
        keyword, _, rest = _comment(rule).partition(" ")
        if keyword == "pods":
            network, _, part = rest.partition(" ")
            notes.append((network, part))
    return own, tuple(notes)


def _comment(rule: Rule) -> str:
    return " ".join(step.text for step in rule.steps if isinstance(step, Comment))
