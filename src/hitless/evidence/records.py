"""The events of a log, grouped into one record for each agent on each node.

Problem: a drill's log is several streams merged as they arrived, of several agents and nodes. Promise: ``grouped`` only
groups; everything in a record is sorted by time, so that neither the order of merging nor the number of streams
matters. Overlapping gaps of a family become one outage, and a reported state "not carried" without a gap event (the
watch was killed, or the line is missing) is an outage too.
Next stage: ``losses`` finds the cause of each loss, ``verdict`` judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hitless.evidence.settings import Settings
from hitless.model import events as e

__all__ = ["LONGEST_COMM", "Outage", "Record", "RecordedDrill", "Span", "grouped", "program"]

CONTROL = "control"
"""Prefix of streams that do not pass the egress path: their losses are not caused by the agent."""

PODS = "pods"
"""Prefix of streams between pods of different nodes: they pass the overlay, not the egress path."""

DRILLS = frozenset({"drill", "node-drill", "selftest"})
"""Tools whose log is a whole drill, with the drill's settings in its header."""

LONGEST_COMM = 15
"""Length of the kernel's command names (TASK_COMM_LEN without the final NUL)."""


def program(comm: str, argv: str = "") -> str:
    """The name of a writer's program; where the kernel cut it after 15 characters, from the command line."""
    first = argv.partition(" ")[0].rpartition("/")[2]
    return first if len(comm) == LONGEST_COMM and first.startswith(comm) else comm


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open time interval; ``number`` is the round's."""

    number: int
    begin: int
    end: int

    def holds(self, t: int) -> bool:
        """Whether ``t`` lies in it."""
        return self.begin <= t < self.end


@dataclass(frozen=True, slots=True)
class Outage:
    """One gap of a family: overlapping gaps of its pod networks are one."""

    family: str
    networks: tuple[str, ...]
    begin: int
    end: int
    reason: str = ""
    opened_by: e.Writer | None = None
    closed_by: e.Writer | None = None
    open: bool = False

    @property
    def length(self) -> int:
        """Nanoseconds without egress."""
        return self.end - self.begin


