"""The one observer of the rules, in virtual time: when the answer to a question may have become another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.nftables.wire_kernel import WireKernel, WireSockets, ends, looks_up, source

from hitless.kernel import xtables
from hitless.kernel.nftables import wire
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.observe.rules import RulesObserver

POD = bytes([10, 42, 0, 5])


@pytest.fixture
def kernel() -> WireKernel:
    made = WireKernel()
    made.table("t").chain("t", "base", "forward").chain("t", "other").set("t", "block")
    made.rule("t", "other", ends(0))
    made.element("t", "block", POD).commit()
    made.events.clear()
    return made


@pytest.fixture
def observer(kernel: WireKernel) -> Iterator[RulesObserver]:
    made = RulesObserver(clock=kernel.clock, follow_legacy=False, sockets=WireSockets(kernel))
    with made:
        yield made


def test_only_what_a_packet_may_meet_makes_a_new_state(kernel: WireKernel, observer: RulesObserver) -> None:
    assert observer.next(0) is None and not observer.has_legacy
    kernel.rule("t", "other", source(POD), ends(0))
    kernel.commit()
    assert not observer.settle()
    kernel.rule("t", "base", source(POD), ends(0))
    kernel.commit(pid=2**22 + 1, comm="nobody")
    assert observer.settle() and not observer.settle()
    kernel.rule("t", "base", source(POD), ends(0))
    kernel.commit(pid=2**22 + 1, comm="nobody")
    seen = observer.next(5)
    assert seen is not None and seen.writer is not None and seen.writer.comm == "nobody" and not seen.lost
    assert len(seen.ruleset.tables[0].chains["base"].rules) == 2


def test_a_change_that_a_reading_took_in_is_still_reported(
    kernel: WireKernel, observer: RulesObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPv4 is evaluated, a rule of it is committed, IPv6 is read: else the result for IPv4 would stay as it is."""
    monkeypatch.setattr(xtables, "read_ruleset", lambda *_: Ruleset())
    assert not observer.settle()
    before = observer.now((Family.IPV4,))
    kernel.rule("t", "base", source(POD), ends(0))
    kernel.commit()
    observer.now((Family.IPV6,))
    assert observer.settle() and not observer.settle()
    assert observer.now((Family.IPV4,)) != before


def test_what_is_read_later_may_change_the_answer(kernel: WireKernel, observer: RulesObserver) -> None:
    def grow() -> None:
        kernel.element("t", "block", bytes([10, 9, 0, len(kernel.asked) % 250])).commit()
        kernel.torn = 1
        kernel.meanwhile[wire.GETSETELEM].append(grow)

    kernel.meanwhile[wire.GETSETELEM] = [grow]
    kernel.rule("t", "base", looks_up("block"), ends(0))
    kernel.commit()
    assert observer.settle()
    kernel.meanwhile.clear()
    observer.settle()
    kernel.clock.sleep(1)
    told = [observer.settle() for _ in range(3)]
    assert told == [True, False, False]


def test_without_events_in_time_the_answer_is_not_known(kernel: WireKernel, observer: RulesObserver) -> None:
    kernel.deaf = True
    kernel.rule("t", "base", ends(0))
    kernel.commit()
    assert observer.settle()  # it may be another one: what is committed is not known yet
    kernel.deaf = False
    assert observer.settle() and not observer.settle()
    kernel.lose()
    kernel.clock.at(1, lambda: None)
    seen = observer.next(5)
    assert seen is not None and seen.lost and not observer.waiting
    assert observer.first.lost
