"""Legacy tables from their entries: chains by name, decoded when asked for; broken ones refused."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.xtables.blobs import Blob, error, extension, standard

from hitless.errors import KernelError
from hitless.kernel.xtables import tables
from hitless.kernel.xtables.layout import LAYOUTS, entry_offsets, same_entries
from hitless.kernel.xtables.sockopt import Info
from hitless.kernel.xtables.tables import LegacyChains, decode_table
from hitless.model.families import Family
from hitless.model.rules import (
    Accept,
    Comment,
    Destination,
    Goto,
    Hook,
    InInterface,
    Jump,
    Opaque,
    OpaqueAction,
    OutInterface,
    Protocol,
    Return,
    Rule,
    Source,
    Table,
)


def whole(family: Family = Family.IPV4) -> Table:
    """POSTROUTING jumps to A, A jumps to B and returns, B is empty, C is not called."""
    first = Blob(family)
    head, jump, chain_head = LAYOUTS[family].head, len(standard(0)), len(error(""))
    post = 2 * (head + jump)
    a_at = post + head + chain_head
    b_at = a_at + 3 * (head + jump) + head + chain_head
    first.built_in("POSTROUTING", standard(a_at))
    assert first.user("A", standard(b_at), standard(-5)) == a_at
    assert first.user("B") == b_at
    first.user("C", standard(-2))
    return decode_table(family, "nat", *first.finish())


@pytest.mark.parametrize("family", list(Family))
def test_chains_are_found_by_their_jumps_and_by_name(family: Family) -> None:
    table = whole(family)
    assert table.family == family.nft
    assert table.legacy
    post = table.chains["POSTROUTING"]
    assert post.hook == Hook("nat", "postrouting", 100, "accept")
    assert post.rules == (Rule((Jump("A"),)),)
    assert table.chains["A"].rules == (Rule((Jump("B"),)), Rule((Return(),)))
    assert table.chains["B"].rules == ()
    assert table.chains["C"].rules == (Rule((Accept(),)),)
    assert list(table.chains) == ["POSTROUTING", "A", "B", "C"]
    assert len(table.chains) == 4
    assert "D" not in table.chains
    assert table.chains.get("D") is None
    assert table.base_chains() == (post,)


def test_only_the_chains_that_are_asked_for_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = LegacyChains._rule

    def counting(self: LegacyChains, at: int) -> Rule:
        decoded.append(at)
        return original(self, at)

    monkeypatch.setattr(LegacyChains, "_rule", counting)
    table = whole()
    assert decoded == []
    table.base_chains()
    assert len(decoded) == 2  # its rule and its policy
    table.chains["B"]
    table.chains["B"]
    assert len(decoded) == 3


def test_the_head_of_an_entry_becomes_conditions() -> None:
    blob = Blob()
    head = bytearray(112)
    head[0:4], head[8:12] = ip_address("10.42.0.0").packed, bytes((255, 255, 0, 0))
    head[4:8], head[12:16] = ip_address("224.0.0.0").packed, bytes((240, 0, 0, 0))
    head[16:20], head[48:52] = b"cali", b"\xff" * 4
    head[32:36], head[64:69] = b"eth0", b"\xff" * 5
    struct.pack_into("=HBB", head, 80, 17, 0x02, 0x10 | 0x02)
    goto = len(standard(0)) * 2 + 2 * 112 + 112 + len(error(""))
    comment = extension("comment", 0, b"hello".ljust(256, b"\0"))
    goto += len(comment)
    begin = blob.add(standard(goto), comment, head=bytes(head))
    blob.entry[4], blob.underflow[4] = begin, blob.add(standard(-2))
    blob.user("A")
    table = decode_table(Family.IPV4, "nat", *blob.finish())
    assert table.chains["POSTROUTING"].rules[0].steps == (
        Source(ip_network("10.42.0.0/16")),
        Destination(ip_network("224.0.0.0/4"), negated=True),
        InInterface("cali+"),
        OutInterface("eth0", negated=True),
        Protocol(17),
        Comment("hello"),
        Goto("A"),
    )


@pytest.mark.parametrize(
    ("head", "text"),
    [
        (bytes(82) + b"\x10\x00", "flags 0x10, inverted 0x0"),
        (bytes(82) + b"\x00\x80", "flags 0x0, inverted 0x80"),
    ],
)
def test_what_the_head_says_and_the_model_cannot_is_opaque(head: bytes, text: str) -> None:
    blob = Blob()
    blob.entry[4] = blob.add(standard(-2), head=head)
    blob.underflow[4] = blob.add(standard(-2))
    table = decode_table(Family.IPV4, "nat", *blob.finish())
    assert table.chains["POSTROUTING"].rules[0].steps == (Opaque(text), Accept())


def test_a_rule_without_a_target_goes_on_with_the_next() -> None:
    blob = Blob()
    size = LAYOUTS[Family.IPV4].head + len(standard(0))
    blob.built_in("POSTROUTING", standard(size), standard(-2))
    assert decode_table(Family.IPV4, "nat", *blob.finish()).chains["POSTROUTING"].rules == (
        Rule(()),
        Rule((Accept(),)),
    )


def test_a_jump_into_nowhere_and_a_chain_without_an_end_are_opaque() -> None:
    blob = Blob()
    blob.built_in("POSTROUTING", standard(7))
    blob.add(error("A"))
    blob.add(standard(-2))
    table = decode_table(Family.IPV4, "nat", *blob.finish())
    assert table.chains["POSTROUTING"].rules == (Rule((OpaqueAction("jump to offset 7"),)),)
    assert table.chains["A"].rules[-1] == Rule((OpaqueAction("chain A runs into the next one"),))


def test_a_policy_of_drop_is_read() -> None:
    blob = Blob()
    blob.built_in("FORWARD", policy=-1)
    hook = decode_table(Family.IPV4, "filter", *blob.finish()).chains["FORWARD"].hook
    assert hook == Hook("filter", "forward", 0, "drop")


def test_a_table_that_iptables_does_not_have_is_refused() -> None:
    with pytest.raises(KernelError, match="no such table"):
        decode_table(Family.IPV4, "broute", *Blob().finish())


def test_entries_of_another_size_than_announced_are_refused() -> None:
    info, data = Blob().finish()
    with pytest.raises(KernelError, match="bytes instead of"):
        decode_table(Family.IPV4, "nat", info, data[:-8])


@given(
    st.binary(max_size=600),
    st.sampled_from(list(Family)),
    st.lists(st.integers(0, 700), min_size=10, max_size=10),
    st.sampled_from(sorted(tables._PRIORITIES)),
)
def test_no_bytes_make_the_reader_fail_with_anything_but_our_error(
    data: bytes, family: Family, offsets: list[int], name: str
) -> None:
    try:
        table = decode_table(family, name, Info(31, tuple(offsets[:5]), tuple(offsets[5:]), 3, len(data)), data)
        for chain in table.chains.values():
            assert chain.name
    except KernelError:
        pass


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(list(Family)))
def test_a_whole_table_with_one_byte_changed_is_read_or_refused(at: int, value: int, family: Family) -> None:
    chains = whole(family).chains
    assert isinstance(chains, LegacyChains)
    data = bytearray(chains._entries)
    data[at % len(data)] = value
    try:
        changed = decode_table(family, "nat", chains._info, bytes(data)).chains
        assert {chain.name for chain in changed.values()}
    except KernelError:
        pass


# --- comparing


def numbered(family: Family, counters: tuple[int, int], verdict: int = -2) -> bytes:
    blob = Blob(family)
    for _ in range(200):
        blob.add(standard(verdict), extension("mark", 1, bytes(12)), counters=counters)
    return blob.finish()[1]


@pytest.mark.parametrize("family", list(Family))
def test_counters_are_no_difference_and_everything_else_is(family: Family) -> None:
    old = numbered(family, (0, 0))
    offsets = entry_offsets(family, old)
    assert len(offsets) == 202
    assert same_entries(family, offsets, old, old)
    assert same_entries(family, offsets, old, numbered(family, (7, 900)))
    assert not same_entries(family, offsets, old, numbered(family, (7, 900), verdict=-1))
    assert not same_entries(family, offsets, old, old[:-8])


@given(st.integers(0, 10**6), st.sampled_from(list(Family)))
def test_a_changed_byte_is_a_difference_unless_it_is_a_counters(at: int, family: Family) -> None:
    old = numbered(family, (1, 1))
    offsets = entry_offsets(family, old)
    at %= len(old)
    new = bytearray(old)
    new[at] ^= 0x55
    within = at - max(offset for offset in offsets if offset <= at)
    counters = LAYOUTS[family].counters_at
    expected = counters <= within < counters + 16
    assert same_entries(family, offsets, old, bytes(new)) == expected