@dataclass(slots=True)
class Record:
    """All events of one agent on one node, each type sorted by time."""

    agent: str
    node: str
    headers: list[e.Header] = field(default_factory=list)
    summaries: list[e.Summary] = field(default_factory=list)
    phases: list[e.Phase] = field(default_factory=list)
    restarts: list[e.Restart] = field(default_factory=list)
    changes: list[e.Change] = field(default_factory=list)
    states: list[e.RuleState] = field(default_factory=list)
    gaps: list[e.Gap] = field(default_factory=list)
    bridged: list[e.Bridged] = field(default_factory=list)
    standbys: list[e.Standby] = field(default_factory=list)
    lost_events: list[e.LostEvents] = field(default_factory=list)
    attempts: list[e.Attempts] = field(default_factory=list)
    losses: list[e.Loss] = field(default_factory=list)
    recoveries: list[e.Recovery] = field(default_factory=list)
    breaks: list[e.StreamBreak] = field(default_factory=list)
    leaks: list[e.Leak] = field(default_factory=list)
    heartbeats: list[e.Heartbeat] = field(default_factory=list)
    notes: list[e.Note] = field(default_factory=list)
    control_attempts: list[e.Attempts] = field(default_factory=list)
    control_losses: list[e.Loss] = field(default_factory=list)
    pods: Record | None = None
    """Connections from this node's pods to pods on other nodes, as a record of their own."""
    first: int = 0
    last: int = 0

    def _everything(self) -> Iterable[Sequence[e.Event]]:
        return (
            *(self.headers, self.summaries, self.phases, self.restarts, self.changes, self.states, self.gaps),
            *(self.lost_events, self.attempts, self.losses, self.recoveries, self.breaks, self.leaks),
            *(self.bridged, self.standbys, self.heartbeats, self.notes, self.control_attempts, self.control_losses),
        )

    def finish(self) -> Record:
        """Sort by time, and set ``first`` and ``last``."""
        times: list[int] = []
        for kind in self._everything():
            kind.sort(key=lambda event: (event.t, getattr(event, "generation", 0)))  # type: ignore[attr-defined]
            if kind:
                times += [kind[0].t, max(_end(event) for event in kind)]
        self.first, self.last = (min(times), max(times)) if times else (0, 0)
        if self.pods is not None:
            self.pods.finish()
        return self

    @property
    def spans(self) -> tuple[Span, ...]:
        """The rounds, each up to the next phase."""
        found: list[Span] = []
        for index, phase in enumerate(self.phases):
            if phase.phase == "round":
                rest = self.phases[index + 1 :]
                found.append(Span(phase.round, phase.t, rest[0].t if rest else self.last + 1))
        return tuple(found)

    @property
    def measured(self) -> Span:
        """From the first restart to the end; empty when no round began."""
        begin = next((phase.t for phase in self.phases if phase.phase == "round"), self.last + 1)
        return Span(0, begin, max(begin, self.last + 1))

    @property
    def outages(self) -> tuple[Outage, ...]:
        """The gaps, merged by family, with those that have no gap event."""
        return _merged([_outage(gap) for gap in self.gaps] + self._without_event())

    @property
    def bridges(self) -> tuple[Outage, ...]:
        """The agent's gaps that a guard's standby bridged, merged like ``outages``."""
        return _merged([_outage(one) for one in self.bridged])

    @property
    def bridged_flows(self) -> int:
        """Flows that the standby carried while it was watched: the growth of its counters, summed over families."""
        total = 0
        for family in {one.family for one in self.standbys}:
            counts = [one.flows for one in self.standbys if one.family == family and one.present]
            total += sum(max(0, after - before) for before, after in pairwise(counts))
        return total

    def _without_event(self) -> list[Outage]:
        """States "not carried" that lie in no reported gap: the watch was killed, or the gap's line is missing."""
        found: list[Outage] = []
        for family, network in sorted({(one.family, one.network) for one in self.states}):
            states = [one for one in self.states if (one.family, one.network) == (family, network)]
            gaps = [(gap.begin, gap.end) for gap in self.gaps if (gap.family, gap.network) == (family, network)]
            for index, state in enumerate(states):
                if state.state != "not_carried" or (index and states[index - 1].state == "not_carried"):
                    continue
                if any(begin <= state.t <= end for begin, end in gaps):
                    continue
                after = next((one for one in states[index:] if one.state != "not_carried"), None)
                end = max(self.last, state.t + 1) if after is None else after.t
                by = None if after is None else after.writer
                found.append(
                    Outage(family, (network,), state.t, end, state.reason, state.writer, by, open=after is None)
                )
        return found


def _end(event: e.Event) -> int:
    return max(event.t, getattr(event, "end", 0))


def _merged(spans: Sequence[Outage]) -> tuple[Outage, ...]:
    """Overlapping outages of a family become one."""
    merged: list[Outage] = []
    for span in sorted(spans, key=lambda one: (one.family, one.begin, one.end, one.networks)):
        before = merged[-1] if merged else None
        if before and before.family == span.family and span.begin < before.end:
            merged[-1] = _merge(before, span)
        else:
            merged.append(span)
    return tuple(sorted(merged, key=lambda one: (one.begin, one.family)))


def _outage(gap: e.Gap | e.Bridged) -> Outage:
    return Outage(gap.family, (gap.network,), gap.begin, gap.end, gap.reason, gap.opened_by, gap.closed_by, gap.open)


def _merge(one: Outage, other: Outage) -> Outage:
    last = other if other.end > one.end else one
    networks = tuple(sorted({*one.networks, *other.networks}))
    return Outage(
        one.family, networks, one.begin, last.end, one.reason, one.opened_by, last.closed_by, one.open or other.open
    )


