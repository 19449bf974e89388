"""Compares chains of a mirrored state with the kernel's.

Problem: a state that is kept current by events alone would stay wrong after one misunderstood event. Promise:
each chain that differs is named; the caller makes sure that nothing is committed during the comparison. Next stage:
``mirror``.
"""

from __future__ import annotations

from collections.abc import Iterable

from hitless.kernel import netlink
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.prefilter import LONG_CHAIN
from hitless.kernel.nftables.state import State, TableKey

__all__ = ["different"]


def different(control: netlink.Socket, state: State, chains: Iterable[tuple[str, str, str]]) -> list[str]:
    """Those of the chains (nft family, table, name) that differ from the kernel's, as text for a message."""
    return [
        f"chain {name} of table {table}"
        for family, table, name in sorted(chains)
        if family in wire.NUMBERS and not _same(control, state, (wire.NUMBERS[family], table), name)
    ]


def _same(control: netlink.Socket, state: State, key: TableKey, name: str) -> bool:
    table = state.tables.get(key)
    known = table.chains.get(name) if table is not None else None
    found = dump.read_chain(control, key, name)
    if table is None or known is None or found is None:
        return known is None and found is None
    if list(found.rules) != list(known.rules) or found.hook != known.hook:
        return False
    # a rule keeps its handle as long as it exists unchanged, so that long chains need not be decoded
    return len(known.rules) > LONG_CHAIN or found.decoded(table) == known.decoded(table)
