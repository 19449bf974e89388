"""What a packet is like at a point of its journey, and how conditions and effects change that.

Problem: a packet's mark, its connection's mark, its translation and its connection's state are made by the rules that
it has passed. Promise: ``Position`` is a value, so that equal ones merge; a bit of a mark that cannot be known stays
unknown until a rule asks for it, and then both ways are gone. Next stage: ``walk``.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.model.matches.marks import equals
from hitless.model.rules import ConnMark, Mark, MoveMark, SetConnMark, SetMark, SetProperty, UnknownMark
from hitless.semantics.outcome import Translation, Visit

__all__ = ["CHANGES", "ZONE", "Flow", "Position", "Trace", "changed", "unwind", "with_mark"]

Trace = tuple["Trace", Visit] | None
"""A journey, last visit first: cheap to extend and to share."""

_ALL = 0xFFFFFFFF
_NOBODY = frozenset[str]()
ZONE = "ct zone"
CHANGES = (SetMark, SetConnMark, MoveMark, UnknownMark, SetProperty)
"""Effects that only change what a packet is like."""


class Position(NamedTuple):
    """What the packet is like; the bits ``unknown`` of ``mark`` are not known (and 0), as are ``ct_unknown`` of the
    connection's ``ct_mark``. ``state`` is conntrack's word for it: INVALID before conntrack has seen it, UNTRACKED when
    it was told to look away. ``touched``: properties and sets that a rule on the way has changed. ``zone``: the
    conntrack zone of its connection; -1: not known, or another one for each direction."""

    mark: int
    unknown: int
    translation: Translation | None
    state: str
    ct_mark: int = 0
    ct_unknown: int = 0
    touched: frozenset[str] = _NOBODY
    zone: int = 0

    @property
    def connected(self) -> bool:
        """Whether the packet has a connection, whose mark rules can ask for and change."""
        return self.state not in ("INVALID", "UNTRACKED")


Flow = dict[Position, Trace]


def unwind(trace: Trace) -> tuple[Visit, ...]:
    """A journey in its order."""
    visits = []
    while trace is not None:
        trace, visit = trace
        visits.append(visit)
    return tuple(reversed(visits))


def changed(step: SetMark | SetConnMark | MoveMark | UnknownMark | SetProperty, position: Position) -> Position:
    """The position after an effect that decides nothing by itself."""
    match step:
        case SetMark(value, mask):
            unknown = position.unknown & ~mask
            return position._replace(mark=((position.mark & ~mask) ^ value) & ~unknown, unknown=unknown)
        case SetProperty(name):
            chosen = name == ZONE and position.state == "INVALID"  # later, the connection has its zone already
            zone = position.zone if not chosen else -1 if step.value is None else step.value
            return position._replace(touched=position.touched | {name}, zone=zone)
        case UnknownMark(mask, False):
            return position._replace(mark=position.mark & ~mask, unknown=position.unknown | mask)
    if not position.connected:
        return position  # without a connection these rules do nothing
    match step:
        case SetConnMark(value, mask):
            unknown = position.ct_unknown & ~mask
            return position._replace(ct_mark=((position.ct_mark & ~mask) ^ value) & ~unknown, ct_unknown=unknown)
        case UnknownMark(mask, True):
            return position._replace(ct_mark=position.ct_mark & ~mask, ct_unknown=position.ct_unknown | mask)
        case MoveMark():
            return _moved(step, position)
    raise AssertionError(step)  # pragma: no cover - every change is above


def _moved(step: MoveMark, position: Position) -> Position:
    if step.restore:
        own, source = (position.mark, position.unknown), (position.ct_mark, position.ct_unknown)
    else:
        own, source = (position.ct_mark, position.ct_unknown), (position.mark, position.unknown)
    given, doubt = (_shifted(part & step.taken, step.shift) for part in source)
    unknown = (own[1] & ~step.cleared) | doubt
    value = ((own[0] & ~step.cleared) ^ given ^ step.value) & ~unknown
    if step.restore:
        return position._replace(mark=value, unknown=unknown)
    return position._replace(ct_mark=value, ct_unknown=unknown)


def _shifted(value: int, shift: int) -> int:
    return (value << shift & _ALL) if shift >= 0 else value >> -shift


def with_mark(step: Mark | ConnMark, position: Position) -> tuple[Position | None, Position | None]:
    """The position with the condition known to hold, and with it known not to hold; ``None`` where it cannot be."""
    if isinstance(step, ConnMark):
        if not position.connected:
            return None, position
        swapped = position._replace(
            mark=position.ct_mark, unknown=position.ct_unknown, ct_mark=position.mark, ct_unknown=position.unknown
        )
        holds, fails = with_mark(Mark(step.value, step.mask, step.negated), swapped)
        return _swapped(holds), _swapped(fails)
    matched = equals(step.value, step.mask, position.mark, position.unknown)
    if matched is False:  # a bit that is known differs
        holds, fails = None, position
    elif matched is True:
        holds, fails = position, None
    else:
        unknown = position.unknown & ~step.mask
        holds = position._replace(mark=(position.mark & ~step.mask | step.value) & ~unknown, unknown=unknown)
        fails = position
        open_bits = position.unknown & step.mask
        if not open_bits & (open_bits - 1):  # one bit only: if it is not this value, it is the other
            fails = position._replace(mark=position.mark | (open_bits & ~step.value), unknown=unknown)
    return (fails, holds) if step.negated else (holds, fails)


def _swapped(position: Position | None) -> Position | None:
    if position is None:
        return None
    return position._replace(
        mark=position.ct_mark, unknown=position.ct_unknown, ct_mark=position.mark, ct_unknown=position.unknown
    )
