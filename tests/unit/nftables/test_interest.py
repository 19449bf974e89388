"""What is of interest is kept, and of all else nothing but the head, whatever comes and goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.interest import Interest, ObjectRef, identity, jump_targets, parse_identity, references
from hitless.kernel.nftables.replay import Replay, ReplayedCommit
from hitless.kernel.nftables.state import ChainState, State, TableState

FAMILY, TABLE = 2, "t"
KEY = (FAMILY, TABLE)
INTEREST = Interest(frozenset({"forward"}))
GEN = wire.SUBSYSTEM << 8 | wire.NEWGEN


def head(kind: int, *parts: bytes) -> netlink.Message:
    return netlink.Message(wire.SUBSYSTEM << 8 | kind, 0, 0, 0, netlink.nfgenmsg(FAMILY) + b"".join(parts))


def chain(name: str, handle: int, hook: int | None = None) -> netlink.Message:
    parts = [netlink.text(wire.CHAIN_TABLE, TABLE), netlink.be64(wire.CHAIN_HANDLE, handle)]
    parts.append(netlink.text(wire.CHAIN_NAME, name))
    if hook is not None:
        parts.append(netlink.nested(wire.CHAIN_HOOK, netlink.be32(wire.HOOK_NUMBER, hook), netlink.be32(2, 0)))
    return head(wire.NEWCHAIN, *parts)


def rule(of: str, handle: int, *, jump: str = "", lookup: str = "") -> netlink.Message:
    expressions = []
    if lookup:
        data = netlink.nested(wire.EXPRESSION_DATA, netlink.text(1, lookup), netlink.be32(2, 1))
        expressions.append(netlink.nested(1, netlink.text(wire.EXPRESSION_NAME, "lookup"), data))
    if jump:
        expressions.append(netlink.nested(1, netlink.text(wire.EXPRESSION_NAME, "immediate"), verdict(jump)))
    parts = [netlink.text(wire.RULE_TABLE, TABLE), netlink.text(wire.RULE_CHAIN, of)]
    parts += [netlink.be64(wire.RULE_HANDLE, handle), netlink.nested(wire.RULE_EXPRESSIONS, *expressions)]
    message = head(wire.NEWRULE, *parts)
    return message._replace(flags=netlink.CREATE | netlink.APPEND)


def verdict(to: str) -> bytes:
    words = netlink.be32(wire.VERDICT_CODE, -3) + netlink.text(wire.VERDICT_CHAIN, to)
    return netlink.nested(2, netlink.be32(1, 0), netlink.nested(2, netlink.nested(wire.DATA_VERDICT, words)))


def new_set(name: str, handle: int, flags: int = 0) -> netlink.Message:
    parts = [
        netlink.text(wire.SET_TABLE, TABLE),
        netlink.text(wire.SET_NAME, name),
        netlink.be32(wire.SET_FLAGS, flags),
    ]
    parts += [netlink.be32(wire.SET_KEY_LENGTH, 4), netlink.be64(wire.SET_HANDLE, handle)]
    return head(wire.NEWSET, *parts)


def element(of: str, value: int, jump: str = "", *, gone: bool = False) -> netlink.Message:
    key = netlink.nested(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, value.to_bytes(4, "big")))
    words = netlink.be32(wire.VERDICT_CODE, -3) + netlink.text(wire.VERDICT_CHAIN, jump)
    data = netlink.nested(wire.ELEMENT_DATA, netlink.nested(wire.DATA_VERDICT, words)) if jump else b""
    parts = [netlink.text(wire.ELEMENTS_TABLE, TABLE), netlink.text(wire.ELEMENTS_SET, of)]
    listed = netlink.nested(wire.ELEMENTS_LIST, netlink.nested(1, key, data))
    return head(wire.DELSETELEM if gone else wire.NEWSETELEM, *parts, listed)


class ReplayedTransactions:
    """A replay that is fed commits."""

    def __init__(self) -> None:
        table = TableState(FAMILY, TABLE)
        self.replay = Replay(State(1, {KEY: table}), (FAMILY,), None, INTEREST)
        self.handles = 100

    def commit(self, *messages: netlink.Message, left_out: dict[bytes, list[int]] | None = None) -> ReplayedCommit:
        generation = self.replay.state.generation + 1
        last = head(wire.NEWGEN, netlink.be32(wire.GEN_ID, generation))
        found = self.replay.commit(messages, last, left_out)
        assert found is not None
        return found

    def kept(self) -> set[str]:
        table = self.replay.state.tables[KEY]
        chains = {name for name, each in table.chains.items() if each.kept}
        return chains | {f"@{name}" for name, each in table.sets.items() if each.kept}


BASE = (
    chain("base", 101, 2),
    chain("far", 102),
    chain("input", 103, 1),
    new_set("s", 104),
    new_set("m", 105, wire.SET_MAP),
)


def test_what_nothing_of_interest_leads_to_is_known_by_its_head() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE, rule("input", 106, lookup="s"), element("s", 1), rule("far", 107, jump="x"))
    assert replayed.kept() == {"base"}
    table = replayed.replay.state.tables[KEY]
    assert set(table.chains) == {"base", "far", "input"}
    assert not len(table.sets["s"].elements)
    assert not table.chains["far"].rules
    assert replayed.replay.skipped == {
        identity(KEY, ObjectRef(*each)) for each in ((False, "far"), (False, "input"), (True, "s"), (True, "m"))
    }


def test_what_comes_in_one_commit_with_what_leads_to_it_is_whole() -> None:
    replayed = ReplayedTransactions()
    commit = replayed.commit(
        *BASE, element("m", 7, "far"), element("s", 1), rule("base", 106, lookup="m"), rule("far", 107, lookup="s")
    )
    assert replayed.kept() == {"base", "far", "@s", "@m"}
    assert commit.needs == ()
    assert len(replayed.replay.state.tables[KEY].sets["s"].elements) == 1


def test_what_becomes_of_interest_later_must_be_read_and_then_leads_on() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE, rule("far", 106, lookup="s"))
    commit = replayed.commit(rule("base", 107, jump="far"))
    assert commit.needs == ((KEY, ObjectRef(False, "far")),)
    assert commit.changes[0].kept
    read = ChainState("far", 102)
    payload = rule("far", 106, lookup="s").payload
    read.rules.append(106, payload)
    read.add_references(payload)
    assert replayed.replay.supply(KEY, ObjectRef(False, "far"), read) == [(KEY, ObjectRef(True, "s"))]
    assert replayed.kept() == {"base", "far"}


def test_a_map_of_interest_that_gets_a_verdict_leads_to_its_chain() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE, rule("base", 106, lookup="m"))
    assert replayed.commit(element("m", 9, "far")).needs == ((KEY, ObjectRef(False, "far")),)


def test_commits_about_strangers_are_counted_and_change_nothing() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE)
    far, strange = (identity(KEY, ObjectRef(*each)) for each in ((False, "far"), (True, "s")))
    commit = replayed.commit(left_out={far: [3, 1], strange: [5, 0]})
    assert [(each.added, each.removed, each.sets, each.kept) for each in commit.changes] == [(3, 1, {"s"}, False)]
    assert replayed.kept() == {"base"}


def test_what_was_dropped_of_a_chain_that_is_kept_by_now_is_read() -> None:
    """The thread that receives runs ahead: it dropped what nobody asked about then."""
    replayed = ReplayedTransactions()
    replayed.commit(*BASE, rule("base", 106, lookup="s"), element("s", 1))
    assert replayed.kept() == {"base", "@s"}
    commit = replayed.commit(left_out={identity(KEY, ObjectRef(True, "s")): [1, 0]})
    assert commit.needs == ((KEY, ObjectRef(True, "s")),)
    assert replayed.kept() == {"base"}


def test_a_name_that_comes_again_is_another_thing() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE)
    gone = head(
        wire.DELSET,
        netlink.text(wire.SET_TABLE, TABLE),
        netlink.text(wire.SET_NAME, "s"),
        netlink.be64(wire.SET_HANDLE, 104),
    )
    replayed.commit(gone)
    assert identity(KEY, ObjectRef(True, "s")) not in replayed.replay.skipped
    replayed.commit(new_set("s", 200), rule("base", 201, lookup="s"), element("s", 4))
    assert replayed.kept() == {"base", "@s"}


def test_collapsed_commits_are_one_with_the_next() -> None:
    replayed = ReplayedTransactions()
    replayed.commit(*BASE)
    last = head(wire.NEWGEN, netlink.be32(wire.GEN_ID, replayed.replay.state.generation + 5))
    commit = replayed.replay.commit((), last, {identity(KEY, ObjectRef(True, "s")): [4, 0]}, 4)
    assert commit is not None
    assert commit.generation == replayed.replay.state.generation == 7


@given(st.binary(max_size=120))
def test_bytes_that_are_no_rule_lead_nowhere_or_somewhere_and_never_fail(noise: bytes) -> None:
    for data in (noise, netlink.text(1, "lookup") + noise, netlink.be32(1, -3) + noise):
        references(data)
        jump_targets(data)


@pytest.mark.parametrize("is_set", [False, True])
def test_an_identity_names_what_it_stands_for(is_set: bool) -> None:
    assert parse_identity(identity((10, "täble"), ObjectRef(is_set, "näme"))) == (
        10,
        "täble",
        ObjectRef(is_set, "näme"),
    )
