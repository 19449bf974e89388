"""Sets and maps of nf_tables: elements on the wire, and what looking one up means.

Problem: the kernel keeps an interval set as marked ends (rbtree) or as pairs (concatenations), and a rule that looks
something up stands for as many rules as the set has elements. Promise: ``SetState.intervals`` are the set's elements as
closed intervals; ``None`` when the rules alone do not tell what is in the set (it
changes with packets or time, or it is larger than anybody's). Next stage: ``expressions`` makes conditions of lookups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hitless.kernel import netlink
from hitless.kernel.nftables import wire

__all__ = ["LIMIT", "Interval", "SetState"]

LIMIT = 4096
"""More elements of a set than this are not spelt out in a rule: an evaluation of one packet must stay quick."""

_MOST = 1 << 17
"""Elements of a set that are looked at."""


class Interval(NamedTuple):
    """``low`` to ``high``, both included (for concatenated keys: in each field); ``data`` is what a map gives, raw."""

    low: bytes
    high: bytes
    data: bytes


class _Element(NamedTuple):
    key: bytes
    key_end: bytes
    flags: int
    data: bytes
    timed: bool


def _element(attributes: dict[int, bytes]) -> _Element:
    def value(kind: int) -> bytes:
        raw = attributes.get(kind)
        return b"" if raw is None else netlink.attributes(raw).get(wire.DATA_VALUE, b"")

    return _Element(
        value(wire.ELEMENT_KEY),
        value(wire.ELEMENT_KEY_END),
        wire.number(attributes.get(wire.ELEMENT_FLAGS, b"")),
        attributes.get(wire.ELEMENT_DATA, b""),
        wire.ELEMENT_TIMEOUT in attributes,
    )


@dataclass(slots=True)
class SetState:
    """A set as the kernel told of it: its head, and its elements by what identifies them."""

    name: str
    flags: int = 0
    key_type: int = 0
    key_length: int = 0
    handle: int = 0
    elements: dict[tuple[bytes, bytes, int], _Element] = field(default_factory=dict)
    _intervals: tuple[Interval, ...] | None = None
    _known: bool = False

    @classmethod
    def read(cls, attributes: dict[int, bytes]) -> SetState:
        """The set that a message describes, without elements."""
        return cls(
            netlink.to_text(attributes.get(wire.SET_NAME, b"")),
            wire.number(attributes.get(wire.SET_FLAGS, b"")),
            wire.number(attributes.get(wire.SET_KEY_TYPE, b"")),
            wire.number(attributes.get(wire.SET_KEY_LENGTH, b"")),
            wire.number(attributes.get(wire.SET_HANDLE, b"")),
        )

    def copy(self) -> SetState:
        """A set of its own with the same elements."""
        return SetState(self.name, self.flags, self.key_type, self.key_length, self.handle, dict(self.elements))

    def apply(self, listed: bytes, *, remove: bool = False) -> int:
        """Add (or ``remove``) the elements of an element list; returns how many there were."""
        pairs = netlink.attribute_list(listed)
        for _, raw in pairs:
            element = _element(netlink.attributes(raw))
            identity = (element.key, element.key_end, element.flags)
            if remove:
                self.elements.pop(identity, None)
            else:
                self.elements[identity] = element
        self._known = False
        return len(pairs)

    @property
    def anonymous(self) -> bool:
        """Whether the set belongs to one rule."""
        return bool(self.flags & wire.SET_ANONYMOUS)

    @property
    def is_map(self) -> bool:
        """Whether it gives data for its keys."""
        return bool(self.flags & wire.SET_MAP)

    def intervals(self) -> tuple[Interval, ...] | None:
        """The elements, or ``None`` when they cannot be told."""
        if not self._known:
            self._intervals = self._read_intervals()
            self._known = True
        return self._intervals

    def _read_intervals(self) -> tuple[Interval, ...] | None:
        if self.flags & (wire.SET_TIMEOUT | wire.SET_EVAL | wire.SET_OBJECT) or len(self.elements) > _MOST:
            return None
        elements = self.elements.values()
        if any(element.timed or element.flags & wire.ELEMENT_CATCHALL for element in elements):
            return None
        if not self.flags & wire.SET_INTERVAL or self.flags & wire.SET_CONCAT:
            return tuple(sorted(Interval(each.key, each.key_end or each.key, each.data) for each in elements))
        return self._marked_ends()

    def _marked_ends(self) -> tuple[Interval, ...] | None:
        """Interval sets without concatenation: an element begins an interval, one with the end flag stands just
        behind its last member; without one the interval goes on to the largest value."""
        ends = sorted(self.elements.values(), key=lambda e: (e.key, not e.flags & wire.ELEMENT_INTERVAL_END))
        found: list[Interval] = []
        open_at: _Element | None = None
        for element in ends:
            if open_at is not None:
                width = len(element.key)
                last = (int.from_bytes(element.key, "big") - 1).to_bytes(width, "big")
                found.append(Interval(open_at.key, last, open_at.data))
                open_at = None
            if not element.flags & wire.ELEMENT_INTERVAL_END:
                if element.key_end:
                    found.append(Interval(element.key, element.key_end, element.data))
                else:
                    open_at = element
        if open_at is not None:
            found.append(Interval(open_at.key, b"\xff" * len(open_at.key), open_at.data))
        return tuple(found)
