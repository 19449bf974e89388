"""Reads our rules from the kernel as a ``NodeState``.

Problem: an agent that gets its rules from iptables waits for 30,000 others. Promise: exactly our chains and the base
chains that lead to them are read, in all three backends, by netlink and getsockopt, without running a program and
without creating tables. What is read belongs to one generation (nf_tables) or one table (legacy). ``egress_rules``
follows the jumps from the base chains, up to a bound, for healing and for the first report about the node; later ones
come from ``hitless.observe.rules``. It never writes. Next stage: ``hitless.plan``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from hitless.kernel.chains import ChainName, ChainReader
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.xtables.sockopt import Tables
from hitless.kernel.xtables.tables import decode_table
from hitless.model.families import Backend, Family, KernelPath
from hitless.model.rules import Chain, Opaque, OpaqueAction, Rule, Ruleset, Table, jump_targets
from hitless.model.state import Holding, NodeState, Place, Purpose

__all__ = ["Observer"]

IPTABLES_TABLES = ("filter", "nat", "mangle", "raw", "security")
_MOST_CHAINS = 400  # a node's forward path with 250 Calico endpoints passes fewer
_UNREAD = Rule((Opaque("a chain that was not read"), OpaqueAction("not read")))


class Observer:
    """Reads one namespace; keeps its sockets open. One thread at a time."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._namespace = namespace
        self._chains = ChainReader(namespace)
        self._legacy: dict[Family, Tables] = {}
        self.generation = 0

    def close(self) -> None:
        """Close all sockets."""
        self._chains.close()
        for tables in self._legacy.values():
            tables.close()

    def observe(self, families: Collection[Family]) -> NodeState:
        """The rules at every place of these families, in every backend."""
        places = [
            Place(backend, family, purpose)
            for family in families
            for backend in Backend
            if backend.path is KernelPath.NF_TABLES
            for purpose in Purpose
        ]
        names = {ChainName(place.family.nft, place.names.table, place.names.chain) for place in places}
        names |= {
            ChainName(place.family.nft, place.names.table, place.names.base) for place in places if place.names.base
        }
        read = self._chains.read(sorted(names))
        self.generation = self._chains.last_generation
        found = {place: self._holding(place, read) for place in places}
        for family in families:
            found.update(self._legacy_places(family))
        return NodeState(found)

    def _holding(self, place: Place, read: Mapping[ChainName, Chain]) -> Holding:
        names, family = place.names, place.family.nft
        own = read.get(ChainName(family, names.table, names.chain))
        chain = None if own is None else own.rules
        if place.backend.native:
            objects = self._chains.objects(family, names.table) if own else 0
            return Holding((), chain, own.hook if own else None, objects)
        base = read.get(ChainName(family, names.table, names.base))
        return Holding(base.rules if base else (), chain, policy=_policy(base))

    def _legacy_places(self, family: Family) -> Mapping[Place, Holding]:
        found: dict[Place, Holding] = {}
        for place in [Place(backend, family, purpose) for backend in Backend if backend.legacy for purpose in Purpose]:
            table = self.legacy_table(family, place.names.table)
            if table is None:
                found[place] = Holding()
                continue
            base, own = table.chains.get(place.names.base), table.chains.get(place.names.chain)
            found[place] = Holding(base.rules if base else (), own.rules if own else None, policy=_policy(base))
        return found

    def legacy_table(self, family: Family, name: str) -> Table | None:
        """A legacy table, decoded when it is used; ``None`` where the kernel has none."""
        if family not in self._legacy:
            self._legacy[family] = Tables(self._namespace, family)
        read = self._legacy[family].entries(name)
        return None if read is None else decode_table(family, name, read.info, read.entries)

    def has_chain(self, name: ChainName) -> bool:
        """Whether nf_tables has this chain."""
        return self._chains.exists(name)

    def rule_count(self, *, legacy: bool) -> int:
        """How many rules iptables-nft, or iptables-legacy, has in both families: what iptables-save would print."""
        if not legacy:
            return sum(self._chains.count_rules(family.nft, IPTABLES_TABLES) for family in Family)
        tables = (self.legacy_table(family, name) for family in Family for name in IPTABLES_TABLES)
        return sum(len(chain.rules) for table in tables if table is not None for chain in table.chains.values())

    def has_legacy(self) -> bool:
        """Whether there is a legacy table, in any family."""
        return any(self.legacy_present(family, table) for family in Family for table in IPTABLES_TABLES)

    def legacy_present(self, family: Family, name: str) -> bool:
        """Whether a legacy table is there; this does not create it."""
        if family not in self._legacy:
            self._legacy[family] = Tables(self._namespace, family)
        return self._legacy[family].present(name)

    # --- for healing, and until the rules of all programs are read

    def egress_rules(self, families: Collection[Family]) -> Ruleset:
        """The chains that a forwarded packet can pass, from FORWARD, POSTROUTING and our native tables."""
        tables: list[Table] = []
        for family in families:
            for table, bases in (("nat", ("POSTROUTING",)), ("filter", ("FORWARD",))):
                tables.append(self._reachable(family, table, bases))
                legacy = self.legacy_table(family, table)
                if legacy is not None:
                    tables.append(legacy)
            ours = [Place(each, family, purpose).names for each in Backend if each.native for purpose in Purpose]
            for table in dict.fromkeys(names.table for names in ours):
                tables.append(self._reachable(family, table, [each.chain for each in ours if each.table == table]))
        return Ruleset(tuple(table for table in tables if table.legacy or table.chains))

    def _reachable(self, family: Family, table: str, bases: Iterable[str]) -> Table:
        chains: dict[str, Chain] = {}
        pending = list(bases)
        while pending and len(chains) < _MOST_CHAINS:
            read = self._chains.read(ChainName(family.nft, table, name) for name in pending)
            chains.update({name.chain: chain for name, chain in read.items()})
            targets = {name for chain in read.values() for name in jump_targets(chain)}
            pending = sorted(targets - chains.keys())[: _MOST_CHAINS - len(chains)]
        for name in {name for chain in chains.values() for name in jump_targets(chain)} - chains.keys():
            chains[name] = Chain(name, (_UNREAD,))
        return Table(family.nft, table, chains)


def _policy(base: Chain | None) -> str:
    """What a base chain does with packets that no rule decided."""
    return base.hook.policy if base and base.hook else "accept"
