"""What a transaction did, as others are told it: values only.

Next stages: ``transaction`` fills them in, ``replay`` gives them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hitless.kernel.nftables.interest import ObjectRef
from hitless.kernel.nftables.state import TableKey

__all__ = ["Desync", "ReplayedCommit", "SkippedCounts", "TableChange"]

SkippedCounts = Mapping[bytes, Sequence[int]]
"""Messages that were not fed, by the ``identity`` of what they were about: how many added and removed something."""

_NAMED = 6  # so many chains are named in a summary


class Desync(Exception):
    """What the events say does not fit the state; never leaves this package."""


@dataclass(slots=True)
class TableChange:
    """What one transaction did to one table. ``chains`` are those with changed rules or hooks, new or gone."""

    key: TableKey
    added: int = 0
    removed: int = 0
    chains: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    kept: bool = False  # something of interest was touched: a chain or set that is kept, or a hook that is asked
    hooks: set[str] = field(default_factory=set)  # where base chains came, went, changed policy, slept or woke
    counts: dict[str, list[int]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def count(self, chain: str, *, added: int = 0, removed: int = 0) -> None:
        """Book rules of ``chain``."""
        self.added += added
        self.removed += removed
        self.chains.add(chain)
        pair = self.counts.setdefault(chain, [0, 0])
        pair[0] += added
        pair[1] += removed

    def summary(self) -> str:
        """What happened, for people, in bounded length."""
        parts = list(self.words[:_NAMED])
        for chain, (added, removed) in list(self.counts.items())[:_NAMED]:
            signs = " ".join(text for number, text in ((removed, f"-{removed}"), (added, f"+{added}")) if number)
            parts.append(f"{chain}: {signs} rule{'s' if added + removed != 1 else ''}")
        parts += [f"set {name}" for name in sorted(self.sets)[:_NAMED] if not name.startswith("__")]
        more = max(0, len(self.words) - _NAMED) + max(0, len(self.counts) - _NAMED)
        return "; ".join(parts) + (f"; and {more} more" if more else "")


@dataclass(frozen=True, slots=True)
class ReplayedCommit:
    """One committed transaction: its generation, who made it, and what it did to each table. ``needs``: chains and
    sets that are of interest now, and must be read."""

    generation: int
    pid: int
    comm: str
    changes: tuple[TableChange, ...]
    needs: tuple[tuple[TableKey, ObjectRef], ...] = ()
