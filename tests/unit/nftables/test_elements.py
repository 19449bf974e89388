"""Elements of sets: whatever is added and removed in whatever order, what is in there and what is found is the same as
in a plain dictionary, and a copy stays what it was."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.elements import SetElement, SetElements
from hitless.kernel.nftables.sets import SetState
from hitless.model.packets import TCP, Packet
from hitless.model.rules import SetMember
from hitless.semantics.properties import EvaluationContext
from hitless.semantics.walk_state import WalkState

KEYS = st.binary(min_size=2, max_size=2)


def in_order(elements: dict[tuple[bytes, int], SetElement]) -> list[SetElement]:
    return sorted(elements.values(), key=lambda each: (each.key, each.key_end, each.flags ^ 1))


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), st.lists(st.tuples(KEYS, st.integers(0, 1), st.sampled_from([b"", b"to"]))))))
def test_what_is_added_and_removed_is_what_a_dictionary_would_hold(
    steps: list[tuple[bool, list[tuple[bytes, int, bytes]]]],
) -> None:
    kept, plain = SetElements(2), dict[tuple[bytes, int], SetElement]()
    for add, given_elements in steps:
        before, was = kept, list(kept)
        kept = kept.copy()
        elements = [SetElement(key, b"", flags, data) for key, flags, data in given_elements]
        if add:
            kept.add(elements)
            plain |= {(each.key, each.flags): each for each in elements}
        else:
            kept.remove(elements)
            for each in elements:
                plain.pop((each.key, each.flags), None)
        assert list(kept) == in_order(plain)
        assert len(kept) == len(plain)
        assert list(before) == was


@pytest.mark.slow
@pytest.mark.parametrize("ends", [False, True])
def test_many_elements_loaded_in_any_order_are_found_in_theirs(ends: bool) -> None:
    numbers = [number * 40503 % 65536 for number in range(0, 65536, 3)]
    keys = [number.to_bytes(2, "big") for number in numbers]
    kept = SetElements(2, ends=ends)
    kept.load(
        [[SetElement(key, key if ends else b"", 0) for key in keys[at : at + 700]] for at in range(0, len(keys), 700)]
    )
    assert [each.key for each in kept] == sorted(keys)
    for number in range(0, 65536, 97):
        below = max((each for each in numbers if each <= number), default=None)
        found = kept.before(number.to_bytes(2, "big"))
        assert (None if found is None else int.from_bytes(found.key, "big")) == below
    kept.add(SetElement(key, key if ends else b"", 0) for key in keys[:5000])
    assert len(kept) == len(keys)


def listed(keys: list[tuple[bytes, int]]) -> bytes:
    def one(key: bytes, flags: int) -> bytes:
        parts = [netlink.nested(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, key))]
        return netlink.nested(1, *parts, *([netlink.be32(wire.ELEMENT_FLAGS, flags)] if flags else []))

    return b"".join(one(*each) for each in keys)


@pytest.mark.slow
@given(st.sets(st.integers(0, 4000), min_size=140, max_size=200), st.booleans(), st.integers(0, 4001))
def test_a_large_set_answers_as_its_networks_would(bounds: set[int], intervals: bool, asked: int) -> None:
    found = SetState("s", flags=wire.SET_INTERVAL if intervals else 0, key_length=4)
    ordered = sorted(bounds)
    marks = [number % 2 if intervals else 0 for number in range(len(ordered))]
    found.load([listed([(value.to_bytes(4, "big"), mark) for value, mark in zip(ordered, marks, strict=True)])])
    members = found.members()
    assert members is not None
    address = IPv4Address(asked)
    assert members.covers(address) is any(address in network for network in members.networks())
    packet = Packet(address, IPv4Address("192.0.2.1"), TCP)
    few = frozenset[IPv4Network](map(ip_network, members.networks()))  # type: ignore[arg-type]
    for negated in (False, True):
        one, other = (SetMember("s", "src", each, negated) for each in (members, few))
        sight = EvaluationContext(packet, WalkState(0, 0, None, "NEW"), "forward", None)
        assert one.check(sight) == other.check(sight)
