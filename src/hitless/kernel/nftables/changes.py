"""What a transaction changed: values only.

Next stages: ``transaction`` fills them in, ``replay`` returns them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hitless.kernel.nftables.interest import ObjectRef
from hitless.kernel.nftables.state import TableKey

__all__ = ["Desync", "ReplayedCommit", "SkippedCounts", "TableChange"]

SkippedCounts = Mapping[bytes, Sequence[int]]
"""Messages that were counted instead of applied, by the ``identity`` of their chain or set: how many added and removed
something.
"""

_NAMED = 6  # chains named in a summary


class Desync(Exception):
    """The events do not fit the known state; never leaves this package."""


@dataclass(slots=True)
class TableChange:
    """What one transaction changed in one table. ``chains``: those with changed rules or hooks, new or removed."""

    key: TableKey
    added: int = 0
    removed: int = 0
    chains: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    kept: bool = False  # something of interest changed: a kept chain or set, or a hook
    hooks: set[str] = field(default_factory=set)  # of base chains that were added, removed or changed
    counts: dict[str, list[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, chain: str, *, added: int = 0, removed: int = 0) -> None:
        """Add to the counts of rules of ``chain``."""
        self.added += added
        self.removed += removed
        self.chains.add(chain)
        pair = self.counts.setdefault(chain, [0, 0])
        pair[0] += added
        pair[1] += removed

    def summary(self) -> str:
        """What changed, for users, in bounded length."""
        parts = list(self.notes[:_NAMED])
        for chain, (added, removed) in list(self.counts.items())[:_NAMED]:
            signs = " ".join(text for number, text in ((removed, f"-{removed}"), (added, f"+{added}")) if number)
            parts.append(f"{chain}: {signs} rule{'s' if added + removed != 1 else ''}")
        parts += [f"set {name}" for name in sorted(self.sets)[:_NAMED] if not name.startswith("__")]
        more = max(0, len(self.notes) - _NAMED) + max(0, len(self.counts) - _NAMED)
        return "; ".join(parts) + (f"; and {more} more" if more else "")


@dataclass(frozen=True, slots=True)
class ReplayedCommit:
    """One committed transaction: its generation, its writer, and what it changed in each table. ``needs``: chains and
    sets that have become of interest, and must be read."""

    generation: int
    pid: int
    comm: str
    changes: tuple[TableChange, ...]
    needs: tuple[tuple[TableKey, ObjectRef], ...] = ()
