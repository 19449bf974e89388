"""The state of a packet on its path, and how conditions and effects change it.

Problem: the rules that a packet has passed determine its mark, its connection's mark, its translation and its conntrack
state. Promise: ``WalkState`` is a value, so that equal states merge. A bit of a mark that is not known stays unknown
until a rule compares it; then both possibilities are followed. Next stage: ``walk``.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.model.matches.marks import equals
from hitless.model.rules import (
    ConnMark,
    ConntrackTemplate,
    Mark,
    MoveMark,
    SetConnMark,
    SetMark,
    SetProperty,
    UnknownMark,
)
from hitless.semantics.outcome import Translation, Visit

__all__ = ["CHANGES", "TEMPLATE", "Flow", "Trace", "WalkState", "changed", "unwind", "with_mark"]

Trace = tuple["Trace", Visit] | None
"""The path so far, last visit first: cheap to extend and to share."""

_ALL = 0xFFFFFFFF
_NONE = frozenset[str]()
TEMPLATE = "TEMPLATE"
CHANGES = (SetMark, SetConnMark, MoveMark, UnknownMark, SetProperty, ConntrackTemplate)
"""Effects that only change the state of the packet."""


class WalkState(NamedTuple):
    """The state of the packet. The bits ``unknown`` of ``mark`` are not known (and 0), as are ``ct_unknown`` of the
    connection's ``ct_mark``. ``ct_state`` is the conntrack state: INVALID before conntrack has seen the packet,
    UNTRACKED after a NOTRACK. ``touched``: properties and sets that a rule on the path has changed. ``zone``: the
    conntrack zone of its connection; -1: not known, or different for the two directions."""

    mark: int
    unknown: int
    translation: Translation | None
    ct_state: str
    ct_mark: int = 0
    ct_unknown: int = 0
    touched: frozenset[str] = _NONE
    zone: int = 0

    @property
    def connected(self) -> bool:
        """Whether the packet has a connection, whose mark rules can read and change."""
        return self.ct_state not in ("INVALID", "UNTRACKED", TEMPLATE)


Flow = dict[WalkState, Trace]


def unwind(trace: Trace) -> tuple[Visit, ...]:
    """The visits of a path in their order."""
    visits = []
    while trace is not None:
        trace, visit = trace
        visits.append(visit)
    return tuple(reversed(visits))


_Change = SetMark | SetConnMark | MoveMark | UnknownMark | SetProperty | ConntrackTemplate


def changed(step: _Change, state: WalkState) -> WalkState:
    """The state after an effect that decides nothing by itself."""
    match step:
        case SetMark(value, mask):
            unknown = state.unknown & ~mask
            return state._replace(mark=((state.mark & ~mask) ^ value) & ~unknown, unknown=unknown)
        case SetProperty(name):
            return state._replace(touched=state.touched | {name})
        case ConntrackTemplate():
            return _with_template(step, state)
        case MoveMark(True, cleared) if state.ct_state == TEMPLATE:  # xtables reads the template's mark, nft does not
            return state._replace(mark=state.mark & ~cleared, unknown=state.unknown | cleared)
        case UnknownMark(mask, False):
            return state._replace(mark=state.mark & ~mask, unknown=state.unknown | mask)
    if not state.connected:
        return state  # without a connection these effects do nothing
    match step:
        case SetConnMark(value, mask):
            unknown = state.ct_unknown & ~mask
            return state._replace(ct_mark=((state.ct_mark & ~mask) ^ value) & ~unknown, ct_unknown=unknown)
        case UnknownMark(mask, True):
            return state._replace(ct_mark=state.ct_mark & ~mask, ct_unknown=state.ct_unknown | mask)
        case MoveMark():
            return _moved(step, state)
    raise AssertionError(step)  # pragma: no cover - every change is above


def _with_template(step: ConntrackTemplate, state: WalkState) -> WalkState:
    tracked_again = state.ct_state == "UNTRACKED" and step.after_notrack
    if state.ct_state != "INVALID" and not tracked_again:  # conntrack has seen it, or it has a template
        return state
    touched = state.touched | {"ct helper"} if step.helper else state.touched
    return state._replace(ct_state=TEMPLATE, touched=touched, zone=-1 if step.zone is None else step.zone)


def _moved(step: MoveMark, state: WalkState) -> WalkState:
    if step.restore:
        own, source = (state.mark, state.unknown), (state.ct_mark, state.ct_unknown)
    else:
        own, source = (state.ct_mark, state.ct_unknown), (state.mark, state.unknown)
    given, doubt = (_shifted(part & step.taken, step.shift) for part in source)
    unknown = (own[1] & ~step.cleared) | doubt
    value = ((own[0] & ~step.cleared) ^ given ^ step.value) & ~unknown
    if step.restore:
        return state._replace(mark=value, unknown=unknown)
    return state._replace(ct_mark=value, ct_unknown=unknown)


def _shifted(value: int, shift: int) -> int:
    return (value << shift & _ALL) if shift >= 0 else value >> -shift


def with_mark(step: Mark | ConnMark, state: WalkState) -> tuple[WalkState | None, WalkState | None]:
    """The state if the condition holds, and if it does not; ``None`` where that is impossible."""
    if isinstance(step, ConnMark):
        if state.ct_state == TEMPLATE:
            return state, state
        if not state.connected:
            return None, state
        swapped = state._replace(
            mark=state.ct_mark, unknown=state.ct_unknown, ct_mark=state.mark, ct_unknown=state.unknown
        )
        holds, fails = with_mark(Mark(step.value, step.mask, step.negated), swapped)
        return _swapped(holds), _swapped(fails)
    matched = equals(step.value, step.mask, state.mark, state.unknown)
    if matched is False:  # a known bit differs
        holds, fails = None, state
    elif matched is True:
        holds, fails = state, None
    else:
        unknown = state.unknown & ~step.mask
        holds = state._replace(mark=(state.mark & ~step.mask | step.value) & ~unknown, unknown=unknown)
        fails = state
        open_bits = state.unknown & step.mask
        if not open_bits & (open_bits - 1):  # a single bit: if it does not have this value, it has the other
            fails = state._replace(mark=state.mark | (open_bits & ~step.value), unknown=unknown)
    return (fails, holds) if step.negated else (holds, fails)


def _swapped(state: WalkState | None) -> WalkState | None:
    if state is None:
        return None
    return state._replace(mark=state.ct_mark, unknown=state.ct_unknown, ct_mark=state.mark, ct_unknown=state.unknown)
