"""What a lookup in a set or map becomes: conditions, branches, or words for what the rules do not tell."""

from __future__ import annotations

import pytest
from tests.unit.nftables.test_prefilter import expression, header, load, plain, rule

from hitless.kernel import netlink
from hitless.kernel.netlink import be32, text
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.elements import SetElement
from hitless.kernel.nftables.expressions import decode
from hitless.kernel.nftables.lookups import INLINE_LIMIT, MAX_BRANCHES, HeaderReader
from hitless.kernel.nftables.sets import SetState
from hitless.model.matches import Element
from hitless.model.rules import (
    Accept,
    AnyOf,
    Drop,
    Goto,
    OneOf,
    Opaque,
    OpaqueAction,
    Rule,
    SetMark,
    SetMember,
    SetProperty,
)

SOURCE = load(1, 12, 4)
DROPS = expression("immediate", be32(1, 0), plain(2, plain(2, be32(1, 0))))


def look_up(*, negated: bool = False, to: int | None = None) -> bytes:
    parts = [text(1, "m"), be32(2, 1), be32(5, int(negated))]
    return expression("lookup", *parts, *([] if to is None else [be32(3, to)]))


def numgen(modulus: int) -> bytes:
    return expression("numgen", be32(1, 1), be32(2, modulus), be32(3, 0), be32(4, 0))


def key(number: int) -> bytes:
    return (0x0A000000 + number).to_bytes(4, "big")


def verdict(code: int, chain: str = "") -> bytes:
    return plain(wire.DATA_VERDICT, be32(1, code) + (text(2, chain) if chain else b""))


def listed(element: SetElement) -> bytes:
    parts = plain(wire.ELEMENT_KEY, plain(wire.DATA_VALUE, element.key)) if element.key else b""
    parts += be32(wire.ELEMENT_FLAGS, element.flags) if element.flags else b""
    return plain(1, parts + (plain(wire.ELEMENT_DATA, element.data) if element.data else b""))


def made(flags: int, *elements: SetElement, length: int = 4) -> SetState:
    found = SetState("m", flags, 7, length, data_type=wire.DATA_VERDICTS if flags & wire.SET_MAP else 0)
    found.load(map(listed, elements))
    return found


def read(found: SetState | None, *expressions: bytes, towards: HeaderReader | None = None) -> tuple[Rule, ...]:
    return decode(rule(*expressions), "ip", lambda name: found, 7, towards)


CATCH_ALL = SetElement(b"", b"", wire.ELEMENT_CATCHALL, verdict(0))
MAP = wire.SET_MAP


def test_a_small_set_is_spelt_out_and_a_large_one_is_asked() -> None:
    for many, anonymous in ((3, 0), (3, wire.SET_ANONYMOUS), (INLINE_LIMIT + 1, 0)):
        found = made(anonymous, *(SetElement(key(number), b"", 0) for number in range(many)))
        [one] = read(found, SOURCE, look_up(negated=True), DROPS)
        member = one.steps[0]
        assert isinstance(member, SetMember) and member.negated and member.direction == "src"
        assert member.name == ("" if anonymous else "m")
        assert isinstance(member.elements, frozenset) is (many <= INLINE_LIMIT)
        assert one.steps[-1] == Drop()


def test_a_set_that_packets_fill_is_the_kernels_to_answer() -> None:
    for flags in (wire.SET_TIMEOUT, wire.SET_EVAL):
        [one] = read(made(flags), SOURCE, look_up(), DROPS)
        assert one.steps[0] == Element("ip", "t", "m", ("source",))
    refused = made(0)
    refused.drop_as_too_large()
    [one] = read(refused, SOURCE, look_up(negated=True), DROPS)
    assert isinstance(one.steps[0], Element) and one.steps[0].negated
    # of a mark under a mask, which is no part of a packet's header, nobody can ask
    mark = expression("meta", be32(2, 3), be32(1, 1))
    values = plain(4, plain(1, b"\xff\0\0\0")) + plain(5, plain(1, bytes(4)))
    masked = expression("bitwise", be32(1, 1), be32(2, 1), be32(3, 4), be32(6, 0), values)
    [one] = read(made(wire.SET_TIMEOUT), mark, masked, look_up(), DROPS)
    assert isinstance(one.steps[0], Opaque) and "@m" in one.steps[0].text


def test_what_is_not_known_of_a_set_is_open() -> None:
    forgotten = made(0)
    forgotten.drop_content()
    misfit = made(0, SetElement(b"\1\2", b"", 0))
    for found in (None, forgotten, misfit):
        [one] = read(found, SOURCE, look_up(), DROPS)
        assert isinstance(one.steps[0], Opaque) and one.steps[-1] == Drop()
    [one] = read(made(0), look_up(), DROPS)  # no register was loaded
    assert isinstance(one.steps[0], Opaque) and "a key" in one.steps[0].text
    # where it gives a verdict, that is open too; where it gives a value, what is done with it
    [one] = read(None, SOURCE, look_up(to=0))
    assert isinstance(one.steps[0], Opaque) and isinstance(one.steps[1], OpaqueAction)
    [one] = read(None, SOURCE, look_up(to=2), expression("meta", be32(2, 3), be32(3, 2)))
    assert isinstance(one.steps[0], Opaque) and not isinstance(one.steps[1], SetMark)


