"""Sets and maps of any size are asked about one packet, and of their elements few are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nftables.test_prefilter import expression, header, load, plain, rule

from hitless.kernel.netlink import be32, text
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.elements import SetElement, SetElements
from hitless.kernel.nftables.expressions import decode
from hitless.kernel.nftables.lookups import HeaderReader
from hitless.kernel.nftables.sets import AddressMembers, SetState
from hitless.model.rules import Drop, Goto, Opaque, SetMember

MANY = 20_000
ACCEPTS = be32(wire.VERDICT_CODE, 1)


def verdict(chain: str) -> bytes:
    return plain(wire.DATA_VERDICT, be32(wire.VERDICT_CODE, -4) + text(wire.VERDICT_CHAIN, chain))


def listed(element: SetElement) -> bytes:
    parts = plain(wire.ELEMENT_KEY, plain(wire.DATA_VALUE, element.key))
    if element.key_end:
        parts += plain(wire.ELEMENT_KEY_END, plain(wire.DATA_VALUE, element.key_end))
    return plain(1, parts + (plain(wire.ELEMENT_DATA, element.data) if element.data else b""))


def filled(found: SetState, elements: Iterator[SetElement]) -> SetState:
    found.load(listed(each) for each in elements)
    assert len(found.elements) == MANY
    return found


def address(number: int) -> bytes:
    return (0x0A000000 + number).to_bytes(4, "big")


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every element that is read from a set."""
    seen: list[int] = []
    before = SetElements._element

    def counting(self: SetElements, record: bytes, data: bytes) -> SetElement:
        seen.append(1)
        return before(self, record, data)

    monkeypatch.setattr(SetElements, "_element", counting)
    return seen


LOOK_UP = expression("lookup", text(1, "m"), be32(2, 1), be32(5, 0))
TO_VERDICT = expression("lookup", text(1, "m"), be32(2, 1), be32(3, 0), be32(5, 0))
DROPS = expression("immediate", be32(1, 0), plain(2, plain(2, be32(1, 0))))


def test_a_verdict_map_of_many_sources_is_read_for_one(looked: list[int]) -> None:
    found = SetState("m", wire.SET_MAP, 0, 4, data_type=wire.DATA_VERDICTS)
    filled(found, (SetElement(address(n), b"", 0, verdict(f"pod{n}")) for n in range(MANY)))
    payload = rule(load(1, 12, 4), TO_VERDICT)
    looked.clear()
    towards = HeaderReader(header("10.0.0.7"))
    (only,) = decode(payload, "ip", {"m": found}.get, 7, towards)
    assert (only.steps[-1], towards.parts_read) == (Goto("pod7"), {"source"})
    (none,) = decode(payload, "ip", {"m": found}.get, 7, HeaderReader(header("10.9.9.9")))
    assert not any(isinstance(step, Goto | Opaque) for step in none.steps)
    assert len(looked) < 10
    (whole,) = decode(payload, "ip", {"m": found}.get, 7)  # for nobody in particular it is too large
    assert isinstance(whole.steps[0], Opaque)


def test_a_set_of_many_address_pairs_is_asked_by_bisection(looked: list[int]) -> None:
    found = SetState("m", wire.SET_CONCAT, 0, 8)
    filled(found, (SetElement(address(n) + address(n + 1), b"", 0) for n in range(MANY)))
    second = expression("payload", be32(1, 9), be32(2, 1), be32(3, 16), be32(4, 4))
    payload = rule(load(1, 12, 4), second, LOOK_UP, DROPS)
    looked.clear()
    (met,) = decode(payload, "ip", {"m": found}.get, 7, HeaderReader(header("10.0.0.7", "10.0.0.8")))
    assert met.steps[-1] == Drop()
    assert not any(isinstance(step, Opaque) for step in met.steps)
    assert len(looked) < 10


def test_concatenated_intervals_are_passed_over_by_blocks(looked: list[int]) -> None:
    found = SetState("m", wire.SET_CONCAT | wire.SET_INTERVAL, 0, 8)
    spans = ((address(4 * n) + address(n), address(4 * n + 2) + address(n + 9)) for n in range(MANY))
    filled(found, (SetElement(low, high, 0) for low, high in spans))
    looked.clear()
    known = [(slice(0, 4), address(4 * 777 + 1)), (slice(4, 8), address(780))]
    held = found.intervals_containing(known)
    assert held is not None
    assert [each.low for each in held] == [address(4 * 777) + address(777)]
    assert len(looked) <= 512
    changed = found.copy()
    changed.apply(listed(SetElement(address(1), address(2), 0)))
    assert found.intervals_containing(known[1:]) is not None  # by the second part alone, too
    assert len(looked) <= 2048


@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 4), max_size=40),
    st.tuples(st.integers(0, 15), st.integers(0, 15)),
    st.sampled_from([(0,), (1,), (0, 1)]),
)
def test_what_holds_a_value_is_what_a_look_at_every_element_finds(
    spans: list[tuple[int, int, int, int]], asked: tuple[int, int], parts: tuple[int, ...]
) -> None:
    found = SetState("m", wire.SET_CONCAT | wire.SET_INTERVAL, 0, 8)
    pairs = {
        (address(a) + address(b), address(a + c) + address(b + d))
        for a, b, c, d in {(a, b): (a, b, c, d) for a, b, c, d in spans}.values()
    }
    found.load(listed(SetElement(low, high, 0)) for low, high in pairs)
    known = [(slice(4 * part, 4 * part + 4), address(asked[part])) for part in parts]
    held = found.intervals_containing(known)
    assert held is not None
    expected = [pair for pair in pairs if all(pair[0][part] <= value <= pair[1][part] for part, value in known)]
    assert sorted((each.low, each.high) for each in held) == sorted(expected)


def test_a_large_set_of_addresses_needs_no_header() -> None:
    found = SetState("m", 0, 0, 4)
    filled(found, (SetElement(address(n), b"", 0) for n in range(MANY)))
    towards = HeaderReader(header("10.0.0.7"))
    (met,) = decode(rule(load(1, 12, 4), LOOK_UP, DROPS), "ip", {"m": found}.get, 7, towards)
    member = met.steps[0]
    assert isinstance(member, SetMember)
    assert isinstance(member.elements, AddressMembers)
    assert member.elements.covers(IPv4Address("10.0.0.7"))
    assert towards.parts_read == set()  # one reading for all packets
