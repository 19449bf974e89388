"""The watch's loop in virtual time: what comes out of commits, losses, heartbeats, comparisons and the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest
from tests.unit.guard.flannels import NETWORK, nat

from hitless.errors import InputError
from hitless.guard import primaries
from hitless.guard.standby_rules import learn
from hitless.kernel.clock import Clock
from hitless.model import events as e
from hitless.model.families import Backend, Family
from hitless.model.headers import PacketHeader
from hitless.model.rules import Ruleset
from hitless.model.standby import TABLE, copied
from hitless.observe import Asking, NodeView, Witnesses, find
from hitless.semantics import ChainName
from hitless.watch import Watch, WatchOptions, load
from hitless.watch.feeds import ChangedTable, Step
from hitless.watch.ports import StandbyFacts, World

V4 = Family.IPV4
WHOLE, EMPTIED = nat(), nat(chain=())
FLANNELD = e.Writer(7, "flanneld")
CHANGE = ChangedTable(
    "ip", "nat", Backend.NFT, 0, 6, frozenset({"FLANNEL-POSTRTG"}), frozenset(), frozenset(), "-6 rules"
)  # fmt: skip
NOISE = ChangedTable("ip", "nat", Backend.NFT, 1, 0, frozenset({"NOISE"}), frozenset(), frozenset(), "NOISE: +1 rule")


@dataclass
class Rules:
    """Rules that change when the test says so, and all of time."""

    current: Ruleset = WHOLE
    generation: int = 1
    seconds: float = 0.0
    legacy: bool = False
    backlog: int = 0
    behind: bool = False
    closed: int = 0
    lag: int = 0
    follow: frozenset[ChainName] = frozenset()
    towards: Callable[[], Iterable[PacketHeader]] = tuple
    refreshed: bool = False
    script: deque[tuple[float, Callable[[], Step | None]]] = field(default_factory=deque)
    verified: deque[Step | None] = field(default_factory=deque)
    found_legacy: deque[Step | None] = field(default_factory=deque)

    # --- time

    def now(self) -> int:
        return 10**18 + round(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def worked(self) -> float:
        return self.seconds / 1000

    # --- the feed

    @property
    def surroundings(self) -> Rules:
        return self

    def refresh(self) -> bool:
        again, self.refreshed = self.refreshed, False
        return again

    def next(self, timeout: float | None = None) -> Step | None:
        until = self.seconds + (timeout or 0.0)
        if self.script and self.script[0][0] <= until:
            at, action = self.script.popleft()
            self.seconds = max(self.seconds, at)
            return action()
        self.seconds = max(self.seconds + 0.001, until)
        return None

    def commit(self, at: float, rules: Ruleset, *changes: ChangedTable, lost: bool = False, reason: str = "") -> None:
        def step() -> Step:
            self.current, self.generation = rules, self.generation + 1
            told = None if reason else (changes or (CHANGE,))
            return Step(self.now(), rules, self.generation, FLANNELD, told, lost, reason, self.now())

        self.script.append((at, step))

    def find_legacy(self) -> Step | None:
        return self.found_legacy.popleft() if self.found_legacy else None

    def verify(self, chains: Iterable[ChainName]) -> Step | None:
        return self.verified.popleft() if self.verified else None

    def sets_used(self, chain: ChainName) -> frozenset[str]:
        return frozenset({"pods"})

    def take_lag(self) -> int:
        lag, self.lag = self.lag, 0
        return lag

    def finish(self) -> None:
        """Nothing to do."""

    def wake(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        self.closed += 1

    # --- the node

    view = NodeView()

    def look(self, now: float) -> bool:
        return True

    def facts(self, families: Collection[Family]) -> Mapping[Family, StandbyFacts]:
        return dict.fromkeys(families, StandbyFacts())

    def witnesses(self, asking: Asking) -> Witnesses:
        return find(replace(asking, uplink="eth0"), NodeView(), lambda *_: "")


def watch(rules: Rules, **more: object) -> Watch:
    clock = Clock(0)
    clock.now = rules.now  # type: ignore[method-assign]
    options = {"families": (V4,), "duration_s": 5.0, "urgent": False, **more}
    return Watch(WatchOptions(load("flannel"), **options), clock, world=World(rules, rules, rules, rules))  # type: ignore[arg-type]


def told(rules: Rules, **more: object) -> list[e.Event]:
    with watch(rules, **more) as watching:
        return list(watching.events())


def of(kind: type, events: list[e.Event]) -> list[e.Event]:
    return [one for one in events if isinstance(one, kind)]


def test_a_whole_stream_begins_with_a_header_and_the_state_and_ends_with_a_summary() -> None:
    rules = Rules()
    events = told(rules)
    assert isinstance(events[0], e.Header) and events[0].config["networks"] == ["10.42.0.0/16"]
    (state,) = of(e.RuleState, events)
    assert isinstance(state, e.RuleState) and (state.state, state.network) == ("carried", "10.42.0.0/16")
    assert len(of(e.Heartbeat, events)) in (4, 5)
    assert isinstance(events[-1], e.Summary) and events[-1].totals["gaps"] == 0
    assert rules.closed == 2, "feed and node"
    assert list(rules.towards())


def test_a_gap_has_its_authors_its_code_and_its_time() -> None:
    rules = Rules()
    rules.commit(1.0, EMPTIED)
    rules.commit(1.25, WHOLE)
    events = told(rules)
    (gap,) = of(e.Gap, events)
    assert isinstance(gap, e.Gap)
    assert (gap.end - gap.begin, gap.code, gap.opened_by, gap.closed_by) == (
        250_000_000, "untranslated", FLANNELD, FLANNELD,
    )  # fmt: skip
    assert [one.state for one in events if isinstance(one, e.RuleState)] == ["carried", "not_carried", "carried"]
    assert len(of(e.Change, events)) == 2


def test_a_gap_that_goes_on_at_the_end_is_open() -> None:
    rules = Rules()
    rules.commit(1.0, EMPTIED)
    (gap,) = of(e.Gap, told(rules))
    assert isinstance(gap, e.Gap) and gap.open and gap.end - gap.begin >= 4_000_000_000


@pytest.mark.parametrize(("everything", "count"), [(False, 0), (True, 1)])
def test_what_matters_to_no_packet_is_shown_only_on_request(everything: bool, count: int) -> None:
    rules = Rules()
    rules.commit(1.0, WHOLE, NOISE)
    events = told(rules, all_changes=everything)
    assert len(of(e.Change, events)) == count
    assert len(of(e.RuleState, events)) == 1


@pytest.mark.parametrize(
    "change",
    [
        ChangedTable("ip", "nat", Backend.NFT, 0, 0, frozenset(), frozenset({"pods"}), frozenset(), "set"),
        ChangedTable("ip", "x", Backend.NFT, 0, 0, frozenset(), frozenset(), frozenset({"forward"}), "hook"),
        ChangedTable("inet", "x", Backend.NFTABLES, 0, 0, frozenset(), frozenset(), frozenset({"forward"}), "hook"),
    ],
)
def test_a_set_that_is_asked_and_a_base_chain_on_the_way_matter(change: ChangedTable) -> None:
    rules = Rules()
    rules.commit(1.0, WHOLE, change)
    (one,) = of(e.Change, told(rules))
    assert isinstance(one, e.Change) and one.relevant


def test_lost_events_are_no_gap_and_are_counted() -> None:
    rules = Rules()
    rules.commit(1.0, WHOLE, lost=True, reason="the kernel dropped events")
    rules.commit(2.0, WHOLE, reason="it did not fit")
    events = told(rules)
    assert len(of(e.LostEvents, events)) == 1 and not of(e.Gap, events)
    notes = [one.text for one in events if isinstance(one, e.Note)]
    assert any("it did not fit" in text for text in notes)
    assert isinstance(events[-1], e.Summary) and (events[-1].totals["lost_events"], events[-1].totals["resyncs"]) == (
        1,
        1,
    )


def test_what_is_mirrored_is_compared_and_a_difference_is_said() -> None:
    rules = Rules()
    step = Step(rules.now(), EMPTIED, 2, None, None, False, "the rules differ from the kernel's")
    rules.verified.extend([None, step])
    events = told(rules, verify_s=1.0)
    assert any(isinstance(one, e.Note) and one.level == "warning" and "differ" in one.text for one in events)
    assert isinstance(events[-1], e.Summary) and events[-1].totals["verified"] >= 2


def test_legacy_tables_that_come_and_facts_of_the_node_that_change_are_judged() -> None:
    rules = Rules(refreshed=True)
    rules.found_legacy.append(Step(rules.now(), WHOLE, 1, reason="iptables-legacy has tables", noticed=rules.now()))
    events = told(rules, heartbeat_s=0)
    assert not of(e.Heartbeat, events)
    assert any(isinstance(one, e.Note) and "iptables-legacy" in one.text for one in events)


def test_no_pod_network_is_a_warning_and_one_that_comes_is_taken_up() -> None:
    rules = Rules(Ruleset())
    rules.commit(1.0, WHOLE)
    events = told(rules)
    texts = [one.text for one in events if isinstance(one, e.Note)]
    assert any("no pod network is known" in text for text in texts)
    assert any("pod network 10.42.0.0/16" in text for text in texts)
    assert [one.state for one in events if isinstance(one, e.RuleState)] == ["carried"]


def test_a_network_that_only_the_copies_of_a_guard_name_is_watched() -> None:
    standby = learn(WHOLE, V4, primaries.load("flannel"), uplink="eth0").ruleset()
    copies = ChangedTable(
        "ip", TABLE, Backend.NFT, 6, 0, frozenset({copied("nat", "FLANNEL-POSTRTG")[0]}), frozenset(), frozenset(), ""
    )
    rules = Rules(EMPTIED)
    rules.commit(1.0, Ruleset((*EMPTIED.tables, *standby.tables)), copies)
    states = [one for one in told(rules) if isinstance(one, e.RuleState)]
    assert [(one.network, one.state) for one in states] == [("10.42.0.0/16", "carried")]


def test_a_standby_that_carries_a_gap_is_told_as_bridged() -> None:
    standby = learn(WHOLE, V4, primaries.load("flannel"), uplink="eth0").ruleset()
    rules = Rules(Ruleset((*WHOLE.tables, *standby.tables)))
    rules.commit(1.0, Ruleset((*EMPTIED.tables, *standby.tables)))
    rules.commit(2.0, Ruleset((*WHOLE.tables, *standby.tables)))
    events = told(rules)
    assert not of(e.Gap, events)
    (one,) = of(e.Bridged, events)
    assert isinstance(one, e.Bridged) and (one.code, one.lasted_ns) == ("untranslated", 1_000_000_000)


def test_the_last_commits_belong_to_the_record_or_are_missed_aloud() -> None:
    rules = Rules(behind=True)
    rules.commit(5.5, EMPTIED)
    events = told(rules)
    assert len(of(e.Gap, events)) == 1
    assert any(isinstance(one, e.LostEvents) and "did not come" in one.detail for one in events)


def test_stop_ends_it_and_once_is_a_whole_stream() -> None:
    rules = Rules()
    with watch(rules, duration_s=None) as watching:
        seen = []
        for event in watching.events():
            seen.append(event)
            if isinstance(event, e.Heartbeat):
                watching.stop()
        assert isinstance(seen[-1], e.Summary)
    with watch(Rules(EMPTIED), networks=(NETWORK[V4],)) as watching:
        kinds = [type(event) for event in watching.once()]
        assert kinds[0] is e.Header and kinds[-1] is e.Summary and e.RuleState in kinds


def test_a_network_of_another_family_is_refused() -> None:
    with pytest.raises(InputError, match="not watched"):
        watch(Rules(), networks=(ip_network("fd42::/48"),))
