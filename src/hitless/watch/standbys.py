"""What a guard's standby does while rules are watched: gaps of the other rules that it carried, and its flows.

Problem: where a standby is in the kernel (of a guard at work, or left by one that was uninstalled) nothing is lost over
an agent's restart, and an answer from all rules alone would credit the agent with it. Promise: a standby is reported at
the start, when it comes and goes, and at the end, with the flows that it has carried so far; each time in which all
rules carry a pod network and the rules without the standby do not is reported as ``Bridged``, with its authors. Without
a standby nothing is evaluated. Never: changing anything of the guard's. Next stage: ``watching``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hitless.errors import HitlessError
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables.owned import OwnedTables
from hitless.model.events import Bridged, Standby, Writer
from hitless.model.families import Family, Network, family_of
from hitless.model.rules import Ruleset
from hitless.model.standby import CARRIED, TABLE, standby_chains, without_guard
from hitless.observe import Judge, Poll
from hitless.watch.networks import Watched
from hitless.watch.ports import StandbyFacts, StandbyPort

__all__ = ["StandbyTables", "Standbys"]


@dataclass(frozen=True, slots=True)
class _Open:
    begin: int
    answer: Poll
    writer: Writer | None


class Standbys:
    """The standbys of one node's families."""

    def __init__(self, families: Sequence[Family], tables: StandbyPort) -> None:
        self._families = tuple(families)
        self._tables = tables
        self._there: frozenset[Family] = frozenset()
        self._judges: dict[Network, Judge] = {}
        self._open: dict[Network, _Open] = {}

    def seen(self, t: int, ruleset: Ruleset) -> Iterator[Standby]:
        """Report standbys that came or went with this rule set."""
        now = frozenset(family for family in self._families if _stands(ruleset, family))
        if now == self._there:
            return
        before, self._there = self._there, now
        yield from self._reported(t, now - before)
        for family in self._families:
            if family in before - now:
                yield Standby(t=t, family=family.value, present=False)

    def judge(self, t: int, watched: Watched, answer: Poll, ruleset: Ruleset, writer: Writer | None) -> list[Bridged]:
        """What the rules without the standby do, where all rules together carry the network."""
        network = watched.network
        begun = self._open.get(network)
        without: Poll | None = None
        if answer.state == "carried" and family_of(network) in self._there:
            judge = self._judges.setdefault(network, Judge(network, watched.judge.witnesses))
            judge.witnesses = watched.judge.witnesses
            without = judge.answer(without_guard(ruleset))
            watched.chains |= without.chains
        if without is not None and without.state == "not_carried":
            if begun is None:
                self._open[network] = _Open(t, without, writer)
            return []
        return [self._close(network, t, writer)] if begun is not None else []

    def finish(self, t: int) -> Iterator[Bridged | Standby]:
        """Watching ends: what is bridged now, and how many flows each standby has carried."""
        for network in list(self._open):
            yield self._close(network, t, None, still=True)
        yield from self._reported(t, self._there)

    def _close(self, network: Network, t: int, writer: Writer | None, *, still: bool = False) -> Bridged:
        begun = self._open.pop(network)
        return Bridged(
            t=t,
            family=family_of(network).value,
            network=str(network),
            begin=begun.begin,
            end=t,
            code=begun.answer.how,
            reason=begun.answer.reason,
            opened_by=begun.writer,
            closed_by=writer,
            open=still,
        )

    def _reported(self, t: int, families: frozenset[Family]) -> Iterator[Standby]:
        if not families:
            return
        facts = self._tables.facts(families)
        for family in self._families:
            if family in families:
                yield Standby(t=t, family=family.value, guard=facts[family].guard, flows=facts[family].flows)


def _stands(ruleset: Ruleset, family: Family) -> bool:
    """Whether a standby of this family has chains that translate."""
    tables = (one for one in ruleset.tables if one.name == TABLE and one.family == family.nft and not one.legacy)
    return any(chain.hook is not None for table in tables for chain in standby_chains(table)[0])


class StandbyTables:
    """The tables in the kernel. What may not be read, or is deleted meanwhile, is reported without guard and flows."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def facts(self, families: Collection[Family]) -> Mapping[Family, StandbyFacts]:
        """Whether a guard holds each family's table now, and how many flows it has translated."""
        found = dict.fromkeys(families, StandbyFacts())
        try:
            tables = OwnedTables(TABLE, self._namespace, flags=0)
        except HitlessError:
            return found
        with contextlib.closing(tables):
            for family in families:
                with contextlib.suppress(HitlessError):
                    owner, counts = tables.owner(family), tables.counters(family)
                    flows = counts[CARRIED].packets if CARRIED in counts else 0
                    found[family] = StandbyFacts(owner is not None and bool(owner.port), flows)
        return found
