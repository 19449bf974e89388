"""What a guard's standby carried is told apart from what the agent's own rules carry. Pure: no kernel is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest
from tests.unit.guard.flannels import NETWORK, nat

from hitless.errors import KernelError, MissingError
from hitless.guard import primaries
from hitless.guard.standby_rules import DESTINATIONS, learn
from hitless.kernel.namespaces import HERE
from hitless.kernel.nftables.owned import Count, Owner
from hitless.model.events import Bridged, Standby, Writer
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.observe import Asking, NodeView, find
from hitless.observe.judging import Judge
from hitless.watch import standbys
from hitless.watch.networks import Watched
from hitless.watch.ports import StandbyFacts
from hitless.watch.standbys import Standbys, StandbyTables
from hitless.watch.tracking import Tracker

WRITER = Writer(7, "iptables-nft")
MS = 1_000_000
WHOLE = nat()
EMPTIED = nat(chain=())


def standby() -> Ruleset:
    return learn(nat(), Family.IPV4, primaries.load("flannel")).ruleset()


def both(one: Ruleset) -> Ruleset:
    return Ruleset((*one.tables, *standby().tables))


class Story:
    """Rule sets, one after another, and what is told of them."""

    def __init__(self) -> None:
        network = NETWORK[Family.IPV4]
        witnesses = find(Asking(network, None, destinations=DESTINATIONS), NodeView(), lambda *_: "")
        self.watched = Watched(network, Judge(network, witnesses), Tracker(network))
        self.tables = Tables()
        self.standbys = Standbys((Family.IPV4,), self.tables)

    def see(self, t: int, ruleset: Ruleset) -> list[Bridged | Standby]:
        answer = self.watched.judge.answer(ruleset)
        told = list(self.standbys.seen(t, ruleset))
        return [*told, *self.standbys.judge(t, self.watched, answer, ruleset, WRITER)]


class Tables:
    """A guard's tables: where a guard holds one, and its flows."""

    def __init__(self) -> None:
        self.held: dict[Family, StandbyFacts] = {}

    def facts(self, families: Collection[Family]) -> Mapping[Family, StandbyFacts]:
        return {family: self.held.get(family, StandbyFacts()) for family in families}


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_gap_of_the_agent_that_the_standby_carries_is_bridged_with_its_authors(story: Story) -> None:
    assert story.see(0, both(WHOLE)) == [Standby(t=0, family="ipv4")]
    assert story.see(10 * MS, both(EMPTIED)) == []
    (told,) = story.see(60 * MS, both(WHOLE))
    assert isinstance(told, Bridged)
    assert (told.begin, told.end, told.opened_by, told.closed_by) == (10 * MS, 60 * MS, WRITER, WRITER)
    assert "FLANNEL-POSTRTG" in told.reason
    assert list(story.standbys.finish(70 * MS)) == [Standby(t=70 * MS, family="ipv4")]


def test_the_guard_that_holds_a_standby_is_reported_with_its_flows(story: Story) -> None:
    story.tables.held[Family.IPV4] = StandbyFacts(guard=True, flows=3)
    assert story.see(0, both(WHOLE)) == [Standby(t=0, family="ipv4", guard=True, flows=3)]
    story.tables.held[Family.IPV4] = StandbyFacts(guard=True, flows=5)
    assert list(story.standbys.finish(MS)) == [Standby(t=MS, family="ipv4", guard=True, flows=5)]


class Owned:
    """``OwnedTables`` of two families, of which one is deleted while it is read."""

    def __init__(self, *_: object, **__: object) -> None:
        self.closed = False
        opened.append(self)

    def owner(self, family: Family) -> Owner | None:
        if family is Family.IPV6:
            raise KernelError("read", "table ip6 hitless", 2)
        return Owner(0, 4711)

    def counters(self, family: Family) -> Mapping[str, Count]:
        return {"carried": Count(7, 420)}

    def close(self) -> None:
        self.closed = True


opened: list[Owned] = []


def test_a_table_that_cannot_be_read_says_nothing_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    opened.clear()
    monkeypatch.setattr(standbys, "OwnedTables", Owned)
    found = StandbyTables(HERE).facts(tuple(Family))
    assert found == {Family.IPV4: StandbyFacts(guard=True, flows=7), Family.IPV6: StandbyFacts()}
    assert [one.closed for one in opened] == [True]


def test_without_permission_nothing_is_known_of_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise MissingError("may not be read", remedy="none")

    monkeypatch.setattr(standbys, "OwnedTables", refused)
    assert StandbyTables(HERE).facts((Family.IPV4,)) == {Family.IPV4: StandbyFacts()}


def test_what_is_bridged_when_watching_ends_is_told_as_open(story: Story) -> None:
    story.see(0, both(EMPTIED))
    (told, last) = story.standbys.finish(5 * MS)
    assert isinstance(told, Bridged)
    assert (told.begin, told.end, told.open) == (0, 5 * MS, True)
    assert last == Standby(t=5 * MS, family="ipv4")


def test_a_standby_that_goes_ends_what_it_bridged_and_the_rest_is_a_gap(story: Story) -> None:
    story.see(0, both(EMPTIED))
    told = story.see(5 * MS, EMPTIED)
    assert [type(one) for one in told] == [Standby, Bridged]
    assert told[0] == Standby(t=5 * MS, family="ipv4", present=False)
    assert story.watched.judge.answer(EMPTIED).state == "not_carried"


def test_without_a_standby_nothing_is_told(story: Story) -> None:
    assert [*story.see(0, WHOLE), *story.see(1, EMPTIED), *story.see(2, WHOLE), *story.standbys.finish(3)] == []
