"""The rules of a chain, in blocks that copies share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nftables.test_prefilter import DROP, header, rule, source

from hitless.kernel.nftables import blocks, prefilter
from hitless.kernel.nftables.blocks import RuleBlocks
from hitless.kernel.nftables.prefilter import KnownHeader
from hitless.model.headers import PacketHeader

OPERATIONS = st.tuples(st.sampled_from(["append", "prepend", "after", "remove"]), st.integers(0, 10**6))


@given(st.lists(OPERATIONS, max_size=60))
def test_rules_stand_as_in_a_list(operations: list[tuple[str, int]]) -> None:
    listed: list[int] = []
    rules = RuleBlocks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK", 4)
        for handle, (operation, chance) in enumerate(operations, 1):
            other = listed[chance % len(listed)] if listed else 0
            if operation == "append":
                rules.append(handle, b"%d" % handle)
                listed.append(handle)
            elif operation == "prepend":
                rules.prepend(handle, b"%d" % handle)
                listed.insert(0, handle)
            elif operation == "after" and listed:
                rules.insert_after(other, handle, b"%d" % handle)
                listed.insert(listed.index(other) + 1, handle)
            elif operation == "remove" and listed:
                rules.remove(other)
                listed.remove(other)
    assert list(rules) == listed
    assert len(rules) == len(listed)
    assert list(rules.entries()) == [(handle, b"%d" % handle) for handle in listed]
    assert rules.first == (listed[0] if listed else 0)


def test_a_copy_shares_what_did_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = RuleBlocks(
        {number: rule(*source(f"10.{number >> 8}.{number & 255}.1/32"), DROP) for number in range(1, 5001)}
    )
    looked: list[int] = []
    before = prefilter.comparison

    def counting(payload: bytes) -> prefilter.Found | None:
        looked.append(1)
        return before(payload)

    monkeypatch.setattr(prefilter, "comparison", counting)
    known = KnownHeader(header("10.0.7.1"))
    assert [handle for _, handle, _ in rules.candidates(known)] == [7]
    assert len(looked) == 5000
    looked.clear()
    changed = rules.copy()
    changed.remove(3000)
    changed.append(5001, rule(*source("10.0.7.1/32"), DROP))
    assert [(number, handle) for number, handle, _ in changed.candidates(known)] == [(7, 7), (5000, 5001)]
    assert len(looked) <= 4 * blocks._BLOCK  # two blocks of forty
    assert [handle for _, handle, _ in rules.candidates(known)] == [7]  # what was before stays


def test_packets_that_a_rule_singles_out_are_told_from_others() -> None:
    rules = RuleBlocks({number: rule(*source(f"10.0.0.{number}/32"), DROP) for number in range(1, 200)})
    one, other = header("10.0.0.9"), header("10.0.1.9")
    assert rules.specific_rules(KnownHeader(one)) == (9,) and rules.specific_rules(KnownHeader(other)) == ()
    assert rules.specific_rules(KnownHeader(PacketHeader(4, 6))) == tuple(range(1, 200))


def test_what_is_not_there_is_an_error_and_changes_nothing() -> None:
    rules = RuleBlocks({1: b"one", 256: b"two"})
    with pytest.raises(KeyError):
        rules.insert_after(7, 8, b"eight")
    with pytest.raises(KeyError):
        rules.remove(7)
    assert list(rules.entries()) == [(1, b"one"), (256, b"two")]
    # the bytes of a handle may stand across two others
    assert 1 in rules and 256 in rules and (1 << 56) + 1 not in rules and 1 << 8 * 7 not in rules
    assert RuleBlocks().first == 0


def test_a_version_changes_with_the_rules_alone() -> None:
    rules = RuleBlocks({number: b"%d" % number for number in range(1, 1000)})
    other = rules.copy()
    assert other.version == rules.version
    other.remove(500)
    assert other.version != rules.version
    assert rules.copy().version == rules.version
