"""The events of a log, sorted into one record for each agent on each node.

Problem: a drill's log is several streams merged as they arrived, of several agents and nodes. Promise: ``story`` groups
them without judging; everything in a record is sorted by time, so that neither the order of merging nor the number of
streams matters. Gaps are made whole here: overlapping ones of one family become one outage, and rules that were found
not to carry and never seen to carry again are an open gap even when the watcher died before it could say so.
Next stage: ``losses`` says why each loss happened, ``verdict`` judges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hitless.model import events as e

__all__ = ["LONGEST_COMM", "Outage", "Record", "RecordedDrill", "Settings", "Span", "grouped", "program"]

CONTROL = "control"
"""A stream whose name begins so does not pass the egress path: what it loses was not the agent's doing."""

PODS = "pods"
"""A stream whose name begins so is about pods of different nodes: the overlay carries it, and no egress path."""

DRILLS = frozenset({"drill", "node-drill", "selftest"})
"""Tools whose log is a whole drill: their header says what was asked for."""


LONGEST_COMM = 15
"""Of the kernel's command names (TASK_COMM_LEN, without the final NUL)."""


def program(comm: str, argv: str = "") -> str:
    """A writer's program for people: the kernel cuts names after 15 characters, the command line has the rest."""
    first = argv.partition(" ")[0].rpartition("/")[2]
    return first if len(comm) == LONGEST_COMM and first.startswith(comm) else comm


@dataclass(frozen=True, slots=True)
class Settings:
    """What the drill was asked to do, from its header; empty where the log is a single tool's stream."""

    tool: str = ""
    version: str = ""
    target: str = ""
    agents: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    rounds: int = 0
    restart: str = ""
    families: tuple[str, ...] = ()
    rate: int = 0
    far_end: bool = False
    by_traffic: bool = False
    """The rules of this agent are not judged (nobody here knows them): traffic alone decides."""
    stand_ins: tuple[tuple[str, str], ...] | None = None
    """Agents that replay another's commands, each with what it replays; ``None`` where the header does not say."""
    evidence: bool = False
    """The steps of its restarts carry their evidence; logs of before have none, and are not asked for it."""
    pod_to_pod: bool = False
    """Connections between pods of different nodes were to be tried."""
    mixed: tuple[tuple[str, str], ...] = ()
    """Nodes that ran another agent than the one that was drilled, each with what it ran."""
    words: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, header: e.Header) -> Settings:
        """The settings of a header; what is not of its type is left out rather than guessed."""
        config = header.config

        def text(key: str) -> str:
            value = config.get(key, "")
            return value if isinstance(value, str) else ""

        def number(key: str) -> int:
            value = config.get(key, 0)
            return value if isinstance(value, int) else 0

        def texts(key: str) -> tuple[str, ...]:
            value = config.get(key, ())
            return tuple(str(one) for one in value) if isinstance(value, list | tuple) else ()

        listed = config.get("stand_ins")
        stand_ins = tuple((str(key), str(text)) for key, text in listed.items()) if isinstance(listed, dict) else None
        others = config.get("agents_on")
        mixed = tuple((str(key), str(name)) for key, name in others.items()) if isinstance(others, dict) else ()
        words = tuple((key, _words(value)) for key, value in sorted(config.items()) if value not in ("", None, [], ()))
        return cls(
            tool=header.tool,
            version=header.version,
            target=text("target"),
            agents=texts("agents"),
            # logs of one judged agent name it in "judge" alone
            judged=texts("judged") or tuple(filter(None, (text("judge"),))),
            rounds=number("rounds"),
            restart=text("restart"),
            families=texts("families"),
            rate=number("rate"),
            far_end=bool(config.get("far_end", False)),
            evidence=config.get("restart_evidence") is True,
            by_traffic=config.get("judged_by") == "traffic",
            stand_ins=stand_ins,
            pod_to_pod=config.get("pod_to_pod") is True,
            mixed=mixed,
            words=words,
        )


