"""The guard's table as others see it: its name, what its chains are called, and how to look past it.

Problem: the guard writes the table, and the watch must recognise it: without it, is the egress path carried? Promise:
names and pure functions of a rule set that was read; what goes into the table is decided in ``hitless.guard``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.model.rules import Chain, Comment, Rule, Ruleset, Table

__all__ = ["ABOUT", "CARRIED", "LEAK", "LEAKED", "METER", "TABLE", "copied", "standby_chains", "without_guard"]

TABLE = "hitless-guard"
"""The guard's own table, in families ip and ip6: its mark of ownership."""

CARRIED, LEAKED = "carried", "leaked"
"""Its counter objects: flows that the standby translated; packets that left un-translated and should not have."""

ABOUT = "about"
"""A chain that nothing calls: its comments say what the standby is for."""

LEAK, METER = "leak.", "meter."
"""What the names of the leak meter's chains begin with."""


def copied(table: str, chain: str = "") -> tuple[str, str]:
    """What the copy of a chain is called in the guard's table: of one of nf_tables, and of one of legacy iptables."""
    return f"nft.{table}.{chain}", f"legacy.{table}.{chain}"


def without_guard(ruleset: Ruleset) -> Ruleset:
    """The rules of everybody else."""
    return Ruleset(tuple(table for table in ruleset.tables if table.name != TABLE), ruleset.node)


def standby_chains(table: Table) -> tuple[tuple[Chain, ...], tuple[tuple[str, str], ...]]:
    """The standby's chains of a table that was read, and its noted places as (network, part) texts."""
    chains: Mapping[str, Chain] = table.chains
    own = tuple(chains[name] for name in sorted(chains) if name != ABOUT and not name.startswith((LEAK, METER)))
    notes = []
    about = chains.get(ABOUT)
    for rule in about.rules if about is not None else ():
        word, _, rest = _comment(rule).partition(" ")
        if word == "pods":
            network, _, part = rest.partition(" ")
            notes.append((network, part))
    return own, tuple(notes)


def _comment(rule: Rule) -> str:
    return " ".join(step.text for step in rule.steps if isinstance(step, Comment))
