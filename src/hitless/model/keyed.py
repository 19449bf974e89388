"""Comparing two sets of values with keys.

Problem: links, addresses, routes, neighbours and forwarding entries are all compared alike: what is missing,
what has another value, what should not be there. Promise: ``delta`` does so for any mapping, for all keys or for some;
it does not depend on what the values mean, and does not order them. Next stage: ``hitless.plan`` decides what to do
about it, and in which order.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Delta", "delta"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Delta(Generic[V]):
    """``add``: desired and not there. ``change``: (observed, desired), which differ. ``remove``: there, not desired."""

    add: tuple[V, ...] = ()
    change: tuple[tuple[V, V], ...] = ()
    remove: tuple[V, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.add or self.change or self.remove)


def delta(desired: Mapping[K, V], observed: Mapping[K, V], keys: Iterable[K] | None = None) -> Delta[V]:
    """The difference in the order of ``desired``, then of ``observed``; with ``keys``: of those only."""
    if keys is None and desired == observed:  # the usual case, and a mapping's own comparison is the quickest
        return Delta()
    add: list[V] = []
    change: list[tuple[V, V]] = []
    remove: list[V] = []
    wanted = desired if keys is None else tuple(dict.fromkeys(keys))
    for key in wanted:
        new, old = desired.get(key), observed.get(key)
        if new is None:
            if old is not None:
                remove.append(old)
        elif old is None:
            add.append(new)
        elif old is not new and old != new:
            change.append((old, new))
    if keys is None:
        remove += [value for key, value in observed.items() if key not in desired]
    return Delta(tuple(add), tuple(change), tuple(remove))
