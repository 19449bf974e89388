"""What can be got to from somewhere: the one walk over chains and the chains, sets and maps that their rules lead to.

Pure. Next stages: ``rules`` (chains of a table), ``kernel.nftables`` (chains and sets as they are read), ``guard``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

__all__ = ["reachable"]

_Node = TypeVar("_Node", bound=Hashable)


def reachable(starts: Iterable[_Node], leads: Callable[[_Node], Iterable[_Node]]) -> dict[_Node, None]:
    """``starts`` and all that they lead to, the nearest first, each once; a dictionary because its order counts.
    ``leads`` is called once for each."""
    found = dict.fromkeys(starts)
    todo = deque(found)
    while todo:
        for other in leads(todo.popleft()):
            if other not in found:
                found[other] = None
                todo.append(other)
    return found
