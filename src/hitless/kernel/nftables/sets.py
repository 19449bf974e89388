"""Sets and maps of nf_tables: reading their elements, and what a lookup in them means.

Problem: the kernel stores an interval set as marked ends (rbtree) or as pairs (concatenations), a rule with a lookup
may represent as many rules as the set has elements, and most large sets of a node are irrelevant for pods. Promise: a
set is *kept* (its elements are known) or not, and then its contents are unknown. ``SetState.intervals`` gives the
elements as closed intervals, ``intervals_containing`` those that match known parts of a key, ``members`` the addresses
of a large set; all are ``None`` when the rules alone do not determine the contents (packets or time change them, or
there are too many elements). Next stage: ``expressions`` turns lookups into conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.elements import SetElement, SetElements, networks_between
from hitless.kernel.nftables.limits import condition_of
from hitless.model.families import Address, Network

__all__ = ["LIMIT", "AddressMembers", "KeyInterval", "SetState", "is_limited", "read_elements"]

LIMIT = 4096
"""Sets with more elements are not spelt out in a rule: evaluating a packet must stay quick."""

_MOST_BYTES = 24 << 20
"""A larger set is not kept; the IPv4 addresses of two and a half million elements fit."""


class KeyInterval(NamedTuple):
    """``low`` to ``high``, both included (for concatenated keys: in each field); ``data`` is what a map gives, raw."""

    low: bytes
    high: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class AddressMembers:
    """The addresses of a set as they were when it was read; a lookup takes logarithmic time."""

    elements: SetElements
    intervals: bool

    def __len__(self) -> int:
        return len(self.elements)

    def networks(self) -> Iterator[Network]:
        """All of them as networks; some sets have millions."""
        listed = _marked_ends(self.elements) if self.intervals else map(_pair, self.elements)
        for each in listed:
            yield from networks_between(each.low, each.high)

    def covers(self, address: Address) -> bool:
        """Whether the address is in the set."""
        value = address.packed
        return len(value) == self.elements.width and _covering(self.elements, value, self.intervals) is not None


def _covering(elements: SetElements, value: bytes, intervals: bool) -> KeyInterval | None:
    """The element or interval that contains ``value``, in a set of single keys or of marked ends."""
    found = elements.before(value)
    if found is None or found.flags & wire.ELEMENT_INTERVAL_END:
        return None
    if found.key == value or not intervals:
        return KeyInterval(value, value, found.data) if found.key == value else None
    after = next((each for each in elements.beginning(found.key) if each.key > found.key), None)
    return KeyInterval(found.key, b"\xff" * len(value) if after is None else _below(after.key), found.data)


def _below(key: bytes) -> bytes:
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")


def _simple(width: int) -> bytes:
    """An element with nothing but a key, as the kernel encodes it, up to the key."""
    key = netlink.attribute(wire.DATA_VALUE, bytes(width))
    return netlink.nested(1, netlink.nested(wire.ELEMENT_KEY, key))[:-width]


_SIMPLE = {width: _simple(width) for width in (4, 16)}


def read_elements(listed: bytes) -> Iterator[SetElement]:
    """The elements of an element list."""
    width = len(listed) - 12
    if listed[:12] == _SIMPLE.get(width):  # a single element, as in most events
        yield SetElement(listed[12:], b"", 0)
        return
    for _, raw in netlink.attribute_list(listed):
        attributes = netlink.attributes(raw)
        yield SetElement(
            _value(attributes.get(wire.ELEMENT_KEY)),
            _value(attributes.get(wire.ELEMENT_KEY_END)),
            wire.number(attributes.get(wire.ELEMENT_FLAGS, b"")),
            attributes.get(wire.ELEMENT_DATA, b""),
        )


def is_limited(attributes: dict[int, bytes]) -> bool:
    """Whether an element has a rate limit or quota of its own, so that membership is not enough to match."""
    each = [attributes[wire.ELEMENT_EXPRESSION]] if wire.ELEMENT_EXPRESSION in attributes else []
    each += [raw for _, raw in netlink.attribute_list(attributes.get(wire.ELEMENT_EXPRESSIONS, b""))]
    return any(condition_of(raw) for raw in each)


def _value(raw: bytes | None) -> bytes:
    return b"" if raw is None else netlink.attributes(raw).get(wire.DATA_VALUE, b"")


class SetState:
    """A set as the kernel reports it: its head, and its elements where it is ``kept``."""

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
        "max_elements",
        "name",
        "too_large",
    )

    def __init__(
        self, name: str, flags: int = 0, key_type: int = 0, key_length: int = 0, handle: int = 0, data_type: int = 0
    ) -> None:
        self.name, self.flags, self.key_type, self.key_length, self.handle = name, flags, key_type, key_length, handle
        self.data_type = data_type
        self.max_elements = 0  # the declared size; 0: none
        self.catch_all: bytes | None = None  # the data of the catch-all element ("*")
        self.kept = True
        self.too_large = False  # it is not kept because it has too many elements
        self._elements: SetElements | None = None
        self._intervals: tuple[KeyInterval, ...] | None = None
        self._known = False

    @classmethod
    def read(cls, attributes: dict[int, bytes]) -> SetState:
        """The set that a message describes, without its elements."""
        made = cls(
            netlink.to_text(attributes.get(wire.SET_NAME, b"")),
            wire.number(attributes.get(wire.SET_FLAGS, b"")),
            wire.number(attributes.get(wire.SET_KEY_TYPE, b"")),
            wire.number(attributes.get(wire.SET_KEY_LENGTH, b"")),
            wire.number(attributes.get(wire.SET_HANDLE, b"")),
            wire.number(attributes.get(wire.SET_DATA_TYPE, b"")),
        )
        described = netlink.attributes(attributes[wire.SET_DESC]) if wire.SET_DESC in attributes else {}
        made.max_elements = wire.number(described.get(wire.SET_DESC_SIZE, b""))
        return made

    def copy(self) -> SetState:
        """An independent set with the same elements."""
        other = SetState(self.name, self.flags, self.key_type, self.key_length, self.handle, self.data_type)
        other.kept, other.too_large, other.catch_all = self.kept, self.too_large, self.catch_all
        other.max_elements = self.max_elements
        other._elements = None if self._elements is None else self._elements.copy()
        return other

    def drop_content(self) -> None:
        """Forget the elements, and keep none from now on."""
        self.kept, self._elements, self._intervals, self._known = False, None, None, False

    def drop_as_too_large(self) -> None:
        """The same because there are too many; the kernel can be asked about single elements."""
        self.drop_content()
        self.too_large = True

    def load(self, lists: Iterable[bytes]) -> None:
        """Replace the elements by those in these element lists."""
        self.kept, self._elements, self._known = True, self._empty(), False
        self.catch_all = None
        self._elements.load(self._plain(listed) for listed in lists)
        self._bounded()

    def apply(self, *lists: bytes, remove: bool = False) -> None:
        """Add (or ``remove``) the elements of element lists, if the set is kept."""
        if not self.kept:
            return
        if self._elements is None:
            self._elements = self._empty()
        elements = (each for listed in lists for each in self._plain(listed, remove=remove))
        (self._elements.remove if remove else self._elements.add)(elements)
        self._known = False
        self._bounded()

    def _plain(self, listed: bytes, *, remove: bool = False) -> Iterator[SetElement]:
        """The elements that have a key; the catch-all element is kept separately."""
        for element in read_elements(listed):
            if element.flags & wire.ELEMENT_CATCHALL:
                self.catch_all = None if remove else element.data
            else:
                yield element

    def _empty(self) -> SetElements:
        return SetElements(self.key_length, ends=bool(self.flags & wire.SET_INTERVAL and self.flags & wire.SET_CONCAT))

    def _bounded(self) -> None:
        if self._elements is not None and self._elements.size > _MOST_BYTES:
            self.drop_as_too_large()

    @property
    def elements(self) -> SetElements:
        """Its elements, as far as it is kept."""
        return self._empty() if self._elements is None else self._elements

    @property
    def size(self) -> int:
        """How many bytes its elements take."""
        return 0 if self._elements is None else self._elements.size

    @property
    def anonymous(self) -> bool:
        """Whether the set belongs to a single rule."""
        return bool(self.flags & wire.SET_ANONYMOUS)

    @property
    def is_map(self) -> bool:
        """Whether its elements have data."""
        return bool(self.flags & wire.SET_MAP)

    @property
    def gives_verdicts(self) -> bool:
        """Whether it is a verdict map."""
        return self.is_map and self.data_type == wire.DATA_VERDICTS

    @property
    def exceeds_limit(self) -> bool:
        """Whether it has too many elements to be spelt out in a rule."""
        return len(self.elements) > LIMIT

    @property
    def _by_ends(self) -> bool:
        return bool(self.flags & wire.SET_INTERVAL) and not self.flags & wire.SET_CONCAT

    @property
    def dynamic(self) -> bool:
        """Whether packets or time change its elements, so that what was read may be outdated."""
        return bool(self.flags & (wire.SET_TIMEOUT | wire.SET_EVAL | wire.SET_OBJECT))

    @property
    def is_known(self) -> bool:
        """Whether the rules alone determine its contents."""
        # an element whose key has another length is not understood
        return self.kept and not self.dynamic and not self.elements.misfits

    def intervals(self) -> tuple[KeyInterval, ...] | None:
        """The elements, or ``None`` when they are not known or too many."""
        if not self._known:
            self._intervals = tuple(self._read_intervals()) if self.is_known and not self.exceeds_limit else None
            self._known = True
        return self._intervals

    def intervals_containing(self, known: Sequence[tuple[slice, bytes]]) -> tuple[KeyInterval, ...] | None:
        """The elements whose keys have these values in these parts; ``None`` when they are not known or too many."""
        if not self.is_known:
            return None
        if self._by_ends:
            part, value = known[0]
            if len(known) == 1 and part.start == 0 and len(value) == self.key_length:
                found = _covering(self.elements, value, True)
                return () if found is None else (found,)
            listed: Iterable[KeyInterval] = self._read_intervals()
        elif self.flags & wire.SET_INTERVAL:
            listed = map(_pair, self.elements.spanning(known))
        else:
            listed = map(_pair, self._from(_leading(known)[: self.key_length]))
        held: list[KeyInterval] = []
        for each in listed:
            if all(each.low[part] <= value <= each.high[part] for part, value in known):
                held.append(each)
                if len(held) > LIMIT:
                    return None
        return tuple(held)

    def _from(self, value: bytes) -> Iterator[SetElement]:
        for each in self.elements.beginning(value):
            if not each.key.startswith(value):
                return
            yield each

    def members(self) -> AddressMembers | None:
        """Its addresses; for sets without data whose key is an address."""
        return (
            AddressMembers(self.elements, self._by_ends) if self.is_known and not self.flags & wire.SET_CONCAT else None
        )

    def _read_intervals(self) -> Iterator[KeyInterval]:
        return _marked_ends(self.elements) if self._by_ends else map(_pair, self.elements)


def _marked_ends(elements: Iterable[SetElement]) -> Iterator[KeyInterval]:
    """The intervals of an interval set without concatenation: an element begins an interval, and one with the end flag
    is the first value behind it; without an end the interval reaches to the largest value."""
    open_at: SetElement | None = None
    for element in elements:
        if open_at is not None:
            yield KeyInterval(open_at.key, _below(element.key), open_at.data)
            open_at = None
        if not element.flags & wire.ELEMENT_INTERVAL_END:
            open_at = element
    if open_at is not None:
        yield KeyInterval(open_at.key, b"\xff" * len(open_at.key), open_at.data)


def _leading(known: Iterable[tuple[slice, bytes]]) -> bytes:
    """The first bytes of every key that has these values; each part takes whole registers of four bytes."""
    found = b""
    for part, value in known:
        if part.start != len(found):
            break
        found = (found + value).ljust((part.stop + 3) & ~3, b"\0")
    return found


def _pair(element: SetElement) -> KeyInterval:
    return KeyInterval(element.key, element.key_end or element.key, element.data)
