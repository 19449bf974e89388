"""Random histories of a watch: rules, standbys, pods change, events are late, lost or missing, watches end and begin.

What the watch yields is compared with what an evaluation of its rules, made anew after each turn, comes to:

- the state of each network is the one of the rules that the watch knows, since the commit that made it so, with its
  writer; a comparison with the kernel finds rules that changed without an event;
- each time in which a network was not carried is one gap, from commit to commit, with both writers; one that goes on at
  the end is reported as open; so are the times that a guard's standby carried alone;
- lost events are reported once each, and are no gap;
- what changes an answer is reported as relevant, and what is counted in the summary is what was yielded;
- heartbeats come each second while the watch runs, own up to its lateness, and know how many pods are carried;
- pods, legacy tables and standbys that come or go are known by the next heartbeat;
- a stream that is stopped has the last commits, or says that they did not come, and ends with its summary.

``defects`` plants mistakes in the watch, each of which these find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.unit.guard.flannels import JUMP, NETWORK, OTHER, flannel_rules, nat
from tests.unit.histories import Action, Kind
from tests.unit.watch.virtual import Key, Node

from hitless.guard import primaries
from hitless.guard.standby_rules import learn
from hitless.kernel.clock import Clock
from hitless.model import events as e
from hitless.model.families import Family, Network, family_of
from hitless.model.rules import Chain, Drop, Hook, Masquerade, Return, Rule, Ruleset, Source, Table
from hitless.model.standby import TABLE, standby_chains, without_guard
from hitless.observe import Judge, Poll, Witnesses
from hitless.watch import Watch, WatchOptions, load
from hitless.watch.networks import pod_networks
from hitless.watch.ports import World as Ports

PROFILE = load("flannel")
BEAT = 1.0
_MOST_TURNS = 50
_WRITERS = {"flanneld": e.Writer(7, "flanneld"), "firewalld": e.Writer(8, "firewalld"), "unknown": None}
_FIRST_POD = {family: NETWORK[family][10] for family in Family}


def _one_pod_is_dropped(family: Family) -> tuple[Table, ...]:
    address = _FIRST_POD[family]
    pod = Source(type(NETWORK[family])(f"{address}/{address.max_prefixlen}"))
    rules = (Rule((pod, Drop())),)
    return (Table(family.nft, "filter", {"FORWARD": Chain("FORWARD", rules, Hook("filter", "forward", 0))}),)


def _nat(family: Family) -> tuple[Table | None, ...]:
    rules = flannel_rules(family)
    return (
        *nat(family).tables,
        *nat(family, chain=()).tables,
        *nat(family, jump=False).tables,
        *nat(family, chain=rules[:3]).tables,
        *nat(family, chain=rules[:5]).tables,
        *nat(family, front=(Rule((Source(OTHER[family]), Masquerade())),)).tables,
        *nat(family, front=(Rule((Return(),)),)).tables,
        None,
    )


def _filter(family: Family) -> tuple[Table | None, ...]:
    forward = Hook("filter", "forward", 0)
    return (
        None,
        Table(family.nft, "filter", {"FORWARD": Chain("FORWARD", (Rule((Drop(),)),), forward)}),
        *_one_pod_is_dropped(family),
        Table(family.nft, "filter", {"FORWARD": Chain("FORWARD", (), Hook("filter", "forward", 0, "drop"))}),
        Table(family.nft, "filter", {"FORWARD": Chain("FORWARD", (), forward)}),
        Table(family.nft, "filter", {"MINE": Chain("MINE", (JUMP,))}),
    )


NAT = {family: _nat(family) for family in Family}
FILTER = {family: _filter(family) for family in Family}
_FORWARD = Hook("filter", "forward", 0)
LEGACY = {
    family: tuple(
        None if rules is None else Table(family.nft, "filter", {"FORWARD": Chain("FORWARD", rules, _FORWARD)}, True)
        for rules in (None, (), (Rule((Drop(),)),))
    )
    for family in Family
}  # fmt: skip
STANDBY = {
    family: (None, *learn(nat(family), family, primaries.load("flannel"), uplink="eth0").ruleset().tables)
    for family in Family
}
NOISE = {
    (family, number): tuple(
        Table(family.nft, f"noise{number}", {"C": Chain("C", (JUMP,) * rules)}) if rules else None for rules in range(2)
    )
    for family in Family
    for number in range(1)
}
_answers: dict[tuple[tuple[int, ...], Witnesses, bool], Poll] = {}


def _key(family: Family, name: str, *, legacy: bool = False) -> Key:
    return family.nft, name, legacy


def _answer(tables: Iterable[Table], network: Network, witnesses: Witnesses, *, whole: bool) -> Poll:
    """What these rules come to. All tables are constants, so that their identities are their values."""
    mine = tuple(one for one in tables if one.family == family_of(network).nft and not one.name.startswith("noise"))
    key = tuple(map(id, mine)), witnesses, whole
    if key not in _answers:
        translators = [(table.name, chain) for table in PROFILE.tables for chain in table.networks_from]
        judge = Judge(network, witnesses, translators)
        _answers[key] = judge.count(Ruleset(mine)) if whole else judge.answer(Ruleset(mine))
    return _answers[key]


@dataclass
class _Expected:
    """What is known of a network. ``gap``: the one that is open, with its writer; ``bridged``: the moments at which a
    standby may have begun to carry it alone."""

    state: str = ""
    gap: tuple[int, e.Writer | None] | None = None
    bridged: tuple[int, dict[int, e.Writer | None]] | None = None


class WatchWorld:
    """One node, and its watches, one after another."""

    def __init__(self, *, dual: bool, named: bool) -> None:
        self.families = tuple(Family) if dual else (Family.IPV4,)
        self.node = Node()
        self.node.begin(table for family in self.families for table in NAT[family][:1] if table is not None)
        self.tally: Counter[str] = Counter()
        self._named = named
        self._begin()

    def _begin(self) -> None:
        node = self.node
        node.read()
        node.horizon = node.seconds
        clock = Clock(0)
        clock.now = node.now  # type: ignore[method-assign]
        networks = tuple(NETWORK[family] for family in self.families) if self._named else ()
        options = WatchOptions(PROFILE, networks=networks, families=self.families, heartbeat_s=BEAT, urgent=False)
        self.loop = Watch(options, clock, world=Ports(node, node, node, node))._loop  # type: ignore[arg-type]
        self._seen: list[e.Event] = []
        self._expected: dict[Network, _Expected] = {}
        self._there: frozenset[Family] = frozenset()
        self._moments: tuple[int, dict[int, e.Writer | None]] = node.now(), {}
        self._lost = 0
        node.delays.clear()
        node.comparisons = 0
        begun = node.now()
        self._turned(list(self.loop.begin()), begun)

    # --- what happens

    def step(self, action: str, **values: Any) -> None:
        """One thing; then the watch handles what has come."""
        self.tally[action] += 1
        self.tally["steps"] += 1
        getattr(self, action)(**values)
        self._run()

    def _run(self) -> None:
        """The watch runs until its time has come, and nothing waits."""
        node = self.node
        node.horizon = max(node.horizon, node.seconds)
        idle = 0  # turns in which nothing came and no time passed
        while True:
            before = node.seconds, node.backlog
            self._turn()
            if not node.backlog and node.seconds >= node.horizon:
                return
            idle = idle + 1 if before == (node.seconds, node.backlog) else 0
            assert idle < _MOST_TURNS, "the loop turns at full speed"

    def _turn(self) -> None:
        begun = self.node.now()
        self._turned(list(self.loop.turn()), begun)

    def time_goes_on(self, seconds: float) -> None:
        self.node.horizon = self.node.seconds + seconds

    def _family(self, number: int) -> Family:
        return self.families[number % len(self.families)]

    def _write(self, family: Family, name: str, table: Table | None, writer: str, late: float) -> None:
        """``late``: the watch is not run for so long behind it."""
        self.node.write((table,), (_key(family, name),), _WRITERS[writer])
        self.node.seconds += late

    def nat_changes(self, family: int, number: int, writer: str, late: float) -> None:
        chosen = self._family(family)
        self._write(chosen, "nat", NAT[chosen][number], writer, late)

    def filter_changes(self, family: int, number: int, writer: str, late: float) -> None:
        chosen = self._family(family)
        self._write(chosen, "filter", FILTER[chosen][number], writer, late)

    def standby_changes(self, family: int, there: int, late: float) -> None:
        chosen = self._family(family)
        self._write(chosen, TABLE, STANDBY[chosen][there], "unknown", late)

    def noise(self, family: int, number: int, rules: int) -> None:
        chosen = self._family(family)
        self._write(chosen, f"noise{number}", NOISE[chosen, number][rules], "firewalld", 0.0)

    def flushed_and_restored(self, family: int, between: float, late: float) -> None:
        """As flanneld's restart does; the watch may see both at once."""
        chosen = self._family(family)
        self._write(chosen, "nat", NAT[chosen][1], "flanneld", between)
        self._write(chosen, "nat", NAT[chosen][0], "flanneld", late)

    def both_tables_change(self, family: int, number: int, other: int) -> None:
        """In one commit."""
        chosen = self._family(family)
        tables = NAT[chosen][number], FILTER[chosen][other]
        self.node.write(tables, (_key(chosen, "nat"), _key(chosen, "filter")), _WRITERS["firewalld"])

    def legacy_changes(self, family: int, number: int) -> None:
        chosen = self._family(family)
        if number or self.node.legacy:
            self.node.write((LEGACY[chosen][number],), (_key(chosen, "filter", legacy=True),), None)

    def events_are_lost(self, family: int, number: int, late: float) -> None:
        """Among them that of a change."""
        chosen = self._family(family)
        self._write(chosen, "nat", NAT[chosen][number], "flanneld", late)
        self.node.lose()
        self._lost += 1

    def everything_is_read_again(self) -> None:
        self.node.read_again()

    def an_event_is_missing(self, family: int, number: int) -> None:
        """Of a change of the plugin's own chain, which is among those that are compared."""
        self._run()  # what waits would show the change
        chosen = self._family(family)
        table = NAT[chosen][number]
        if table is not None and _key(chosen, "nat") in self.node.rules:
            self.node.write_silently(table)

    def comparing_takes(self, seconds: float) -> None:
        self.node.compares_for = seconds

    def pods_change(self, count: int) -> None:
        self.node.pods = count

    def facts_change(self) -> None:
        self.node.facts_changed = True

    def guard(self, holds: bool, flows: int) -> None:
        self.node.guards = holds
        self.node.flows += flows

    def stop(self, number: int, comes: bool) -> None:
        """The watch is stopped behind a commit that it has not seen; another one begins."""
        wrote = self.node.write((NAT[Family.IPV4][number],), (_key(Family.IPV4, "nat"),), _WRITERS["flanneld"])
        if wrote and not comes:
            self.node.never_delivered()
            self._lost += 1
        self._end()
        self._begin()

    def kill(self) -> None:
        """Nothing is written any more; another watch begins."""
        self._begin()

    def close(self) -> None:
        """Nothing to end."""

    # --- what must hold

    def _turned(self, events: list[e.Event], begun: int) -> None:
        """After a turn: what was yielded is what the rules come to."""
        node = self.node
        self._seen += events
        self._moments = begun, {step.t: step.writer for step in node.handed}
        self._check_states(events)
        beats = [one for one in events if isinstance(one, e.Heartbeat)]
        for beat in beats:
            self._check_beat(beat)
        steps, states = node.handed, [one for one in events if isinstance(one, e.RuleState)]
        if len(steps) == 1 and steps[0].changes is not None and states and not beats:
            relevant = [one for one in events if isinstance(one, e.Change) and one.relevant]
            new = [one for one in events if isinstance(one, e.Note)]
            assert relevant or new, "a state changed, and no change is relevant"
        node.handed.clear()

    def _moment(self, t: int, writer: e.Writer | None) -> bool:
        """Whether something may have come to be so then: by a commit of this turn, or by what was read in it."""
        begun, steps = self._moments
        return (t in steps and steps[t] == writer) or (writer is None and begun <= t <= self.node.now())

    def _check_states(self, events: list[e.Event]) -> None:
        tables, standbys = self.node.current.tables, self._standbys()
        found: dict[str, list[e.RuleState]] = {}
        for event in events:
            if isinstance(event, e.RuleState):
                found.setdefault(event.network, []).append(event)
        told = {(one.family, one.present) for one in events if isinstance(one, e.Standby)}
        come, gone = standbys - self._there, self._there - standbys
        self._there = standbys
        expected = {(one.value, True) for one in come} | {(one.value, False) for one in gone}
        assert told == expected, f"standbys {told} were reported instead of {expected}"
        families = set()
        for watched in self.loop._networks:
            network = watched.network
            families.add(family_of(network))
            known = self._expected.setdefault(network, _Expected())
            poll = _answer(tables, network, watched.judge.witnesses, whole=False)
            states = found.pop(str(network), [])
            self._check_state(known, network, poll, states, events)
            last = watched.tracker.state
            assert last == poll.state, f"{network} is said to be {last}, and is {poll.state}: {poll.reason}"
        assert not found, f"states of {found}"
        named = {family_of(one) for one in pod_networks(Ruleset(tables), PROFILE)} & set(self.families)
        assert named <= families, f"a pod network of {named - families} is named, and not watched"

    def _check_state(
        self, known: _Expected, network: Network, poll: Poll, states: list[e.RuleState], events: list[e.Event]
    ) -> None:
        gaps = [one for one in events if isinstance(one, e.Gap) and one.network == str(network)]
        # a step, and then a heartbeat that knows of other pods, may each change it
        for one in states:
            assert self._moment(one.t, one.writer), f"{one} is of no commit of now"
            if one.state == known.state:
                continue  # other pods than before are not carried
            if known.gap is not None:
                assert gaps, f"a gap of {network} ended, and was not reported"
                gap = gaps.pop(0)
                assert (gap.begin, gap.opened_by) == known.gap, f"{gap} began {known.gap}"
                assert (gap.end, gap.closed_by, gap.open) == (one.t, one.writer, False), f"{gap} ended by {one}"
                known.gap = None
                self.tally["gaps"] += 1
            if one.state == "not_carried":
                known.gap = one.t, one.writer
            known.state = one.state
        assert not gaps, f"{gaps} were reported, and there was none"
        self._check_bridged(known, network, poll, events)

    def _check_bridged(self, known: _Expected, network: Network, poll: Poll, events: list[e.Event]) -> None:
        alone = self._alone(network, poll)
        for one in [one for one in events if isinstance(one, e.Bridged) and one.network == str(network)]:
            began = known.bridged if known.bridged is not None else self._moments
            begun, steps = began
            assert (one.begin in steps and one.opened_by == steps[one.begin]) or (
                one.opened_by is None and one.begin >= begun
            ), f"{one} began {began}"
            assert self._moment(one.end, one.closed_by) and not one.open, f"{one} ended by no commit of now"
            known.bridged = None
            self.tally["bridged"] += 1
        if alone and known.bridged is None:
            known.bridged = self._moments
        assert alone or known.bridged is None, f"the standby does not carry {network} alone any more"

    def _alone(self, network: Network, poll: Poll) -> bool:
        """Whether a standby carries a network that the other rules do not."""
        if poll.state != "carried" or family_of(network) not in self._there:
            return False
        witnesses = next(one.judge.witnesses for one in self.loop._networks if one.network == network)
        return _answer(without_guard(self.node.current).tables, network, witnesses, whole=False).state == "not_carried"

    def _check_beat(self, beat: e.Heartbeat) -> None:
        node, late = self.node, max(self.node.delays, default=0)
        node.delays.clear()
        assert beat.max_lag_ns >= late, f"a step was {late} ns late, and the heartbeat says {beat.max_lag_ns}"
        tables = node.current.tables
        for watched in self.loop._networks:
            witnesses = watched.judge.witnesses
            assert len(witnesses.pods) == node.pods, (
                f"{node.pods} pods are there, and {len(witnesses.pods)} are asked about"
            )
            compared = any(step.reason == "the rules differ" for step in node.handed)  # after the heartbeat
            if node.compares_for == 0 and not compared:
                partly = _answer(tables, watched.network, witnesses, whole=True).partly
                assert watched.tracker.partly == partly, f"partly: {watched.tracker.partly!r} instead of {partly!r}"
        legacy = any(table.legacy for table in node.rules.values())
        assert node.legacy or not legacy, "legacy tables are there, and not polled"

    def _standbys(self) -> frozenset[Family]:
        tables = [one for one in self.node.current.tables if one.name == TABLE]
        return frozenset(
            family
            for family in self.families
            if any(chain.hook for one in tables if one.family == family.nft for chain in standby_chains(one)[0])
        )

    def _end(self) -> None:
        """The watch is stopped: what is still open is reported, and the summary is right."""
        node = self.node
        waits = node.backlog
        events = list(self.loop.end())
        self._seen += events
        assert isinstance(events[-1], e.Summary), "the summary does not come last"
        assert not node.backlog, f"{waits} commits were to come"
        kinds = Counter(type(one) for one in self._seen)
        totals = events[-1].totals
        gaps = [one for one in self._seen if isinstance(one, e.Gap)]
        assert totals["gaps"] == len(gaps), totals
        assert totals["gap_ns"] == sum(one.lasted_ns for one in gaps), totals
        assert totals["lost_events"] == kinds[e.LostEvents] == self._lost, f"{kinds} of {self._lost}, {totals}"
        assert totals["changes"] <= kinds[e.Change] and totals["relevant"] <= totals["commits"], totals
        states = {one.network: one for one in self._seen if isinstance(one, e.RuleState)}
        open_gaps = {one.network for one in gaps if one.open}
        cut = {name for name, one in states.items() if one.state == "not_carried"}
        assert open_gaps == cut, f"{cut} are not carried at the end, and the open gaps are of {open_gaps}"
        for watched in self.loop._networks:
            poll = _answer(node.current.tables, watched.network, watched.judge.witnesses, whole=False)
            state = states[str(watched.network)].state
            assert state == poll.state, f"{watched.network} is {poll.state} at the end, and is said to be {state}"
        bridged = {one.network for one in events if isinstance(one, e.Bridged) and one.open}
        self._there = self._standbys()
        alone = set()
        for watched in self.loop._networks:
            poll = _answer(node.current.tables, watched.network, watched.judge.witnesses, whole=False)
            alone |= {str(watched.network)} if self._alone(watched.network, poll) else set()
        assert bridged == alone, f"the standby carries {alone} alone at the end, and {bridged} were reported"
        last = [one for one in events if isinstance(one, e.Standby) and one.present]
        assert {one.family for one in last[-len(self._standbys()) :]} == {one.value for one in self._standbys()}
        self.tally["ended"] += 1

    def settle(self) -> None:
        """Whole rules; the watch runs for long enough to compare: everything is carried, and it knows."""
        node = self.node
        for family in self.families:
            for name, table in (("nat", NAT[family][0]), ("filter", None), (TABLE, None)):
                node.write((table,), (_key(family, name),), None)
            node.write((None,), (_key(family, "filter", legacy=True),), None)
        node.compares_for = 0.0
        self._run()
        compared, beats = node.comparisons, sum(isinstance(one, e.Heartbeat) for one in self._seen)
        self.time_goes_on(60.0)
        self._run()
        assert node.comparisons > compared, "nothing was compared with the kernel"
        after = sum(isinstance(one, e.Heartbeat) for one in self._seen) - beats
        assert after >= 55, f"{after} heartbeats in 60 s"
        assert {one.tracker.state for one in self.loop._networks} == {"carried"}, "not everything is carried"
        for watched in self.loop._networks:
            poll = _answer(node.rules.values(), watched.network, watched.judge.witnesses, whole=True)
            assert poll.state == "carried" == watched.tracker.state, "the kernel's rules are others"
        self._end()
        self.tally["settled"] += 1


