"""Rules of the kernel are decoded to what was written: recorded messages, and damaged or random bytes."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nftables.rule_samples import IPTABLES, NFT, RECORDED, Sample, identity, recorded

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.expressions import decode
from hitless.kernel.nftables.sets import SetState
from hitless.model.packets import Packet
from hitless.model.rules import Chain, Hook, InInterface, Opaque, OpaqueAction, Rule, Ruleset, Table
from hitless.semantics import evaluate

SAMPLES = [*NFT, *IPTABLES]


def no_sets(name: str) -> SetState | None:
    return None


def test_every_sample_is_recorded() -> None:
    assert len({identity(sample) for sample in SAMPLES}) == len(SAMPLES)
    assert RECORDED.exists()
    for sample in SAMPLES:
        assert recorded(sample)[0]


@pytest.mark.parametrize("sample", SAMPLES, ids=identity)
def test_a_recorded_rule_is_decoded_to_what_was_written(sample: Sample) -> None:
    rule, sets = recorded(sample)
    assert tuple(each.steps for each in decode(rule, sample.family, sets.get)) == sample.expected


def test_the_head_of_a_rule_is_read_without_its_expressions() -> None:
    rule, _ = recorded(NFT[0])
    head = wire.rule_head(rule)
    assert (head.table, head.chain, head.position) == ("t", "f", 0)
    assert head.handle > 0


def test_an_expression_that_nobody_knows_is_a_condition_that_cannot_be_told() -> None:
    text = netlink.text(wire.EXPRESSION_NAME, "teleport")
    rule = netlink.nfgenmsg(2) + netlink.nested(wire.RULE_EXPRESSIONS, netlink.nested(1, text))
    assert decode(rule, "ip", no_sets) == (Rule((Opaque("teleport"),)),)


def test_a_register_that_an_unknown_expression_may_have_loaded_is_not_believed() -> None:
    rule, _ = recorded(next(sample for sample in NFT if sample.text == "tcp dport 443 drop"))
    expressions = netlink.attributes(rule, 4)[wire.RULE_EXPRESSIONS]
    parts = [raw for _, raw in netlink.attribute_list(expressions)]
    unknown = netlink.text(wire.EXPRESSION_NAME, "teleport")
    changed = b"".join(netlink.nested(1, each) for each in (*parts[:3], unknown, *parts[3:]))
    [decoded] = decode(netlink.nfgenmsg(2) + netlink.nested(wire.RULE_EXPRESSIONS, changed), "ip", no_sets)
    assert [type(step) for step in decoded.steps[1:3]] == [Opaque, Opaque]


def test_a_lookup_in_a_set_that_nobody_knows_is_opaque_and_its_verdict_too() -> None:
    rule, _ = recorded(next(sample for sample in NFT if sample.text.endswith("vmap @fate")))
    [decoded] = decode(rule, "ip", no_sets)
    assert decoded.steps[-2:] == (Opaque("a key map @fate"), OpaqueAction("the verdict of a key map @fate"))


@given(st.binary(max_size=400))
def test_bytes_that_are_no_rule_are_never_an_exception_and_never_a_rule_that_does_nothing(noise: bytes) -> None:
    for rule in decode(netlink.nfgenmsg(2) + noise, "inet", no_sets):
        assert isinstance(rule, Rule)


@given(st.sampled_from(SAMPLES), st.integers(0, 2**32))
def test_a_damaged_rule_is_decoded_or_called_undecodable(sample: Sample, seed: int) -> None:
    rule, sets = recorded(sample)
    chance = random.Random(seed)
    damaged = bytearray(rule)
    for _ in range(chance.randrange(1, 4)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    cut = bytes(damaged[: chance.randrange(4, len(damaged) + 1)])
    for each in (bytes(damaged), cut):
        assert decode(each, sample.family, sets.get)


@given(st.binary(max_size=200))
def test_damaged_netlink_raises_our_errors_only(noise: bytes) -> None:
    for read in (
        lambda: list(netlink.messages(noise)),
        lambda: netlink.attributes(noise),
        lambda: netlink.attribute_list(noise),
        lambda: wire.rule_head(noise),
        lambda: SetState("s").apply(noise),
    ):
        try:
            read()
        except KernelError as error:
            assert "read" in str(error)


@given(st.lists(st.tuples(st.integers(1, 100), st.binary(max_size=30)), max_size=8))
def test_attributes_come_back_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in pairs)
    assert netlink.attribute_list(data) == pairs
    assert netlink.attributes(data) == dict(pairs)


@given(st.lists(st.tuples(st.integers(16, 60000), st.integers(0, 0xFFFF), st.binary(max_size=30)), max_size=6))
def test_messages_come_back_as_they_were_written(parts: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(netlink.message(kind, flags, 7, payload) for kind, flags, payload in parts)
    assert [(each.type, each.flags, each.payload) for each in netlink.messages(data)] == parts


@given(st.lists(st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**20)), max_size=12))
def test_marked_ends_are_the_intervals_that_they_bound(pairs: list[tuple[int, int]]) -> None:
    """An interval set without concatenation, as the kernel keeps it, against plain arithmetic."""
    state = SetState("s", flags=wire.SET_INTERVAL, key_length=4)
    wanted: list[tuple[int, int]] = []
    for low, width in sorted(pairs):
        if wanted and low <= wanted[-1][1] + 1:
            continue  # the kernel keeps no overlapping ones, and neighbours are merged before it sees them
        wanted.append((low, min(low + width, 2**32 - 1)))
    elements = []
    for low, high in wanted:
        elements.append((low, 0))
        if high < 2**32 - 1:
            elements.append((high + 1, wire.ELEMENT_INTERVAL_END))
    random.Random(len(elements)).shuffle(elements)
    for value, flags in elements:
        key = netlink.nested(wire.ELEMENT_KEY, netlink.be32(wire.DATA_VALUE, value))
        state.apply(netlink.nested(1, key, netlink.be32(wire.ELEMENT_FLAGS, flags)))
    found = state.intervals()
    assert found is not None
    assert [(int.from_bytes(each.low, "big"), int.from_bytes(each.high, "big")) for each in found] == wanted


def test_a_length_that_no_register_has_costs_no_memory() -> None:
    """A message that the kernel would never make may name four gigabytes; digits are written for what can be there."""
    from hitless.kernel.nftables.field_names import FieldNames, value

    assert len(value(FieldNames("payload", "a load"), b"\x01", big=True, width=1 << 31)) == 2 + 2 * 64


def expression(name: str, *data: bytes) -> bytes:
    return netlink.nested(1, netlink.text(wire.EXPRESSION_NAME, name), netlink.nested(wire.EXPRESSION_DATA, *data))


def decoded(*expressions: bytes) -> Rule:
    [rule] = decode(netlink.nfgenmsg(2) + netlink.nested(wire.RULE_EXPRESSIONS, *expressions), "ip", no_sets)
    return rule


@pytest.mark.parametrize(("state", "answer"), [("NEW", "not_carried"), ("ESTABLISHED", "cannot_tell")])
def test_a_flow_table_takes_no_unconfirmed_connection_and_its_rule_ends(state: str, answer: str) -> None:
    accept = netlink.nested(2, netlink.nested(wire.DATA_VERDICT, netlink.be32(wire.VERDICT_CODE, 1)))
    rule = decoded(
        expression("flow_offload", netlink.text(1, "f")), expression("immediate", netlink.be32(1, 0), accept)
    )
    chain = Chain("fw", (rule,), Hook("filter", "forward", 0, "drop"))
    packet = Packet(ip_address("10.42.1.10"), ip_address("198.51.100.1"), state=state)
    outcome = evaluate(Ruleset((Table("ip", "t", {"fw": chain}),)), packet, ("forward",))
    assert outcome.state == answer


def test_a_register_that_was_loaded_over_in_part_is_not_believed() -> None:
    """Four bytes in the middle of an interface's name."""
    name = expression("meta", netlink.be32(1, 1), netlink.be32(2, 6))
    mark = expression("meta", netlink.be32(1, 9), netlink.be32(2, 3))
    compare = expression(
        "cmp", netlink.be32(1, 1), netlink.be32(2, 0), netlink.nested(3, netlink.attribute(1, b"eth0".ljust(16, b"\0")))
    )
    assert decoded(name, compare).steps == (InInterface("eth0"),)
    assert [type(step) for step in decoded(name, mark, compare).steps] == [Opaque]
