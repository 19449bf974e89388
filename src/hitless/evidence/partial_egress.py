"""Pods that were not carried while others were: not a gap, and not normal either.

Problem: a network policy isolates some pods, and so does a partial outage; the rules look the same. Promise: each
reason that the watch gave for it is listed once, with how long it held from the first restart on, and whether it
already held before: then the restart did not cause it. The verdict does not change. Next stage: ``verdict``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hitless.evidence.phrases import duration
from hitless.evidence.records import Record

__all__ = ["partly"]

_MOST = 10


def partly(records: Iterable[Record]) -> tuple[str, ...]:
    """The sentences of all records, at most ``_MOST``."""
    found = list(dict.fromkeys(text for record in records for text in _of(record)))
    more = (f"and {len(found) - _MOST} more such times",) if len(found) > _MOST else ()
    return (*found[:_MOST], *more)


def _of(record: Record) -> Iterator[str]:
    begin = record.measured.begin
    for network in sorted({state.network for state in record.states}):
        mine = [state for state in record.states if state.network == network]
        ends = [state.t for state in mine[1:]] + [record.last]
        held: dict[str, int] = {}
        before: set[str] = set()
        for state, end in zip(mine, ends, strict=True):
            if state.partly:
                held[state.partly] = held.get(state.partly, 0) + max(0, end - max(state.t, begin))
                if state.t < begin:
                    before.add(state.partly)
        for reason, length in held.items():
            since = "also before the first restart" if reason in before else "not before the first restart"
            where = f"{network} on {record.node}" if record.node else network
            yield f"{where}: {reason}; for {duration(length / 1e6)} of the drill, {since}"
