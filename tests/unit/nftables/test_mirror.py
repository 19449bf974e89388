"""The mirror in virtual time: what the kernel drops, disturbs, damages and forgets, and how it finds back."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.unit.nftables.wire_kernel import IP, WireControl, WireKernel, WireSockets, ends, kind, looks_up, source

from hitless.errors import Defect, KernelError, MissingError
from hitless.kernel import netlink
from hitless.kernel.nftables import dump, fetching, receiving, wire
from hitless.kernel.nftables.interest import EVERYTHING, Interest
from hitless.kernel.nftables.mirror import Mirror, Update
from hitless.kernel.nftables.state import State, TableKey, TableState
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate

FORWARD = Interest(frozenset({"forward"}))
DROP, ACCEPT, JUMP = 0, 1, -3
CASES = int(os.environ.get("HITLESS_MIRROR_CASES", "25"))
POD = bytes([10, 42, 0, 5])
PACKET = Packet(ip_address("10.42.0.5"), ip_address("192.0.2.1"), iif="pod0", oif="up0")


def small() -> WireKernel:
    """A node with a forward chain of interest, and a chain and a set of others that nothing leads to."""
    kernel = WireKernel()
    kernel.table("t").chain("t", "base", "forward").chain("t", "other").set("t", "block")
    kernel.rule("t", "base", source(bytes([10, 0, 0, 9])), ends(DROP))
    kernel.rule("t", "other", ends(DROP))
    kernel.element("t", "block", POD).element("t", "block", bytes([10, 0, 0, 7]))
    kernel.commit()
    kernel.events.clear()
    return kernel


@dataclass
class Watched:
    """A mirror of a kernel."""

    kernel: WireKernel
    mirror: Mirror
    sockets: WireSockets

    def fate(self) -> str:
        """What becomes of a pod's packet at the hook, by these rules."""
        return fate(self.mirror.current)

    def follow(self) -> list[Update]:
        """All that is there, without waiting."""
        found = []
        while (update := self.mirror.next(0)) is not None:
            found.append(update)
        return found

    def check(self, *, collapsed: bool = False) -> None:
        """It has what a full read of this moment has. ``collapsed``: the last commits come with the next one."""
        control = WireControl(self.kernel)
        families, interest = self.mirror._families, self.mirror._interest
        fresh = dump.read_state(control, families, None, interest, clock=self.kernel.clock)  # type: ignore[arg-type]
        assert shape(self.mirror.state, fresh) == shape(fresh, fresh)
        assert fate(self.mirror.current) == fate(fresh.ruleset())
        assert collapsed or self.mirror.generation == self.mirror.committed == self.kernel.generation


def fate(ruleset: Ruleset) -> str:
    """``passes``, ``dropped``, or ``unknown`` where the rules do not tell."""
    kinds = {ending.kind for ending in evaluate(ruleset, PACKET, ("forward",), nat=False).endings}
    return {frozenset({"untranslated"}): "passes", frozenset({"dropped"}): "dropped"}.get(frozenset(kinds), "unknown")


def shape(state: State, kept: State) -> object:
    """Rules by handle, rules decoded and elements of what ``kept`` keeps, and heads of the rest: of what was of
    interest once, more may be known."""

    def table(key: TableKey, found: TableState) -> object:
        like, view = kept.tables.get(key, found), state.view()[key].chains
        whole = {name for name, one in like.chains.items() if one.kept}
        full = {name for name, one in like.sets.items() if one.kept}
        chains = {one.name: (one.handle, one.hook) for one in found.chains.values()}
        rules = {name: (list(found.chains[name].rules), view[name]) for name in whole & found.chains.keys()}
        sets = {one.name: (one.handle, one.too_large) for one in found.sets.values()}
        elements = {name: (found.sets[name].kept, list(found.sets[name].elements)) for name in full & found.sets.keys()}
        return found.dormant, chains, rules, sets, elements

    return {key: table(key, each) for key, each in state.tables.items()}


Watching = Callable[..., Watched]