def _words(value: object) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open stretch of time; ``number`` is the round's."""

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
    """All that the log says about one agent on one node, each kind sorted by time."""

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
    """What the log says about connections from this node's pods to other nodes' pods, as a record of its own."""
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
            # Ties are rare and short lists; their text decides, so that the order of merging never shows.
            kind.sort(key=lambda event: (event.t, getattr(event, "generation", 0)))  # type: ignore[attr-defined]
            if kind:
                times += [kind[0].t, max(_end(event) for event in kind)]
        self.first, self.last = (min(times), max(times)) if times else (0, 0)
        if self.pods is not None:
            self.pods.finish()
        return self

    @property
    def spans(self) -> tuple[Span, ...]:
        """The rounds, each until the next one or the recovery begins."""
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
        """The gaps, whole: merged by family, with the open ones that no ``Gap`` tells."""
        return _merged([_outage(gap) for gap in self.gaps] + self._unclosed())

    @property
    def bridges(self) -> tuple[Outage, ...]:
        """The agent's gaps that a guard's standby carried, merged as the gaps are."""
        return _merged([_outage(one) for one in self.bridged])

    @property
    def bridged_flows(self) -> int:
        """Flows that the standby carried while it was watched: what its counters gained, by family."""
        total = 0
        for family in {one.family for one in self.standbys}:
            counts = [one.flows for one in self.standbys if one.family == family and one.present]
            total += sum(max(0, after - before) for before, after in pairwise(counts))
        return total

    def _unclosed(self) -> list[Outage]:
        latest: dict[tuple[str, str], e.RuleState] = {(one.family, one.network): one for one in self.states}
        told = {(gap.family, gap.network, gap.begin) for gap in self.gaps}
        found: list[Outage] = []
        for (family, network), state in latest.items():
            covered = any(
                gap.family == family and gap.network == network and gap.begin <= state.t <= gap.end for gap in self.gaps
            )
            if state.state == "not_carried" and not covered and (family, network, state.t) not in told:
                end = max(self.last, state.t + 1)
                found.append(Outage(family, (network,), state.t, end, state.reason, opened_by=state.writer, open=True))
        return found


def _end(event: e.Event) -> int:
    return max(event.t, getattr(event, "end", 0))


def _merged(spans: Sequence[Outage]) -> tuple[Outage, ...]:
    """Overlapping ones of a family are one."""
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
    """A whole log, sorted; ``whole``: its tool came to its end."""

    settings: Settings
    records: tuple[Record, ...]
    whole: bool
    notes: tuple[e.Note, ...] = ()
    header: e.Header | None = None
    sha256: str = ""

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents in the order in which they were asked for; others behind them by name."""
        seen = sorted({record.agent for record in self.records})
        asked = [agent for agent in self.settings.agents if agent in seen]
        return (*asked, *(agent for agent in seen if agent not in asked))


def _put(record: Record, event: e.Event) -> None:
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
            pass  # an event of a newer schema's type, or a control stream's detail


def grouped(events: Iterable[e.Event], *, sha256: str = "") -> RecordedDrill:
    """Group the events; those of an agent without a node belong to each of its nodes. ``sha256`` is the log file's."""
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
            _put(records.setdefault(key, Record(*key)), event)
        else:
            loose[event.agent].append(event)
    if single and not records and set(loose) == {""}:
        loose[settings.tool] = loose.pop("")  # one tool's own stream: it is its only agent
    for agent, waiting in loose.items():
        mine = [record for (name, _), record in records.items() if name == agent]
        if not mine and agent:
            mine = [records.setdefault((agent, ""), Record(agent, ""))]
        for event in waiting:
            if not agent and isinstance(event, e.Note):
                notes.append(event)
            for record in mine:
                _put(record, event)
    for agent in settings.agents:  # asked for and never heard of: an empty record, which cannot pass
        if all(name != agent for name, _ in records):
            records[agent, ""] = Record(agent, "")
    _between(list(records.values()))
    done = tuple(records[key].finish() for key in sorted(records))
    return RecordedDrill(
        settings, done, settings.tool in ended, tuple(sorted(notes, key=lambda note: note.t)), first, sha256
    )


def _between(records: Sequence[Record]) -> None:
    """Complete the records of what pods say to pods: their calendar is the node's, and who answers stands elsewhere."""
    told = [(one, one.pods, _far_end_words(one.pods)) for one in records if one.pods is not None]
    for record, pods, _ in told:
        pods.phases, pods.restarts = record.phases, record.restarts
        for other, _, (beats, summaries) in told:
            if other.agent == record.agent and other is not record:
                pods.heartbeats += beats
                pods.summaries += summaries


def _far_end_words(pods: Record) -> tuple[list[e.Heartbeat], list[e.Summary]]:
    beats = [beat for beat in pods.heartbeats if beat.tool == "farend"]
    return beats, [one for one in pods.summaries if one.tool == "farend"]