@dataclass(frozen=True, slots=True)
class RecordedDrill:
    """A whole log, grouped; ``whole``: its tool wrote its summary."""

    settings: Settings
    records: tuple[Record, ...]
    whole: bool
    notes: tuple[e.Note, ...] = ()
    header: e.Header | None = None
    sha256: str = ""

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents in the order of the settings, then others by name."""
        seen = sorted({record.agent for record in self.records})
        listed = [agent for agent in self.settings.agents if agent in seen]
        return (*listed, *(agent for agent in seen if agent not in listed))


def _add(record: Record, event: e.Event) -> None:
    if not event.stream.startswith(PODS):
        _file(record, event)
        return
    if record.pods is None:
        record.pods = Record(record.agent, record.node)
    _file(record.pods, event)


def _file(record: Record, event: e.Event) -> None:
    control = event.stream.startswith(CONTROL)
    match event:
        case e.Attempts():
            (record.control_attempts if control else record.attempts).append(event)
        case e.Loss():
            (record.control_losses if control else record.losses).append(event)
        case e.Header():
            record.headers.append(event)
        case e.Summary():
            record.summaries.append(event)
        case e.Phase():
            record.phases.append(event)
        case e.Restart():
            record.restarts.append(event)
        case e.Change():
            record.changes.append(event)
        case e.RuleState():
            record.states.append(event)
        case e.Gap():
            record.gaps.append(event)
        case e.Bridged():
            record.bridged.append(event)
        case e.Standby():
            record.standbys.append(event)
        case e.LostEvents():
            record.lost_events.append(event)
        case e.Heartbeat():
            record.heartbeats.append(event)
        case e.Note():
            record.notes.append(event)
        case e.Recovery() if not control:
            record.recoveries.append(event)
        case e.StreamBreak() if not control:
            record.breaks.append(event)
        case e.Leak() if not control:
            record.leaks.append(event)
        case _:
            pass  # a type of a newer schema, or a detail of a control stream


def grouped(events: Iterable[e.Event], *, sha256: str = "") -> RecordedDrill:
    """Group the events; those with an agent and no node belong to each of its nodes. ``sha256`` is the log file's.

    Agents and nodes of the settings without any event get an empty record, which cannot pass.
    """
    settings = Settings()
    first: e.Header | None = None
    ended: set[str] = set()
    records: dict[tuple[str, str], Record] = {}
    loose: dict[str, list[e.Event]] = defaultdict(list)
    notes: list[e.Note] = []
    single = True
    for event in events:
        if isinstance(event, e.Header) and not event.agent:
            if not settings.tool or event.tool in DRILLS:
                settings, first = Settings.of(event), event
            single = single and event.tool not in DRILLS
        if isinstance(event, e.Summary) and not event.agent:
            ended.add(event.tool)
        if event.agent and event.node:
            key = (event.agent, event.node)
            _add(records.setdefault(key, Record(*key)), event)
        else:
            loose[event.agent].append(event)
    if single and not records and set(loose) == {""}:
        loose[settings.tool] = loose.pop("")  # a single tool's stream: the tool is its only agent
    for agent, waiting in loose.items():
        mine = [record for (name, _), record in records.items() if name == agent]
        if not mine and agent:
            mine = [records.setdefault((agent, ""), Record(agent, ""))]
        for event in waiting:
            if not agent and isinstance(event, e.Note):
                notes.append(event)
            for record in mine:
                _add(record, event)
    _add_missing(records, settings)
    _complete_pods(list(records.values()))
    done = tuple(records[key].finish() for key in sorted(records))
    return RecordedDrill(
        settings, done, settings.tool in ended, tuple(sorted(notes, key=lambda note: note.t)), first, sha256
    )


def _add_missing(records: dict[tuple[str, str], Record], settings: Settings) -> None:
    for agent in dict.fromkeys((*settings.agents, *settings.judged)):
        seen = {node for name, node in records if name == agent}
        if not seen:
            records[agent, ""] = Record(agent, "")
        elif seen != {""}:
            for node in settings.nodes:
                records.setdefault((agent, node), Record(agent, node))


def _complete_pods(records: Sequence[Record]) -> None:
    """Pod-to-pod records: the phases and restarts are the node's; the far ends that answer are on the other nodes."""
    pod_records = [(one, one.pods, _far_end_events(one.pods)) for one in records if one.pods is not None]
    for record, pods, _ in pod_records:
        pods.phases, pods.restarts = record.phases, record.restarts
        for other, _, (beats, summaries) in pod_records:
            if other.agent == record.agent and other is not record:
                pods.heartbeats += beats
                pods.summaries += summaries


def _far_end_events(pods: Record) -> tuple[list[e.Heartbeat], list[e.Summary]]:
    beats = [beat for beat in pods.heartbeats if beat.tool == "farend"]
    return beats, [one for one in pods.summaries if one.tool == "farend"]
