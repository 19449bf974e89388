"""Transactions from events: the state after each is the kernel's, whatever was done in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.nftables.announcing_kernel import FAMILY, TABLE, AnnouncingKernel, head

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.blocks import RuleBlocks
from hitless.kernel.nftables.replay import Desync, Replay, ReplayedCommit
from hitless.kernel.nftables.state import ChainState, State, TableState

KEY = (FAMILY, TABLE)


def fresh(*chains: str) -> tuple[AnnouncingKernel, Replay]:
    """A kernel and a replay that agree on empty chains."""
    kernel = AnnouncingKernel(chains={name: [] for name in chains}, handles=100)
    table = TableState(FAMILY, TABLE, chains={name: ChainState(name, number) for number, name in enumerate(chains, 1)})
    table.top = 100
    return kernel, Replay(State(kernel.generation, {KEY: table}), (FAMILY,))


def feed(replay: Replay, messages: list[netlink.Message]) -> list[ReplayedCommit]:
    return [commit for message in messages if (commit := replay.feed(message)) is not None]


def order(replay: Replay) -> dict[str, list[int]]:
    return {name: list(chain.rules) for name, chain in replay.state.tables[KEY].chains.items()}


OPERATIONS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "insert", "after", "before", "delete", "replace", "flush", "chain", "front"]),
            st.sampled_from(["a", "b"]),
            st.integers(0, 1000),
        ),
        min_size=1,
        max_size=9,
    ),
    min_size=1,
    max_size=7,
)


def ask(kernel: AnnouncingKernel, operation: str, chain: str, number: int) -> None:
    live = kernel.live(chain)
    rule = live[number % len(live)] if live else None
    if operation == "chain":
        kernel.add_chain(f"new{number % 3}")
    elif operation == "flush":
        kernel.flush(chain)
    elif operation == "append" or rule is None:
        kernel.append(chain)
    elif operation == "insert":
        kernel.insert(chain)
    elif operation == "after":
        kernel.append(chain, rule)
    elif operation == "before":
        kernel.insert(chain, rule)
    elif operation == "delete":
        kernel.delete(chain, rule)
    elif operation == "front":
        kernel.delete(chain, live[0])
    elif rule not in {part.handle for part in kernel.parts}:
        # (nothing can name a rule of its own transaction in order to replace it: the handle is not told before)
        kernel.replace(chain, rule)


@pytest.mark.slow
@given(OPERATIONS)
def test_after_every_transaction_the_rules_stand_in_the_kernels_order(
    transactions: list[list[tuple[str, str, int]]],
) -> None:
    kernel, replay = fresh("a", "b")
    for operations in transactions:
        for operation in operations:
            ask(kernel, *operation)
        before = {name: list(rules) for name, rules in order(replay).items()}
        view = replay.state
        commits = feed(replay, kernel.commit())
        assert len(commits) == (kernel.generation != view.generation)
        assert order(replay) == {name: kernel.live(name) for name in kernel.chains}
        # a view that somebody holds stays what it was
        held = {name: list(chain.rules) for name, chain in view.tables[KEY].chains.items()}
        assert held == before


@given(OPERATIONS, st.integers(0, 6))
def test_what_a_dump_already_holds_is_not_applied_again(
    transactions: list[list[tuple[str, str, int]]], dumped_after: int
) -> None:
    """Events queue from before the dump; those up to its generation are skipped, the later ones applied."""
    kernel, replay = fresh("a", "b")
    queued: list[netlink.Message] = []
    dump: State | None = None
    for number, operations in enumerate(transactions):
        for operation in operations:
            ask(kernel, *operation)
        queued += kernel.commit()
        if number == min(dumped_after, len(transactions) - 1):
            chains = {
                name: ChainState(name, rules=RuleBlocks(dict.fromkeys(kernel.live(name), b"")))
                for name in kernel.chains
            }
            dump = State(kernel.generation, {KEY: TableState(FAMILY, TABLE, chains=chains, top=0)})
            dump.tables[KEY].top = kernel.handles
    assert dump is not None
    replay.reset(dump)
    feed(replay, queued)
    assert order(replay) == {name: kernel.live(name) for name in kernel.chains}
    assert replay.state.generation == kernel.generation


def test_a_commit_names_its_writer_and_what_it_changed() -> None:
    kernel, replay = fresh("a", "b")
    kernel.append("a")
    kernel.append("a")
    kernel.add_chain("c")
    [commit] = feed(replay, kernel.commit())
    [change] = commit.changes
    assert (commit.generation, commit.pid, commit.comm) == (2, 77, "writer")
    assert (change.added, change.removed, change.chains, change.hooks) == (2, 0, {"a", "c"}, set())
    assert change.summary() == "chain c added; a: +2 rules"


def test_a_summary_is_bounded_however_much_was_changed() -> None:
    kernel, replay = fresh("a")
    for number in range(500):
        kernel.add_chain(f"chain-with-a-rather-long-name-{number}")
        kernel.append(f"chain-with-a-rather-long-name-{number}")
    [commit] = feed(replay, kernel.commit())
    assert len(commit.changes[0].summary()) < 1000
    assert "more" in commit.changes[0].summary()


def test_a_missing_generation_is_a_desync() -> None:
    kernel, replay = fresh("a")
    kernel.append("a")
    kernel.commit()
    kernel.append("a")
    with pytest.raises(Desync, match="1 generations are missing"):
        feed(replay, kernel.commit())


@pytest.mark.parametrize("operation", ["unknown rule", "known rule", "unknown chain", "unknown table", "bad place"])
def test_an_event_that_does_not_fit_is_a_desync_and_leaves_the_state_alone(operation: str) -> None:
    kernel, replay = fresh("a")
    kernel.append("a")
    feed(replay, kernel.commit())
    before = replay.state
    rule = kernel.live("a")[0]
    messages = {
        "unknown rule": (wire.DELRULE, head("a") + netlink.be64(wire.RULE_HANDLE, 4711)),
        "known rule": (wire.NEWRULE, head("a") + netlink.be64(wire.RULE_HANDLE, rule)),
        "unknown chain": (wire.NEWRULE, head("zz") + netlink.be64(wire.RULE_HANDLE, 4711)),
        "unknown table": (
            wire.NEWRULE,
            netlink.text(wire.RULE_TABLE, "zz") + netlink.text(wire.RULE_CHAIN, "a") + netlink.be64(3, 5),
        ),
        "bad place": (
            wire.NEWRULE,
            head("a") + netlink.be64(wire.RULE_HANDLE, 4711) + netlink.be64(wire.RULE_POSITION, 4712),
        ),
    }
    number, payload = messages[operation]
    kernel.generation += 1
    with pytest.raises(Desync):
        feed(replay, [kernel.message(number, payload), kernel.newgen()])
    assert replay.state is before


def test_tables_that_are_not_wanted_are_passed_over() -> None:
    kernel, _ = fresh("a")
    replay = Replay(State(1), (FAMILY,), ("other",))
    kernel.append("a")
    [commit] = feed(replay, kernel.commit())
    assert commit.changes == ()
    assert replay.state.generation == 2


def test_messages_of_other_families_and_subsystems_are_passed_over() -> None:
    _, replay = fresh("a")
    foreign = netlink.Message(5 << 8, 0, 0, 0, b"")
    bridge = netlink.Message(wire.SUBSYSTEM << 8 | wire.DELRULE, 0, 0, 0, netlink.nfgenmsg(7) + head("a"))
    kernel = AnnouncingKernel(generation=2)
    [commit] = feed(replay, [foreign, bridge, kernel.newgen()])
    assert commit.changes == ()


def test_the_generation_may_wrap_past_zero() -> None:
    _, replay = fresh("a")
    replay.reset(State(0xFFFFFFFF, replay.state.tables))
    kernel = AnnouncingKernel(generation=1)
    [commit] = feed(replay, [kernel.newgen()])
    assert commit.generation == 1


def test_a_chain_that_comes_with_an_old_handle_was_renamed_and_all_is_read_again() -> None:
    kernel, replay = fresh("a")
    payload = netlink.text(wire.CHAIN_TABLE, TABLE) + netlink.text(wire.CHAIN_NAME, "other")
    kernel.generation += 1
    with pytest.raises(Desync, match="renamed to other"):
        feed(replay, [kernel.message(wire.NEWCHAIN, payload + netlink.be64(wire.CHAIN_HANDLE, 1)), kernel.newgen()])


@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=60)), max_size=5))
def test_noise_between_generations_is_a_commit_or_one_of_our_errors(noise: list[tuple[int, bytes]]) -> None:
    kernel, replay = fresh("a")
    kernel.generation += 1
    messages = [kernel.message(number, payload) for number, payload in noise]
    try:
        feed(replay, [*messages, kernel.newgen()])
    except (Desync, KernelError):
        assert replay.state.generation == 1


@pytest.mark.parametrize("length", range(4))
def test_a_message_without_a_head_is_a_desync_and_no_error_of_pythons(length: int) -> None:
    message = netlink.Message(wire.SUBSYSTEM << 8 | wire.NEWRULE, 0, 0, 0, bytes([2] * length))
    end = netlink.Message(wire.SUBSYSTEM << 8 | wire.NEWGEN, 0, 0, 0, netlink.nfgenmsg(0) + netlink.be32(1, 2))
    with pytest.raises(Desync):
        Replay(State(1, {}), (2, 10, 1)).commit([message], end)
