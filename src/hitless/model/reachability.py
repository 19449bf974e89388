"""Reachability: the one traversal of chains and of the chains, sets and maps that their rules refer to.

Pure. Next stages: ``rules`` (chains of a table), ``kernel.nftables`` (chains and sets as they are read), ``guard``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

__all__ = ["reachable"]

_Node = TypeVar("_Node", bound=Hashable)


def reachable(starts: Iterable[_Node], leads: Callable[[_Node], Iterable[_Node]]) -> dict[_Node, None]:
    """``starts`` and everything reachable from them, nearest first, each once; a dictionary because the order matters.
    ``leads`` is called once for each."""
    found = dict.fromkeys(starts)
    todo = deque(found)
    while todo:
        for other in leads(todo.popleft()):
            if other not in found:
                found[other] = None
                todo.append(other)
    return found