@pytest.fixture
def watching() -> Iterator[Watching]:
    made: list[Mirror] = []

    def watch(kernel: WireKernel, interest: Interest = FORWARD, *, collapse: bool = False) -> Watched:
        sockets = WireSockets(kernel)
        made.append(Mirror(interest=interest, clock=kernel.clock, collapse=collapse, sockets=sockets))
        return Watched(kernel, made[-1], sockets)

    yield watch
    for mirror in made:
        mirror.close()


# --- commits


def test_each_commit_is_one_update_with_its_writer_and_former_states_stay(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    seen.check()
    assert seen.fate() == "passes"
    before = seen.mirror.current
    handle = kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit(pid=2**22 + 1, comm="nobody")  # no process has such a number: nothing more is known of it
    kernel.clock.sleep(0.5)
    kernel.delete_rule("t", "base", handle).commit()
    dropped, carried = seen.follow()
    assert (dropped.pid, dropped.comm, dropped.argv, dropped.lost) == (2**22 + 1, "nobody", "", False)
    assert dropped.changes is not None and dropped.changes[0].added == 1 and dropped.changes[0].chains == {"base"}
    assert carried.changes is not None and carried.changes[0].removed == 1
    assert fate(dropped.ruleset) == "dropped"
    assert fate(before) == "passes" == seen.fate()
    assert seen.mirror.take_lag() == 0 == seen.mirror.take_lag()
    seen.check()


def test_what_only_touches_strangers_is_an_update_unless_it_is_collapsed(watching: Watching) -> None:
    for collapse in (False, True):
        kernel = small()
        seen = watching(kernel, collapse=collapse)
        for number in range(5):
            kernel.rule("t", "other", source(bytes([10, 1, 0, number])), ends(DROP))
            kernel.commit()
        found = seen.follow()
        assert [each.changes is not None and each.changes[0].added for each in found] == ([] if collapse else [1] * 5)
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()
        [last] = seen.follow()
        assert last.changes is not None and not last.lost
        assert last.changes[0].added == (6 if collapse else 1)
        assert seen.fate() == "dropped"
        seen.check()


def test_waiting_ends_in_time_at_a_call_and_at_a_commit(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    begun = kernel.clock.seconds
    assert seen.mirror.next(3) is None
    assert kernel.clock.seconds == pytest.approx(begun + 3)
    kernel.clock.at(1, seen.mirror.wake)
    assert seen.mirror.next(60) is None
    assert kernel.clock.seconds == pytest.approx(begun + 4)

    def write() -> None:
        kernel.rule("t", "base", ends(DROP))
        kernel.commit()

    kernel.clock.at(2, write)
    update = seen.mirror.next(60)
    assert update is not None
    assert update.t == int((begun + 6) * 1e9)
    assert kernel.clock.seconds == pytest.approx(begun + 6)


def test_what_waits_is_taken_in_for_half_a_second_beyond_the_time_and_no_longer(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    for number in range(4):
        kernel.rule("t", "other", source(bytes([10, 2, 0, number])), ends(DROP))
        kernel.commit()
    kernel.rule("t", "base", ends(DROP))
    kernel.commit()
    assert not seen.mirror.waiting
    replay, commits = seen.mirror._replay, []
    apply = replay.commit

    def slowly(*arguments: object, **more: object) -> object:
        kernel.clock.sleep(0.2)
        commits.append(apply(*arguments, **more))  # type: ignore[arg-type]
        return None  # nothing that anybody asks about

    replay.commit = slowly  # type: ignore[method-assign, assignment]
    assert seen.mirror.next(0) is None
    assert len(commits) == 3  # 0.2 and 0.4 s are within the overtime
    assert seen.mirror._receiver.queue.qsize() == 2


def test_it_can_be_waited_for_until_everything_committed_has_come(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    assert seen.mirror.catch_up()
    kernel.rule("t", "base", ends(DROP))
    last = kernel.commit()
    assert seen.mirror.committed == last != seen.mirror.generation
    assert seen.mirror.catch_up() and seen.mirror.waiting == 1
    kernel.deaf = True
    kernel.rule("t", "base", ends(ACCEPT))
    kernel.commit()
    begun = kernel.clock.seconds
    assert not seen.mirror.catch_up(2)
    assert kernel.clock.seconds >= begun + 2
    kernel.deaf = False
    kernel.clock.at(0.1, lambda: None)
    assert seen.mirror.catch_up(2)
    assert len(seen.follow()) == 2
    seen.check()


# --- losses


def test_dropped_events_end_in_a_full_read_that_says_so(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.deaf = True
    kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit()
    kernel.lose()
    kernel.rule("t", "base", ends(ACCEPT))
    kernel.commit(silent=True)
    kernel.clock.sleep(2)
    kernel.deaf = False
    first, lost = seen.follow()
    assert first.changes is not None
    assert lost.changes is None and lost.lost and "dropped events" in lost.reason
    assert lost.noticed == kernel.clock.now()
    assert seen.fate() == "dropped"
    kernel.flush("t", "base").commit()
    [again] = seen.follow()
    assert again.changes is not None and not again.lost
    seen.check()


def test_a_kernel_that_drops_time_and_again_is_read_once(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    for _ in range(5):
        kernel.lose()
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()
    # what the kernel had queued before it began to drop is followed; then everything is read, once
    assert [each.lost for each in seen.follow()] == [*[False] * 5, True]
    seen.check()


def test_a_storm_is_dropped_beyond_a_bound_and_read_afterwards(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "MOST_WAITING", 4000)
    kernel = small()
    seen = watching(kernel, EVERYTHING)
    for number in range(200):
        kernel.rule("t", "base", source(bytes([10, 3, 0, number])), ends(DROP))
        kernel.commit()
    found = seen.follow()
    assert found[-1].lost and "were waiting" in found[-1].reason
    assert 0 < len(found) < 20
    assert all(each.changes is not None for each in found[:-1])
    kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit()
    assert [each.lost for each in seen.follow()] == [False]
    seen.check()


def test_messages_about_foreign_chains_fill_no_queue(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_WAITING", 4000)
    kernel = small()
    seen = watching(kernel, collapse=True)
    for number in range(200):
        kernel.rule("t", "other", source(bytes([10, 3, 0, number])), ends(DROP))
        kernel.commit()
    assert not seen.follow()
    kernel.rule("t", "base", ends(DROP))
    kernel.commit()
    assert [each.lost for each in seen.follow()] == [False]
    seen.check()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:20] + b"\xff\xff" + data[22:], "does not fit"),
        (lambda data: b"\x05\0\0\0" + data[4:], "does not fit"),
        (lambda data: data[:16], ""),
        (lambda data: b"", ""),
    ],
)
def test_a_damaged_message_is_followed_by_a_full_read(
    watching: Watching, damage: Callable[[bytes], bytes], reason: str
) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit()
    kernel.events[0] = damage(bytes(kernel.events[0]))  # type: ignore[arg-type]
    found = seen.follow()
    if reason:
        assert [each.changes for each in found] == [None]
        assert reason in found[0].reason
        assert not found[0].lost  # it was this one commit
        seen.check()
    else:  # an empty message says nothing, and nobody can know that it was to say something
        assert seen.mirror.generation == kernel.generation
    kernel.rule("t", "base", ends(ACCEPT))
    kernel.commit(silent=True)
    kernel.rule("t", "base", ends(DROP))
    kernel.commit()
    [missed] = seen.follow()
    assert missed.changes is None and missed.lost and missed.reason.startswith("1 commit unseen: ")
    assert "1 generations are missing" in missed.reason
    seen.check()


def test_numbers_wrap(watching: Watching) -> None:
    kernel = small()
    kernel.generation = 0xFFFFFFFE
    seen = watching(kernel)
    for _ in range(4):
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()
    found = seen.follow()
    assert [each.generation for each in found] == [0xFFFFFFFF, 1, 2, 3]
    assert all(each.changes is not None for each in found)
    seen.check()


# --- reading while others write


def test_commits_during_a_read_make_it_begin_again(watching: Watching) -> None:
    kernel = small()

    def write() -> None:
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()

    kernel.meanwhile[wire.GETRULE] = [write, write]
    seen = watching(kernel)
    assert kernel.asked.count(wire.GETRULE) >= 3
    assert not seen.follow()  # what the read has met is no news
    assert seen.fate() == "dropped"
    seen.check()


def test_commits_of_strangers_do_not_disturb_a_read(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)

    def write() -> None:
        kernel.rule("t", "other", ends(DROP))
        kernel.commit()

    kernel.asked.clear()
    kernel.meanwhile[wire.GETSET] = [write] * 8
    kernel.lose()
    [lost] = seen.follow()
    assert lost.lost
    # with the strangers known, the second try takes their commits in its stride
    assert kernel.asked.count(wire.GETTABLE) <= 2 * 3
    seen.follow()
    kernel.meanwhile.clear()
    seen.check()


@pytest.mark.slow
def test_rules_that_cannot_be_read_are_unknown_until_they_can(watching: Watching) -> None:
    kernel = small()
    restless = True

    def write() -> None:
        kernel.rule("t", "base", source(bytes([10, 4, 0, 1])), ends(DROP))
        kernel.commit()
        if restless:
            kernel.meanwhile[wire.GETCHAIN].append(write)

    kernel.meanwhile[wire.GETCHAIN] = [write]
    begun = kernel.clock.seconds
    seen = watching(kernel)
    assert kernel.clock.seconds > begun + dump.PATIENCE_S
    assert [table.name for table in seen.mirror.current.tables] == ["rules that could not be read"] * 3
    assert seen.fate() == "unknown"
    reads = []
    for _ in range(7):  # each try is given up sooner, and the pauses between them grow
        since = kernel.clock.seconds
        assert seen.mirror.next(30) is None
        reads.append(kernel.clock.seconds - since)
    assert all(each >= 30 for each in reads)
    restless = False
    update = seen.mirror.next(60)
    assert update is not None and update.lost and update.changes is None
    assert "could not be read before" in update.reason
    assert update.noticed < update.t
    seen.check()
    kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit()
    assert [each.lost for each in seen.follow()] == [False]
    assert seen.fate() == "dropped"


def test_pauses_between_tries_grow_to_eight_seconds_and_begin_anew(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    tries: list[float] = []

    def restless(*_: object, **__: object) -> State:
        tries.append(kernel.clock.seconds)
        raise dump.UnstableRulesError("read", "the rules", reason="they changed all the time")

    read = dump.read_state
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dump, "read_state", restless)
        kernel.lose()
        update = seen.mirror.next(0)
        assert update is not None and update.lost and "they changed all the time" in update.reason
        assert "rules that could not be read" in str(update.ruleset.tables[0].name)
        seen.mirror.next(60)
        assert [round(b - a, 3) for a, b in pairwise(tries)][:6] == [0.5, 1, 2, 4, 8, 8]
    assert dump.read_state is read
    found = seen.mirror.next(60)
    assert found is not None and found.lost
    tries.clear()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dump, "read_state", restless)
        kernel.lose()
        assert seen.mirror.next(0) is not None
        kernel.rule("t", "base", ends(DROP))
        kernel.commit()  # the next read shows what it did
        seen.mirror.next(1)
        assert [round(b - a, 3) for a, b in pairwise(tries)] == [0.5]
    assert seen.mirror.next(60) is not None
    seen.check()


def test_commits_during_a_full_read_are_reported_as_unseen(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)

    def write() -> None:
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()
        kernel.flush("t", "base").commit()

    kernel.rename_chain("t", "other", "another")
    kernel.commit()
    kernel.meanwhile[wire.GETTABLE] = [write]
    update = seen.mirror.next(0)
    assert update is not None and update.changes is None and update.lost
    assert update.reason.startswith("2 commits unseen: ")
    assert not seen.follow()
    seen.check()


def test_a_read_that_the_kernel_refuses_is_an_error_and_leaves_nothing_open(watching: Watching) -> None:
    kernel = small()
    sockets = WireSockets(kernel)
    for number, error, raised in (
        (wire.GETGEN, KernelError("read", "x", errno.EINVAL), MissingError),
        (wire.GETGEN, MissingError("no permission", remedy="be root"), MissingError),
        (wire.GETTABLE, KernelError("read", "the tables", errno.EPERM), KernelError),
        (wire.GETTABLE, ZeroDivisionError(), Defect),
    ):
        kernel.refused[number] = [error]
        with pytest.raises(raised):
            Mirror(clock=kernel.clock, sockets=sockets)
    sockets.refuses = KernelError("subscribe to", "the changes of the rules", errno.EPERM)
    with pytest.raises(KernelError, match="subscribe"):
        Mirror(clock=kernel.clock, sockets=sockets)
    assert not any(control.open for control in sockets.controls)
    assert not any(receiver.events.open for receiver in sockets.receivers)
    seen = watching(kernel)
    kernel.refused[wire.GETRULE] = [KernelError("read", "the rules", errno.EPERM)]
    kernel.lose()
    with pytest.raises(KernelError, match="the rules"):
        seen.mirror.next(0)
    assert seen.fate() == "unknown"  # the events that were lost may have changed anything
    [again] = seen.follow()
    assert again.changes is None and again.lost
    seen.check()


@pytest.mark.slow
def test_two_states_are_never_in_memory_at_once(watching: Watching) -> None:
    kernel = small()
    kernel.table("only here").chain("only here", "base", "forward")
    kernel.rule("only here", "base", source(POD), ends(ACCEPT))
    kernel.commit()
    kept: list[int] = []

    def count() -> None:
        kept.append(sum(isinstance(each, TableState) and each.name == "only here" for each in gc.get_objects()))

    def write() -> None:
        kernel.rule("t", "base", source(POD), ends(DROP))
        kernel.commit()

    kernel.meanwhile = {wire.GETTABLE: [count] * 30, wire.GETRULE: [write, write]}
    seen = watching(kernel)
    disturbed = len(kept)
    kernel.lose()
    assert [update.lost for update in seen.follow()] == [True]
    assert disturbed > 3 and len(kept) > disturbed  # the first read began again, and the second one came
    assert max(kept) == 1


def test_a_receiver_that_failed_is_what_next_raises(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.events.append(KernelError("receive from", "netlink socket", errno.EBADF))
    with pytest.raises(KernelError, match="netlink socket"):
        seen.mirror.next(0)
    other = watching(small())
    other.kernel.events.append(ZeroDivisionError())
    with pytest.raises(Defect, match="receives the changes"):
        other.mirror.next(5)
    with seen.mirror:
        pass
    seen.mirror.close()  # twice is harmless
    assert not seen.sockets.controls[0].open


# --- what becomes of interest


def test_a_chain_and_a_set_become_of_interest_and_are_read_then(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    table = seen.mirror.state.tables[IP, "t"]
    assert not table.chains["other"].kept and not table.sets["block"].kept
    kernel.rule("t", "base", looks_up("block"), ends(JUMP, "other"))
    kernel.commit()
    [update] = seen.follow()
    assert update.changes is not None and update.changes[0].added == 1
    assert seen.fate() == "dropped"
    assert seen.mirror.sets_used("ip", "t", "base") == {"block"}
    assert seen.mirror.sets_used("ip", "nowhere", "base") == frozenset()
    seen.check()
    kernel.delete_element("t", "block", POD).commit()
    assert len(seen.follow()) == 1
    assert seen.fate() == "passes"
    seen.check()


def test_a_map_of_verdicts_leads_on(watching: Watching) -> None:
    kernel = small()
    kernel.chain("t", "deep").chain("t", "deeper").set("t", "ways", wire.SET_MAP)
    kernel.rule("t", "deeper", ends(DROP))
    kernel.rule("t", "deep", ends(JUMP, "deeper"))
    kernel.element("t", "ways", POD, "deep").commit()
    kernel.events.clear()
    seen = watching(kernel)
    kernel.rule("t", "base", looks_up("ways", gives_verdict=True))
    kernel.commit()
    assert len(seen.follow()) == 1
    assert seen.fate() == "dropped"
    seen.check()


def test_a_set_that_grows_while_it_is_read_is_read_again(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    grown = iter(range(1, 200))
    growing = True

    def grow() -> None:
        kernel.element("t", "block", bytes([10, 5, 0, next(grown)])).commit()
        kernel.torn = 1
        if growing:
            kernel.meanwhile[wire.GETSETELEM].append(grow)

    kernel.meanwhile[wire.GETSETELEM] = [grow]
    kernel.rule("t", "base", looks_up("block"), ends(DROP))
    kernel.commit()
    asked = kernel.asked.count(wire.GETSETELEM)
    update = seen.mirror.next(0)
    assert update is not None and update.changes is not None
    assert kernel.asked.count(wire.GETSETELEM) - asked == fetching._FETCHES
    assert seen.fate() == "unknown" and not seen.mirror.state.tables[IP, "t"].sets["block"].kept
    fetcher = seen.mirror._fetcher
    assert (fetcher.waiting, fetcher.due) == (True, False)
    growing = False
    kernel.meanwhile.clear()
    begun = kernel.clock.seconds
    changed: list[Update] = []
    while fetcher.waiting:
        update = seen.mirror.next(5)
        assert update is not None
        changed.append(update)
    assert changed[-1].changes == () and kernel.clock.seconds <= begun + 1
    assert seen.fate() == "dropped"
    seen.follow()
    seen.check()


def test_what_was_read_ahead_of_the_state_waits_for_its_commit(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.rule("t", "base", looks_up("block"), ends(DROP))  # makes the set one of interest
    kernel.commit()
    kernel.delete_element("t", "block", POD).commit()  # what is read then has this already
    kernel.rule("t", "other", ends(ACCEPT))
    kernel.commit()
    first = seen.mirror.next(0)
    assert first is not None
    assert seen.fate() == "unknown"  # nothing is known of the set at that generation
    assert not seen.mirror.state.tables[IP, "t"].sets["block"].kept
    seen.follow()
    assert seen.mirror.state.tables[IP, "t"].sets["block"].kept
    seen.check()


def test_what_comes_in_with_a_commit_that_touches_nothing_else_is_an_update(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.rule("t", "base", ends(JUMP, "other"))
    kernel.commit()
    kernel.commit()  # of tables of a family that is not kept: nobody can know that the chain was not in it
    first, second = seen.follow()
    assert first.changes and fate(first.ruleset) == "unknown"
    assert second.changes == () and fate(second.ruleset) == "dropped" == seen.fate()
    seen.check()


def test_what_was_read_ahead_of_commits_that_are_collapsed_does_not_wait_for_another_one(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel, collapse=True)
    kernel.rule("t", "base", ends(JUMP, "other"))
    kernel.commit()
    kernel.chain("t", "more").commit()
    kernel.rule("t", "other", source(bytes([10, 8, 0, 1])), ends(DROP))
    kernel.commit()  # of nothing that is kept when it comes: it would be told with the next commit, if there is one
    begun = kernel.clock.seconds
    found = [update for _ in range(4) if (update := seen.mirror.next(5)) is not None]
    assert found[-1].changes == () and fate(found[-1].ruleset) == "dropped" == seen.fate()
    assert len(seen.mirror.state.tables[IP, "t"].chains["other"].rules) == 2
    assert kernel.clock.seconds < begun + 16
    kernel.rule("t", "other", source(bytes([10, 8, 0, 2])), ends(DROP))
    kernel.commit()
    assert [each.lost for each in seen.follow()] == [False]
    seen.check()


def test_what_went_away_before_it_was_read_is_no_trouble(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    handle = kernel.rule("t", "base", looks_up("block"), ends(JUMP, "other"))
    kernel.commit()
    kernel.delete_rule("t", "base", handle).commit()
    kernel.delete_set("t", "block").delete_chain("t", "other").commit()
    assert len(seen.follow()) == 3
    seen.check()
    kernel.chain("t", "other").set("t", "block").commit()
    kernel.rule("t", "base", looks_up("block"), ends(DROP))
    kernel.commit()
    kernel.delete_table("t").commit()
    kernel.table("t").chain("t", "base", "forward", policy=0).commit()
    seen.follow()
    assert seen.fate() == "dropped"
    seen.check()


def test_a_table_that_sleeps_has_no_chain_at_a_hook(watching: Watching) -> None:
    kernel = small()
    kernel.rule("t", "base", ends(DROP))
    kernel.commit()
    kernel.events.clear()
    seen = watching(kernel)
    assert seen.fate() == "dropped"
    kernel.table("t", dormant=True).commit()
    seen.follow()
    [table] = seen.mirror.current.tables
    assert not table.hooks() and not table.base_chains()
    assert seen.fate() == "passes"
    seen.check()


def test_a_set_that_is_too_large_is_refused_and_an_event_does_not_bring_it_back(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = small()
    seen = watching(kernel)
    monkeypatch.setattr(fetching, "_MOST_KEPT", 1)
    kernel.rule("t", "base", looks_up("block"), ends(DROP))
    kernel.commit()
    assert len(seen.follow()) == 1
    block = seen.mirror.state.tables[IP, "t"].sets["block"]
    assert block.too_large and not block.kept
    kernel.element("t", "block", bytes([10, 6, 0, 1])).commit()
    seen.follow()
    assert not seen.mirror.state.tables[IP, "t"].sets["block"].kept
    assert seen.fate() == "unknown"
    monkeypatch.setattr(dump, "_MOST_LISTED", 1)
    kernel.set("t", "second").element("t", "second", POD).commit()
    kernel.rule("t", "base", looks_up("second"), ends(DROP))
    kernel.commit()
    seen.follow()
    # it came before the rule that asks it: nothing of it was kept, and reading it is too much
    assert not seen.mirror.state.tables[IP, "t"].sets["second"].kept
    assert seen.mirror.state.tables[IP, "t"].sets["second"].too_large


# --- comparing


def test_a_difference_from_the_kernel_is_found_by_comparing(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    chains = {("ip", "t", "base"), ("ip", "t", "nowhere"), ("ip", "u", "base"), ("bridge", "t", "base")}
    assert seen.mirror.verify(chains) is None
    kernel.rule("t", "base", source(POD), ends(DROP))
    kernel.commit()
    assert seen.mirror.verify(chains) is None  # it changes just now: nothing can be compared
    seen.follow()
    kernel.tables["t"].rules["base"].popitem()  # what no event told of
    update = seen.mirror.verify(chains)
    assert update is not None and update.changes is None and not update.lost
    assert update.reason == "the rules differ from the kernel's: chain base of table t"
    assert seen.mirror.verify(chains) is None
    seen.check()
    del kernel.tables["t"].chains["base"]
    update = seen.mirror.verify(chains)
    assert update is not None and "chain base" in update.reason
    seen.check()


def test_a_long_chain_is_compared_by_its_handles_alone(watching: Watching) -> None:
    kernel = small()
    for number in range(80):
        kernel.rule("t", "base", source(bytes([10, 7, 0, number])), ends(DROP))
    kernel.commit()
    kernel.events.clear()
    seen = watching(kernel)
    assert seen.mirror.verify({("ip", "t", "base")}) is None
    assert seen.mirror.state.tables[IP, "t"].chains["base"]._decode_cache is None
    kernel.tables["t"].rules["base"].popitem()
    assert seen.mirror.verify({("ip", "t", "base")}) is not None


def test_a_message_of_another_kind_is_passed_over(watching: Watching) -> None:
    kernel = small()
    seen = watching(kernel)
    kernel.events.append(netlink.message(kind(99), 0, 0, netlink.nfgenmsg(IP)))
    kernel.rule("t", "base", ends(DROP))
    kernel.commit()
    assert [each.changes is not None for each in seen.follow()] == [True]
    seen.check()


# --- everything at once


ANYTHING = (
    *("rule", "rule", "gone", "lead", "lead", "element", "element", "chain", "foreign", "foreign", "silent", "lose"),
    *("damage", "deaf", "hear", "wait", "next", "next", "during", "torn", "rename", "sleep"),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ANYTHING),
        st.integers(0, 250),
    ),
    min_size=20,
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=CASES, deadline=None, derandomize=CASES == 25, phases=(Phase.explicit, Phase.generate))
@given(STEPS, st.booleans())
def test_whatever_happens_it_finds_back_and_never_says_what_is_not_so(
    steps: list[tuple[str, int]], collapse: bool
) -> None:
    """After any history, left alone, it has what a full read has; and before, each update that lost nothing was a state
    that the kernel had at that generation."""
    kernel = small()
    fates = {kernel.generation: "passes"}

    def commit(*, silent: bool = False) -> None:
        kernel.commit(silent=silent)
        fates[kernel.generation] = truth(kernel)

    sockets = WireSockets(kernel)
    with Mirror(interest=FORWARD, clock=kernel.clock, collapse=collapse, sockets=sockets) as mirror:
        seen = Watched(kernel, mirror, sockets)
        for what, number in steps:
            disturb(kernel, what, number, commit)
            if what in ("next", "wait"):
                update = mirror.next(number / 100 if what == "wait" else 0)
                if update is not None:
                    assert fate(update.ruleset) in ("unknown", fates[update.generation])
        kernel.deaf, kernel.torn = False, 0
        kernel.meanwhile.clear()
        for last in (False, True):
            if last:
                kernel.chain("t", "last")
            commit()  # by this one it knows of any that it was not told of
            for _ in range(4):
                mirror.next(20)
                seen.follow()
            if last or not collapse or not any(what == "silent" for what, _ in steps):
                seen.check(collapsed=collapse and not last)  # (what nobody announced is noticed by the next commit)
        assert seen.fate() == fates[kernel.generation]


def disturb(kernel: WireKernel, what: str, number: int, commit: Callable[..., None]) -> None:
    """One thing that others, or the machine, do."""
    table, rules = kernel.tables["t"], kernel.tables["t"].rules
    address = POD if number % 3 == 0 else bytes([10, 0, 0, number])
    if what == "rule":
        kernel.rule("t", "base", source(address), ends(DROP))
    elif what == "gone" and rules["base"]:
        kernel.delete_rule("t", "base", sorted(rules["base"])[number % len(rules["base"])])
    elif what == "lead":
        kernel.rule("t", "base", *([looks_up("block")] if number % 2 else []), ends(JUMP, "other"))
    elif what == "element" and address in table.elements["block"]:
        kernel.delete_element("t", "block", address)
    elif what == "element":
        kernel.element("t", "block", address)
    elif what == "foreign":
        kernel.rule("t", "other", source(address), ends(DROP))
    elif what == "chain":
        kernel.chain("t", f"c{number}") if f"c{number}" not in table.chains else kernel.delete_chain("t", f"c{number}")
    elif what == "rename":
        name = next((each for each in table.chains if each.startswith("c")), "")
        if name and f"c{number}" not in table.chains:
            kernel.rename_chain("t", name, f"c{number}")
    elif what == "lose":
        kernel.lose()
    elif what == "damage" and kernel.events and isinstance(first := kernel.events[0], bytes):
        kernel.events[0] = b"\x05\0\0\0" + first[4:]
    elif what in ("deaf", "hear"):
        kernel.deaf = what == "deaf"
    elif what == "torn":
        kernel.torn = number % 5
    elif what == "sleep":
        kernel.clock.sleep(number / 50)
    elif what == "during":
        kind = (wire.GETTABLE, wire.GETCHAIN, wire.GETRULE, wire.GETSETELEM)[number % 4]

        def meanwhile() -> None:
            kernel.rule("t", "base" if number % 3 else "other", source(address), ends(DROP))
            commit()

        kernel.meanwhile.setdefault(kind, []).append(meanwhile)
    if kernel._open:
        commit(silent=what == "silent")
    elif what == "silent":
        kernel.rule("t", "base", source(address), ends(DROP))
        commit(silent=True)


def truth(kernel: WireKernel) -> str:
    """What becomes of the pod's packet by the kernel's rules."""
    control = WireControl(kernel)
    meanwhile, kernel.meanwhile = kernel.meanwhile, {}
    torn, kernel.torn = kernel.torn, 0
    found = dump.read_state(control, (IP,), clock=kernel.clock)  # type: ignore[arg-type]
    kernel.meanwhile, kernel.torn = meanwhile, torn
    return fate(found.ruleset())
