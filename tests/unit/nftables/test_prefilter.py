"""Rules that a packet cannot match are found in their messages, and nothing else is taken for one."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from hitless.kernel import netlink
from hitless.kernel.netlink import be32, nested, text
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.prefilter import KnownHeader, RuleIndex, comparison
from hitless.model.headers import PacketHeader

plain = netlink.attribute  # the kernel tells of nested attributes here without the flag


def expression(name: str, *parts: bytes) -> bytes:
    return plain(1, text(1, name) + plain(2, b"".join(parts)))


def load(header: int, offset: int, length: int) -> bytes:
    return expression("payload", be32(1, 1), be32(2, header), be32(3, offset), be32(4, length))


def compare(value: bytes, operation: int = 0) -> bytes:
    return expression("cmp", be32(1, 1), be32(2, operation), plain(3, plain(1, value)))


def masked(mask: bytes) -> bytes:
    values = plain(4, plain(1, mask)) + plain(5, plain(1, bytes(len(mask))))
    return expression("bitwise", be32(1, 1), be32(2, 1), be32(3, len(mask)), be32(6, 0), values)


def meta(key: int) -> bytes:
    return expression("meta", be32(2, key), be32(1, 1))


DROP = expression("immediate", be32(1, 0), plain(2, plain(2, be32(1, 0))))
COUNTER = expression("counter", netlink.be64(1, 7), netlink.be64(2, 7))


def rule(*expressions: bytes, family: int = 2, userdata: bytes = b"") -> bytes:
    head = netlink.nfgenmsg(family) + text(1, "t") + text(2, "c") + netlink.be64(3, 7)
    return head + nested(wire.RULE_EXPRESSIONS, *expressions) + netlink.attribute(wire.RULE_USERDATA, userdata)


def source(network: str, *, six: bool = False) -> tuple[bytes, ...]:
    """As nft and iptables-nft write ``-s NETWORK``."""
    found = ip_network(network)
    width = 16 if six else 4
    offset = 8 if six else 12
    value = found.network_address.packed
    if found.prefixlen % 8 == 0:
        return load(1, offset, found.prefixlen // 8), compare(value[: found.prefixlen // 8])
    return load(1, offset, width), masked(found.netmask.packed), compare(value)


def header(src: str, dst: str = "192.0.2.1", dport: int | None = 443) -> PacketHeader:
    version = ip_address(src).version
    return PacketHeader(version, 6, ip_address(src).packed, ip_address(dst).packed, 40000, dport)


def met(packet: PacketHeader, *rules: bytes) -> list[int]:
    return list(RuleIndex(rules).candidates(KnownHeader(packet)))


@pytest.mark.parametrize("network", ["10.1.2.3/32", "10.1.2.0/24", "10.1.0.0/20", "10.0.0.0/8"])
def test_a_rule_for_a_source_is_left_out_for_every_other_one(network: str) -> None:
    rules = rule(*source(network), COUNTER, DROP), rule(DROP)
    assert met(header("10.1.2.3"), *rules) == [0, 1]
    assert met(header("11.1.2.3"), *rules) == [1]
    assert met(header("10.1.2.3")._replace(source=None), *rules) == [0, 1]  # what is not known leaves nothing out


def test_destinations_ports_and_ranges_leave_rules_out_too() -> None:
    to = rule(load(1, 16, 4), compare(ip_address("192.0.2.1").packed), DROP)
    port = rule(load(2, 2, 2), compare((443).to_bytes(2, "big")), DROP)
    low, high = (ip_address(f"10.0.0.{last}").packed for last in (4, 9))
    between = rule(load(1, 12, 4), compare(low, 5), compare(high, 3), DROP)
    assert met(header("10.0.0.4"), to, port, between) == [0, 1, 2]
    assert met(header("10.0.0.9", "192.0.2.2", 80), to, port, between) == [2]
    assert met(header("10.0.0.10", "192.0.2.2", None), to, port, between) == [1]


def test_a_rule_for_the_other_ip_version_is_left_out() -> None:
    four = rule(meta(15), compare(b"\2"), *source("10.0.0.1/32"), DROP, family=1)
    six = rule(meta(15), compare(b"\x0a"), *source("fd00::1/128", six=True), DROP, family=1)
    assert met(header("10.0.0.1"), four, six) == [0]
    assert met(header("fd00::1", "fd00::2"), four, six) == [1]
    # without the question for the version, IPv6 packets are compared where they hold other things
    assert met(header("fd00::a00:1:0:0:1", "fd00::2"), rule(*source("10.0.0.1/32"), DROP, family=1)) == []


@pytest.mark.parametrize(
    "before",
    [
        expression("meta", be32(2, 3), be32(3, 1)),  # the mark is set, whatever comes then
        expression("payload", be32(5, 1), be32(2, 1), be32(3, 8), be32(4, 1)),
        expression("limit", netlink.be64(1, 7)),
        expression("dynset", text(1, "s"), be32(3, 0), be32(4, 1)),
        expression("log"),
        expression("queue"),
    ],
)
def test_a_rule_that_does_something_first_is_met_by_everybody(before: bytes) -> None:
    assert comparison(rule(before, *source("10.0.0.1/32"), DROP)) is None


def test_what_is_negated_or_transformed_is_no_clue() -> None:
    value = ip_address("10.0.0.1").packed
    assert comparison(rule(load(1, 12, 4), compare(value, 1), DROP)) is None
    parts = be32(1, 1), be32(2, 1), be32(3, 4), be32(6, 0), plain(4, plain(1, value))
    turned = expression("bitwise", *parts, plain(5, plain(1, b"\0\0\0\1")))
    assert comparison(rule(load(1, 12, 4), turned, compare(value), DROP)) is None
    other = expression("payload", be32(1, 2), be32(2, 1), be32(3, 12), be32(4, 4))  # into another register
    assert comparison(rule(other, compare(value), DROP)) is None


def test_bytes_in_a_comment_are_no_condition() -> None:
    words = b"".join(source("10.0.0.1/32"))
    blob = expression("match", text(1, "comment"), be32(2, 0), netlink.attribute(3, words.ljust(256, b"\0")))
    assert met(header("10.9.9.9"), rule(DROP, userdata=words), rule(blob, DROP)) == [0, 1]


def test_a_damaged_message_has_no_clue_and_is_met_by_everybody() -> None:
    whole = rule(*source("10.0.0.1/32"), DROP)
    assert comparison(whole) is not None
    for cut in range(len(whole)):
        assert met(header("10.9.9.9"), whole[:cut]) in ([], [0])  # and no error
    # an expression, and the list of them, that claim another length than they have
    at = whole.index(b"payload") - 8
    for length in (0, 3, 0xFFFF):
        broken = whole[:at] + length.to_bytes(2, "little") + whole[at + 2 :]
        assert met(header("10.9.9.9"), broken) == [0]
    assert met(header("10.9.9.9"), whole[:4] + b"\2\0" + whole[6:]) == [0]
    odd = expression("payload", be32(1, 1), be32(2, 1), be32(3, 12), plain(4, b""))
    assert met(header("10.9.9.9"), rule(odd, compare(b"\0"), DROP)) == [0]


def iprange(kind: int, first: str, last: str, *, size: int = 0, revision: int = 1) -> bytes:
    """As iptables writes ``-m iprange``; ``kind``: 1 source, 2 destination, 0x10 and 0x20 the same negated."""
    ends = [ip_address(text).packed.ljust(16, b"\0") for text in (first, last)]
    blob = b"".join((*ends, *ends)) + bytes([kind])
    return expression("match", text(1, "iprange"), be32(2, revision), plain(3, blob[: size or None].ljust(68, b"\0")))


@pytest.mark.parametrize(
    ("kind", "packet", "expected"),
    [
        (1, header("10.0.0.6"), True),
        (1, header("10.0.0.10"), False),
        (0x11, header("10.0.0.6"), True),  # negated: it is met by others
        (0x11, header("10.0.0.10"), True),
        (2, header("10.9.9.9", "10.0.0.5"), True),
        (2, header("10.0.0.6", "10.9.9.9"), False),
        (0, header("10.9.9.9"), True),
    ],
)
def test_ranges_as_iptables_writes_them(kind: int, packet: PacketHeader, expected: bool) -> None:
    assert met(packet, rule(iprange(kind, "10.0.0.5", "10.0.0.9"), DROP)) == ([0] if expected else [])


def test_ranges_in_another_form_are_met_by_everybody() -> None:
    for odd in (
        iprange(1, "10.0.0.5", "10.0.0.9", revision=0),
        iprange(1, "10.0.0.9", "10.0.0.5"),
        expression("match", text(1, "iprange"), be32(2, 1), plain(3, bytes(64))),
        expression("match", text(1, "multiport"), be32(2, 1), plain(3, bytes(68))),
    ):
        assert met(header("10.9.9.9"), rule(odd, DROP)) == [0]
    assert met(header("10.9.9.9"), rule(iprange(1, "10.0.0.5", "10.0.0.9"), DROP, family=1)) == [0]
    six = iprange(1, "fd00::5", "fd00::9")
    assert met(header("fd00::6"), rule(six, DROP, family=10)) == [0]
    assert met(header("fd00::a"), rule(six, DROP, family=10)) == []


def test_a_value_shorter_than_what_was_loaded_is_a_prefix_and_a_longer_one_no_clue() -> None:
    value = ip_address("10.1.2.3").packed
    assert met(header("10.1.9.9"), rule(load(1, 12, 4), compare(value[:2]), DROP)) == [0]
    assert met(header("10.2.9.9"), rule(load(1, 12, 4), compare(value[:2]), DROP)) == []
    assert comparison(rule(load(1, 12, 2), compare(value), DROP)) is None
    # a mask before a range, a mask of a mask, and a mask of nothing
    mask = masked(ip_network("10.0.0.0/12").netmask.packed)
    assert comparison(rule(load(1, 12, 4), mask, compare(value, 5), compare(value, 3), DROP)) is None
    assert comparison(rule(load(1, 12, 4), mask, mask, compare(value), DROP)) is None
    assert comparison(rule(mask, compare(value), DROP)) is None
    assert comparison(rule(load(1, 12, 4), mask, compare(value[:2]), DROP)) is None


def test_of_several_clues_the_one_that_says_most_is_taken() -> None:
    wide, narrow = source("10.0.0.0/8"), source("10.1.2.3/32")
    found = comparison(rule(*narrow, DROP))
    assert comparison(rule(*wide, *narrow, DROP)) == comparison(rule(*narrow, *wide, DROP)) == found
    low, high = (ip_address(f"10.1.0.{last}").packed for last in (0, 7))
    between = load(1, 12, 4), compare(low, 5), compare(high, 3)
    assert comparison(rule(*wide, *between, DROP)) == comparison(rule(*between, DROP))