_FAMILIES, _LATE = (0, 1), (0.0, 0.02, 3.0)
_BY = tuple(_WRITERS)
ACTIONS = (
    Action("time_goes_on", 30, {"seconds": (0.01, 0.3, 1.1, 12.0)}),
    Action("nat_changes", 20, {"family": _FAMILIES, "number": range(8), "writer": _BY, "late": _LATE}),
    Action("filter_changes", 10, {"family": _FAMILIES, "number": range(6), "writer": _BY, "late": _LATE}),
    Action("flushed_and_restored", 10, {"family": _FAMILIES, "between": (0.001, 0.2), "late": _LATE}),
    Action("standby_changes", 6, {"family": _FAMILIES, "there": (0, 1), "late": _LATE}),
    Action("both_tables_change", 4, {"family": _FAMILIES, "number": range(8), "other": range(6)}),
    Action("noise", 10, {"family": _FAMILIES, "number": range(1), "rules": range(2)}),
    Action("legacy_changes", 3, {"family": _FAMILIES, "number": range(3)}),
    Action("events_are_lost", 4, {"family": _FAMILIES, "number": range(8), "late": _LATE}),
    Action("everything_is_read_again", 2),
    Action("an_event_is_missing", 3, {"family": _FAMILIES, "number": (0, 1, 3, 4)}),
    Action("comparing_takes", 1, {"seconds": (0.0, 0.01)}),
    Action("pods_change", 4, {"count": range(4)}),
    Action("facts_change", 2),
    Action("guard", 2, {"holds": (False, True), "flows": (0, 3)}),
    Action("stop", 2, {"number": range(8), "comes": (True, False)}),
    Action("kill", 1),
)
KIND = Kind(
    WatchWorld, ACTIONS, {"dual": (False, True), "named": (False, True)}, 200, ("gaps", "bridged", "ended", "settled")
)
