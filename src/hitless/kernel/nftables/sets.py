"""Sets and maps of nf_tables: elements on the wire, and what looking one up means.

Problem: the kernel keeps an interval set as marked ends (rbtree) or as pairs (concatenations), a rule that looks
something up stands for as many rules as the set has elements, and most large sets of a node are no pod's business.
Promise: a set is *kept* (its elements are known) or it is not, and then nobody can tell what is in it;
``SetState.intervals`` are the elements as closed intervals, ``holding`` those that a value may be in, ``members`` the
addresses of a large set, all ``None`` when the rules alone do not tell what is in the set (it changes with packets or
time, or it is larger than anybody's). Next stage: ``expressions`` makes conditions of lookups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.elements import Element, Elements, networks_between
from hitless.kernel.nftables.limits import condition_of
from hitless.model.families import Address, Network

__all__ = ["LIMIT", "Interval", "Members", "SetState", "is_limited", "read_elements"]

LIMIT = 4096
"""More elements of a set than this are not spelt out in a rule: an evaluation of one packet must stay quick."""

_MOST_BYTES = 24 << 20
"""A set of more than this is not kept; IPv4 addresses of two and a half million elements fit in."""


class Interval(NamedTuple):
    """``low`` to ``high``, both included (for concatenated keys: in each field); ``data`` is what a map gives, raw."""

    low: bytes
    high: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Members:
    """The addresses of a set, as they were when it was read; asked one by one, in logarithmic time."""

    elements: Elements
    intervals: bool

    def __len__(self) -> int:
        return len(self.elements)

    def networks(self) -> Iterator[Network]:
        """All of them, as networks; of some sets these are millions."""
        listed = _marked_ends(self.elements) if self.intervals else map(_pair, self.elements)
        for each in listed:
            yield from networks_between(each.low, each.high)

    def covers(self, address: Address) -> bool:
        """Whether the address is in the set."""
        value = address.packed
        return len(value) == self.elements.width and _covering(self.elements, value, self.intervals) is not None


def _covering(elements: Elements, value: bytes, intervals: bool) -> Interval | None:
    """The element or interval that ``value`` is in, in a set of single keys or marked ends."""
    found = elements.before(value)
    if found is None or found.flags & wire.ELEMENT_INTERVAL_END:
        return None
    if found.key == value or not intervals:
        return Interval(value, value, found.data) if found.key == value else None
    after = next((each for each in elements.beginning(found.key) if each.key > found.key), None)
    return Interval(found.key, b"\xff" * len(value) if after is None else _below(after.key), found.data)


def _below(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")


def _simple(width: int) -> bytes:
    """An element of nothing but a key, byte for byte as the kernel tells of it, up to the key."""
    key = netlink.attribute(wire.DATA_VALUE, bytes(width))
    return netlink.nested(1, netlink.nested(wire.ELEMENT_KEY, key))[:-width]


_SIMPLE = {width: _simple(width) for width in (4, 16)}


def read_elements(listed: bytes) -> Iterator[Element]:
    """The elements of an element list."""
    width = len(listed) - 12
    if listed[:12] == _SIMPLE.get(width):  # one alone, as events tell of most
        yield Element(listed[12:], b"", 0)
        return
    for _, raw in netlink.attribute_list(listed):
        attributes = netlink.attributes(raw)
        yield Element(
            _value(attributes.get(wire.ELEMENT_KEY)),
            _value(attributes.get(wire.ELEMENT_KEY_END)),
            wire.number(attributes.get(wire.ELEMENT_FLAGS, b"")),
            attributes.get(wire.ELEMENT_DATA, b""),
        )


def is_limited(attributes: dict[int, bytes]) -> bool:
    """Whether an element holds a rate or quota of its own, so that being in the set is not enough."""
    each = [attributes[wire.ELEMENT_EXPRESSION]] if wire.ELEMENT_EXPRESSION in attributes else []
    each += [raw for _, raw in netlink.attribute_list(attributes.get(wire.ELEMENT_EXPRESSIONS, b""))]
    return any(condition_of(raw) for raw in each)


def _value(raw: bytes | None) -> bytes:
    return b"" if raw is None else netlink.attributes(raw).get(wire.DATA_VALUE, b"")


class SetState:
    """A set as the kernel told of it: its head, and its elements where it is ``kept``."""

    __slots__ = (
        "_elements",
        "_intervals",
        "_known",
        "catch_all",
        "data_type",
        "flags",
        "handle",
        "kept",
        "key_length",
        "key_type",
        "most",
        "name",
        "refused",
    )

    def __init__(
        self, name: str, flags: int = 0, key_type: int = 0, key_length: int = 0, handle: int = 0, data_type: int = 0
    ) -> None:
        self.name, self.flags, self.key_type, self.key_length, self.handle = name, flags, key_type, key_length, handle
        self.data_type = data_type
        self.most = 0  # how many elements it may have, where it says so
        self.catch_all: bytes | None = None  # what the element for everything else ("*") gives
        self.kept = True
        self.refused = False  # it was kept, and is too large for that
        self._elements: Elements | None = None
        self._intervals: tuple[Interval, ...] | None = None
        self._known = False

    @classmethod
    def read(cls, attributes: dict[int, bytes]) -> SetState:
        """The set that a message describes, without elements."""
        made = cls(
            netlink.to_text(attributes.get(wire.SET_NAME, b"")),
            wire.number(attributes.get(wire.SET_FLAGS, b"")),
            wire.number(attributes.get(wire.SET_KEY_TYPE, b"")),
            wire.number(attributes.get(wire.SET_KEY_LENGTH, b"")),
            wire.number(attributes.get(wire.SET_HANDLE, b"")),
            wire.number(attributes.get(wire.SET_DATA_TYPE, b"")),
        )
        described = netlink.attributes(attributes[wire.SET_DESC]) if wire.SET_DESC in attributes else {}
        made.most = wire.number(described.get(wire.SET_DESC_SIZE, b""))
        return made

    def copy(self) -> SetState:
        """A set of its own with the same elements."""
        other = SetState(self.name, self.flags, self.key_type, self.key_length, self.handle, self.data_type)
        other.kept, other.refused, other.catch_all = self.kept, self.refused, self.catch_all
        other.most = self.most
        other._elements = None if self._elements is None else self._elements.copy()
        return other

    def forget(self) -> None:
        """Keep no elements from now on."""
        self.kept, self._elements, self._intervals, self._known = False, None, None, False

    def refuse(self) -> None:
        """Keep no elements, as they are too many; the kernel can be asked whether something is among them."""
        self.forget()
        self.refused = True

    def load(self, lists: Iterable[bytes]) -> None:
        """Keep what these element lists hold, and nothing else."""
        self.kept, self._elements, self._known = True, self._empty(), False
        self.catch_all = None
        self._elements.load(self._plain(listed) for listed in lists)
        self._bounded()

    def apply(self, *lists: bytes, remove: bool = False) -> None:
        """Add (or ``remove``) the elements of element lists, if it is kept."""
        if not self.kept:
            return
        if self._elements is None:
            self._elements = self._empty()
        elements = (each for listed in lists for each in self._plain(listed, remove=remove))
        (self._elements.remove if remove else self._elements.add)(elements)
        self._known = False
        self._bounded()

    def _plain(self, listed: bytes, *, remove: bool = False) -> Iterator[Element]:
        """The elements that have a key; the one for all other keys is kept by itself."""
        for element in read_elements(listed):
            if element.flags & wire.ELEMENT_CATCHALL:
                self.catch_all = None if remove else element.data
            else:
                yield element

    def _empty(self) -> Elements:
        return Elements(self.key_length, ends=bool(self.flags & wire.SET_INTERVAL and self.flags & wire.SET_CONCAT))

    def _bounded(self) -> None:
        if self._elements is not None and self._elements.size > _MOST_BYTES:
            self.refuse()

    @property
    def elements(self) -> Elements:
        """What is in it, as far as it is kept."""
        return self._empty() if self._elements is None else self._elements

    @property
    def size(self) -> int:
        """How many bytes its elements take."""
        return 0 if self._elements is None else self._elements.size

    @property
    def anonymous(self) -> bool:
        """Whether the set belongs to one rule."""
        return bool(self.flags & wire.SET_ANONYMOUS)

    @property
    def is_map(self) -> bool:
        """Whether it gives data for its keys."""
        return bool(self.flags & wire.SET_MAP)

    @property
    def gives_verdicts(self) -> bool:
        """Whether it is a verdict map."""
        return self.is_map and self.data_type == wire.DATA_VERDICTS

    @property
    def large(self) -> bool:
        """Whether it has more elements than are spelt out."""
        return len(self.elements) > LIMIT

    @property
    def _by_ends(self) -> bool:
        return bool(self.flags & wire.SET_INTERVAL) and not self.flags & wire.SET_CONCAT

    @property
    def dynamic(self) -> bool:
        """Whether it changes with packets or time, so that nobody need know what is in it now."""
        return bool(self.flags & (wire.SET_TIMEOUT | wire.SET_EVAL | wire.SET_OBJECT))

    @property
    def told(self) -> bool:
        """Whether the rules alone tell what is in it."""
        # what has another key than the set's is nothing known
        return self.kept and not self.dynamic and not self.elements.misfits

    def intervals(self) -> tuple[Interval, ...] | None:
        """The elements, or ``None`` when they cannot be told, or are too many."""
        if not self._known:
            self._intervals = tuple(self._read_intervals()) if self.told and not self.large else None
            self._known = True
        return self._intervals

    def holding(self, known: Sequence[tuple[slice, bytes]]) -> tuple[Interval, ...] | None:
        """The elements whose keys hold these values in these parts; ``None`` when they cannot be told, or are too
        many."""
        if not self.told:
            return None
        if self._by_ends:
            part, value = known[0]
            if len(known) == 1 and part.start == 0 and len(value) == self.key_length:
                found = _covering(self.elements, value, True)
                return () if found is None else (found,)
            listed: Iterable[Interval] = self._read_intervals()
        elif self.flags & wire.SET_INTERVAL:
            listed = map(_pair, self.elements.spanning(known))
        else:
            listed = map(_pair, self._from(_leading(known)[: self.key_length]))
        held: list[Interval] = []
        for each in listed:
            if all(each.low[part] <= value <= each.high[part] for part, value in known):
                held.append(each)
                if len(held) > LIMIT:
                    return None
        return tuple(held)

    def _from(self, value: bytes) -> Iterator[Element]:
        for each in self.elements.beginning(value):
            if not each.key.startswith(value):
                return
            yield each

    def members(self) -> Members | None:
        """The addresses that are in it; for sets without data whose key is an address."""
        return Members(self.elements, self._by_ends) if self.told and not self.flags & wire.SET_CONCAT else None

    def _read_intervals(self) -> Iterator[Interval]:
        return _marked_ends(self.elements) if self._by_ends else map(_pair, self.elements)


def _marked_ends(elements: Iterable[Element]) -> Iterator[Interval]:
    """Interval sets without concatenation: an element begins an interval, one with the end flag stands just behind its
    last member; without one the interval goes on to the largest value."""
    open_at: Element | None = None
    for element in elements:
        if open_at is not None:
            yield Interval(open_at.key, _below(element.key), open_at.data)
            open_at = None
        if not element.flags & wire.ELEMENT_INTERVAL_END:
            open_at = element
    if open_at is not None:
        yield Interval(open_at.key, b"\xff" * len(open_at.key), open_at.data)


def _leading(known: Iterable[tuple[slice, bytes]]) -> bytes:
    """The first bytes of every key that holds these values; parts stand in registers of four bytes."""
    found = b""
    for part, value in known:
        if part.start != len(found):
            break
        found = (found + value).ljust((part.stop + 3) & ~3, b"\0")
    return found


def _pair(element: Element) -> Interval:
    return Interval(element.key, element.key_end or element.key, element.data)
