"""What a packet is like at a point of its journey, and how conditions and effects change that.

Problem: a packet's mark, its translation and its connection's state are made by the rules that it has passed. Promise:
``Position`` is a value, so that equal ones merge; a bit of the mark that cannot be known stays unknown until a rule
asks for it, and then both ways are gone. Next stage: ``walk``.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.model.rules import Mark, SetMark, UnknownMark
from hitless.semantics.outcome import Translation, Visit

__all__ = ["Flow", "Position", "Trace", "marked", "unwind", "with_mark"]

Trace = tuple["Trace", Visit] | None
"""A journey, last visit first: cheap to extend and to share."""


class Position(NamedTuple):
    """What the packet is like; the bits ``unknown`` of ``mark`` are not known (and 0). ``state`` is conntrack's word
    for it: INVALID before conntrack has seen it, UNTRACKED when it was told to look away."""

    mark: int
    unknown: int
    translation: Translation | None
    state: str


Flow = dict[Position, Trace]


def unwind(trace: Trace) -> tuple[Visit, ...]:
    """A journey in its order."""
    visits = []
    while trace is not None:
        trace, visit = trace
        visits.append(visit)
    return tuple(reversed(visits))


def marked(step: SetMark | UnknownMark, position: Position) -> Position:
    """The position with its mark changed."""
    if isinstance(step, UnknownMark):
        return position._replace(mark=position.mark & ~step.mask, unknown=position.unknown | step.mask)
    unknown = position.unknown & ~step.mask
    return position._replace(mark=((position.mark & ~step.mask) ^ step.value) & ~unknown, unknown=unknown)


def with_mark(step: Mark, position: Position) -> tuple[Position | None, Position | None]:
    """The position with the condition known to hold, and with it known not to hold; ``None`` where it cannot be."""
    holds: Position | None
    fails: Position | None
    if step.value & ~step.mask or (position.mark ^ step.value) & step.mask & ~position.unknown:
        holds, fails = None, position  # a bit that is known differs
    elif not position.unknown & step.mask:
        holds, fails = position, None
    else:
        unknown = position.unknown & ~step.mask
        holds = position._replace(mark=(position.mark & ~step.mask | step.value) & ~unknown, unknown=unknown)
        fails = position
        open_bits = position.unknown & step.mask
        if not open_bits & (open_bits - 1):  # one bit only: if it is not this value, it is the other
            fails = position._replace(mark=position.mark | (open_bits & ~step.value), unknown=unknown)
    return (fails, holds) if step.negated else (holds, fails)
