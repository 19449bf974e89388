"""Finds and frees poisoned flows: those that the standby would translate, and that were bound without translation.

Promise: a flow is poisoned by the same rule as in the agent (``hitless.heal.flows``), and only such are freed; the
freed ones are listed, up to a bound. ``look`` only lists them, for ``--observe``. Next stage: ``healing`` says when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from hitless.guard.standby_rules import StandbyRules
from hitless.heal import heal, poisoned
from hitless.kernel.addresses import NodeFacts
from hitless.kernel.conntrack import SRC_NAT, Conntrack, Entry
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.families import Family, in_any

__all__ = ["Freed", "Healer"]

_LISTED = 20
_PROTOCOLS = {6: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}


@dataclass(slots=True)
class Freed:
    """How many flows, and the first of them as texts."""

    count: int = 0
    flows: list[str] = field(default_factory=list)


class _Recorder:
    """The connection table, with a memory of what was deleted (or, ``dry``, would have been)."""

    def __init__(self, table: Conntrack, freed: Freed, dry: bool) -> None:
        self._table = table
        self._freed = freed
        self._dry = dry

    def dump(self, family: Family, *, without: int = 0) -> Iterator[Entry]:
        return self._table.dump(family, without=without)

    def delete_all(self, family: Family, entries: Sequence[Entry]) -> Sequence[Entry]:
        gone = entries if self._dry else self._table.delete_all(family, entries)
        self._freed.count += len(gone)
        self._freed.flows += [_text(entry) for entry in gone[: _LISTED - len(self._freed.flows)]]
        return gone


class Healer:
    """One namespace's connection table and addresses; for one thread."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._table = Conntrack(namespace)
        self._facts = NodeFacts(namespace)

    def close(self) -> None:
        """Close the sockets."""
        self._table.close()
        self._facts.close()

    def heal(self, standby: StandbyRules, *, dry: bool = False) -> Freed:
        """Free every poisoned flow of the standby's family (``dry``: only list them)."""
        freed = Freed()
        networks = standby.networks
        heal(
            _Recorder(self._table, freed, dry),
            standby.family,
            networks,
            networks,
            lambda: self._facts.addresses(standby.family),
            standby.ruleset,
            lambda: self._facts.paths(standby.family),
        )
        return freed

    def untranslated(self, standby: StandbyRules) -> list[str]:
        """Flows that should be translated and are not, answered ones too (they leak, and are not ours to free)."""
        family, pods = standby.family, standby.networks
        found = [
            entry
            for entry in self._table.dump(family, without=SRC_NAT)
            if entry.reply.dst == entry.original.src
            and in_any(entry.original.src, pods)
            and not in_any(entry.reply.src, pods)
        ]
        if not found:
            return []
        own, paths = self._facts.addresses(family), self._facts.paths(family)
        return [_text(entry) for entry in islice(poisoned(found, own, standby.ruleset(), paths), _LISTED)]


def _text(entry: Entry) -> str:
    flow = entry.original
    name = _PROTOCOLS.get(flow.protocol, str(flow.protocol))
    ports = (f":{flow.sport}", f":{flow.dport}") if flow.dport else ("", "")
    left, right = (f"[{address}]" if address.version == 6 else str(address) for address in (flow.src, flow.dst))
    return f"{name} {left}{ports[0]} -> {right}{ports[1]}"
