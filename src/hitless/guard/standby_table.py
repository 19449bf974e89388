"""The standby in the kernel: written when it differs, read back at the start, removed by a command.

Problem: a restart of the guard must change nothing in the kernel. Promise: ``StandbyTable`` compares before it writes,
and writes one transaction; what an earlier guard left is adopted without a change to any rule; ``install`` of the same
standby twice writes once. With ``observe`` it never writes. Next stage: ``loop`` says what and when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from hitless.guard import images
from hitless.guard.standby_rules import StandbyRules, WitnessPlace, standby_of
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import read_ruleset
from hitless.kernel.nftables.owned import OWNER, PERSIST, Count, OwnedChain, OwnedTables, Owner
from hitless.model import reading
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table
from hitless.model.standby import TABLE, standby_chains

__all__ = ["StandbyTable", "found_in"]


@dataclass(frozen=True, slots=True)
class FoundStandby:
    """What an earlier guard left: its ``standby`` (``None`` when it holds no chains), and the table as it was read."""

    standby: StandbyRules | None
    table: Table


def found_in(ruleset: Ruleset, family: Family, uplink: str) -> FoundStandby | None:
    """The guard's table of a family in a rule set."""
    table = next((t for t in ruleset.tables if t.name == TABLE and t.family == family.nft and not t.legacy), None)
    if table is None:
        return None
    chains, notes = standby_chains(table)
    named = [(reading.network_of(network), reading.network_of(part)) for network, part in notes]
    places = [WitnessPlace(network, part) for network, part in named if network is not None]
    standby = standby_of(family, chains, places, uplink=uplink) if chains else None
    return FoundStandby(standby if standby is not None and standby.places else None, table)


class OwnTables(Protocol):
    """Tables of one name that are ours. Real: ``hitless.kernel.nftables.owned.OwnedTables``."""

    def available(self, families: Sequence[Family]) -> object:
        """Raise ``TableOwnedByOther`` when a living process holds one of them."""

    def own(self, families: Sequence[Family]) -> object:
        """Take over what is there, without a change to any rule."""

    def replace(self, desired: Mapping[Family, Sequence[OwnedChain]], counters: Sequence[str]) -> object:
        """Write whole tables, in one transaction."""

    def owner(self, family: Family) -> Owner | None:
        """Who holds the family's table."""

    def counters(self, family: Family) -> Mapping[str, Count]:
        """Its counters."""

    def close(self) -> None:
        """Let go of them; they stay."""


class StandbyTable:
    """The tables of both families, over one socket: as long as it is open, no other process may change them."""

    def __init__(
        self,
        families: tuple[Family, ...],
        namespace: Namespace = HERE,
        *,
        flags: int = OWNER | PERSIST,
        tables: OwnTables | None = None,
        read: Callable[[Family], Ruleset] | None = None,
    ) -> None:
        """``tables`` and ``read`` (the guard's table of a family as it is now): the namespace's, or a test's."""
        self._tables: OwnTables = OwnedTables(TABLE, namespace, flags=flags) if tables is None else tables
        self._read = read or (lambda family: read_ruleset(namespace, (family,), (TABLE,)))
        self._families = families
        self._installed: dict[Family, StandbyRules | None] = {}
        self.writes = 0

    def close(self) -> None:
        """Let go of the tables; they stay."""
        self._tables.close()

    def adopt(self, found: Mapping[Family, FoundStandby | None]) -> None:
        """Take over what is installed: ownership, and no rule is written. A table that is not whole is written again
        later.

        Raises ``TableOwnedByOther`` when another guard is alive, in either family: then this one must do nothing.
        """
        self._tables.available(self._families)
        for family in self._families:
            there = found.get(family)
            if there is not None and there.standby is not None and _same_image(there.table, there.standby):
                self._installed[family] = there.standby
        self._tables.own(tuple(self._installed))

    def install(self, desired: Mapping[Family, StandbyRules | None]) -> bool:
        """Make the tables hold these (``None``: no chains, nothing is translated); whether anything was written."""
        changed = {
            family: standby
            for family, standby in desired.items()
            if (family in self._installed and self._installed[family] != standby)
            or (family not in self._installed and (standby is not None or self._tables.owner(family) is not None))
        }
        if not changed:
            return False
        self._tables.replace(
            {
                family: images.image(
                    family,
                    standby.chains if standby is not None else (),
                    [(place.network, place.subnet) for place in standby.places] if standby is not None else (),
                )
                for family, standby in changed.items()
            },
            images.COUNTERS,
        )
        self._installed |= changed
        self.writes += 1
        return True

    def restore(self) -> bool:
        """Write again what should be installed, when it was deleted or emptied; whether that was needed."""
        lost = {family: standby for family, standby in self._installed.items() if self._hurt(family, standby)}
        for family in lost:
            del self._installed[family]
        return self.install(lost) if lost else False

    def _hurt(self, family: Family, standby: StandbyRules | None) -> bool:
        owner = self._tables.owner(family)
        if owner is None or owner.protected or standby is None:
            return owner is None
        table = next(iter(self._read(family).tables), None)
        return table is None or not _same_image(table, standby)

    def owner(self, family: Family) -> Owner | None:
        """How the kernel holds the family's table."""
        return self._tables.owner(family)

    def counters(self, family: Family) -> Mapping[str, Count]:
        """The family's counters."""
        return self._tables.counters(family)


def _same_image(table: Table, standby: StandbyRules) -> bool:
    """Whether a table that was read has every chain that this version of the guard would write, and no other."""
    wanted = images.image(standby.family, standby.chains, [(place.network, place.subnet) for place in standby.places])
    return {chain.name: (len(chain.rules), chain.hook) for chain in wanted} == {
        name: (len(chain.rules), chain.hook) for name, chain in table.chains.items()
    }