def test_an_element_for_everything_else_makes_the_set_hold_everything() -> None:
    found = made(0, SetElement(key(1), b"", 0), CATCH_ALL._replace(data=b""))
    [one] = read(found, SOURCE, look_up(), DROPS)
    assert one.steps == (Drop(),)
    [never] = read(found, SOURCE, look_up(negated=True), DROPS)
    assert never.steps[0] == AnyOf(((),), True, "m")


def test_a_map_is_a_rule_for_each_element_and_one_for_the_rest() -> None:
    found = made(MAP, SetElement(key(1), b"", 0, verdict(-4, "one")), SetElement(key(2), b"", 0, verdict(1)), CATCH_ALL)
    rules = read(found, SOURCE, look_up(to=0))
    assert [one.steps[-1] for one in rules] == [Goto("one"), Accept(), Drop()]
    assert isinstance(rules[-1].steps[0], SetMember | AnyOf) and rules[-1].steps[0].negated
    assert [one.steps for one in read(made(MAP, CATCH_ALL), SOURCE, look_up(to=0))] == [(Drop(),)]
    [empty] = read(made(MAP), SOURCE, look_up(to=0))
    assert empty.steps == (AnyOf(()),)


def test_a_map_that_is_too_large_is_open_unless_the_packet_is_known() -> None:
    found = made(MAP, *(SetElement(key(number), b"", 0, verdict(1)) for number in range(MAX_BRANCHES + 1)))
    [one] = read(found, SOURCE, look_up(to=0))
    assert isinstance(one.steps[0], Opaque) and f"{MAX_BRANCHES + 1} elements" not in one.steps[0].text
    towards = HeaderReader(header("10.0.0.7"))
    assert [one.steps[-1] for one in read(found, SOURCE, look_up(to=0), towards=towards)] == [Accept()]
    assert towards.parts_read == {"source"}
    unknown = HeaderReader(header("10.0.0.7")._replace(source=None))
    [one] = read(found, SOURCE, look_up(to=0), towards=unknown)
    assert isinstance(one.steps[0], Opaque)


@pytest.mark.parametrize(
    ("modulus", "elements", "default", "exhaustive"),
    [(2, (0, 1), False, True), (3, (0, 1), False, False), (3, (0, 1), True, True)],
)
def test_a_random_number_makes_ways_of_one_choice(
    modulus: int, elements: tuple[int, ...], default: bool, exhaustive: bool
) -> None:
    found = made(
        MAP,
        *(SetElement(number.to_bytes(4, "little"), b"", 0, verdict(-4, f"way{number}")) for number in elements),
        *([CATCH_ALL] if default else []),
    )
    [one] = read(found, numgen(modulus), look_up(to=0))
    [choice] = one.steps
    assert isinstance(choice, OneOf) and choice.exhaustive is exhaustive
    expected = [(Goto(f"way{number}"),) for number in elements] + ([(Drop(),)] if default else [])
    assert list(choice.alternatives) == expected


def test_a_rule_that_adds_goes_on_unless_the_set_may_be_full_or_the_element_limits() -> None:
    def added(size: int, operation: int = 0, *inner: bytes, several: bool = False) -> list[object]:
        found = made(wire.SET_EVAL)
        found.max_elements = size
        limits = plain(10, b"".join(inner)) if several else b"".join(inner)
        adds = expression("dynset", text(1, "m"), be32(3, operation), be32(4, 1), limits)
        [one] = read(found, SOURCE, adds, DROPS)
        return list(one.steps)

    assert added(65535) == [SetProperty("m", "add @m { ip saddr }"), Drop()]
    assert added(0, 1)[0] == SetProperty("m", "update @m { ip saddr }")
    assert added(0, 2)[0] == SetProperty("m", "delete @m { ip saddr }")
    assert added(0, 9)[0] == SetProperty("m", "change @m { ip saddr }")
    assert added(128)[1] == Opaque("@m has room (size 128)")
    rate = text(1, "limit") + plain(2, netlink.be64(1, 5) + netlink.be64(2, 1))
    counter = text(1, "counter") + plain(2, b"")
    for several in (False, True):
        inner = (plain(1, rate), plain(1, counter)) if several else (plain(7, rate),)
        words, limit, last = added(65535, 0, *inner, several=several)
        assert limit == Opaque("limit rate 5/second") and last == Drop()
        assert words == SetProperty("m", "add @m { ip saddr limit rate 5/second }")
    [one] = read(None, expression("dynset", text(1, "m"), be32(3, 0), be32(4, 1)), DROPS)
    assert one.steps == (SetProperty("m", "add @m { a key }"), Drop())


def test_a_key_of_several_fields_is_compared_field_by_field() -> None:
    second = expression("payload", be32(1, 9), be32(2, 1), be32(3, 16), be32(4, 4))
    found = made(wire.SET_CONCAT, SetElement(key(1) + key(2), b"", 0), length=8)
    [one] = read(found, SOURCE, second, look_up(), DROPS)
    assert isinstance(one.steps[0], AnyOf) and len(one.steps[0].alternatives) == 1
    [one] = read(found, SOURCE, look_up(), DROPS)  # the second field was not loaded
    assert isinstance(one.steps[0], Opaque)
