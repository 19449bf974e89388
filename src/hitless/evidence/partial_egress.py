"""Pods that were not carried although others were: neither a gap nor silence.

Problem: a network policy keeps some pods in, and so does half an outage; the rules do not say which it is. Promise:
every sentence of the watch that some pods are not carried is told once, with how long it held from the first restart
on, and whether it held before that: then it is no consequence of a restart. It changes no verdict. Next stage:
``verdict``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hitless.evidence.criteria import duration
from hitless.evidence.records import Record

__all__ = ["partly"]

_MOST = 10


def partly(records: Iterable[Record]) -> tuple[str, ...]:
    """The sentences of all records, at most so many as people read."""
    found = list(dict.fromkeys(words for record in records for words in _of(record)))
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
        for words, length in held.items():
            since = "also before the first restart" if words in before else "not before the first restart"
            where = f"{network} on {record.node}" if record.node else network
            yield f"{where}: {words}; for {duration(length / 1e6)} of the drill, {since}"
