"""The traffic of a run: its lanes, clients and schedules, made from the options.

Problem: several targets, families and kinds share a rate, by weights, and no two of them may use the same 5-tuple.
Promise: far ends, other targets and controls are a ``Track`` each, with its own schedule, in which kinds alternate by
weight and the lanes of a kind take turns; lanes to the same address and ports share their 5-tuples. Options that cannot
work are refused before anything is sent; those that work only in part are a remark. Next stage: ``prober``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from hitless.errors import InputError, MissingError
from hitless.model.event_fields import TRANSPORTS
from hitless.model.families import Family
from hitless.probe.clients import ClientContext, KindClient, load
from hitless.probe.engine import Engine
from hitless.probe.flows import Lane
from hitless.probe.kinds import DEFAULT_MIX, ENTRIES
from hitless.probe.options import POLITE_RATE, ProbeOptions
from hitless.probe.outcomes import Outcomes
from hitless.probe.schedule import SendSchedule, interleave
from hitless.probe.streams import Streams
from hitless.probe.targets import Kind, ProbeEndpoint
from hitless.probe.tuples import REUSE_NS, Tuples, fastest

__all__ = ["Track", "Traffic"]

_IDENTIFIERS = 65535  # ICMP echo identifiers 1 to 65535; for a ping socket, 0 means any


@dataclass(slots=True)
class Track:
    """A schedule and the lanes that take turns in it; ``counted``: the run ends with it."""

    schedule: SendSchedule
    turns: Iterator[str]
    lanes: Mapping[str, Iterator[Lane]]
    counted: bool

    def lane(self) -> Lane:
        """The next lane."""
        return next(self.lanes[next(self.turns)])


class Traffic:
    """Everything that a run sends. ``remarks`` become warnings at the start of its record."""

    def __init__(self, options: ProbeOptions, engine: Engine, outcomes: Outcomes) -> None:
        self._options = options
        self._engine = engine
        self._outcomes = outcomes
        self._kinds: dict[tuple[Kind, Family], KindClient] = {}
        self._tuples: dict[tuple[str, str, tuple[int, ...]], Tuples] = {}
        self._closing = contextlib.ExitStack()
        self._lingering: list[Callable[[], int]] = []
        self.lanes: list[Lane] = []
        self.tracks: list[Track] = []
        self.streams: Streams | None = None
        self.remarks: list[str] = []
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def kind(self, lane: Lane) -> KindClient:
        """The client that makes a lane's attempts."""
        return self._kinds[lane.kind, lane.family]

    def begin(self, now: int) -> None:
        """Start all schedules at ``now``."""
        for track in self.tracks:
            track.schedule.begin_at(now)
        if self.streams is not None:
            self.streams.next_at = now

    @property
    def done(self) -> bool:
        """Whether ``count`` is reached; a run with streams only continues until it is stopped."""
        counted = [track.schedule for track in self.tracks if track.counted]
        return bool(counted) and all(schedule.next_at is None for schedule in counted)

    @property
    def skipped_late(self) -> int:
        """How many planned attempts were late and were not made; without those to controls."""
        return sum(track.schedule.skipped for track in self.tracks if track.counted)

    @property
    def lingering(self) -> int:
        """How many connections have been counted and wait for their server to close; for at most a second."""
        return sum(lingering() for lingering in self._lingering)

    def close(self) -> None:
        """Close what the attempts share."""
        self._closing.close()

    def _build(self) -> None:
        options = self._options
        mix = dict(DEFAULT_MIX if options.mix is None else options.mix)
        if options.mix is None:
            self._leave_out_what_is_not_permitted(mix)
        streams = [end for end in options.endpoints if ENTRIES[end.kind].share is None]
        ours = [end for end in options.endpoints if end.target.scheme == "farend" and mix.get(end.kind, 0) > 0]
        others = [end for end in options.endpoints if end.target.scheme != "farend"]
        if options.mix is not None and not any(end.target.scheme == "farend" for end in options.endpoints):
            raise InputError("only a far end is asked by shares", where="--mix", expected="a --to farend://…")
        if options.streams and not streams:
            raise InputError("only a far end has streams", where="--streams", expected="a --to farend://…")
        if not ours and not others and not options.streams:
            raise InputError("leaves nothing to do", where="--mix", expected="a kind that --to offers")
        knocking = {(end.kind, end.family) for end in (*ours, *others) if ENTRIES[end.kind].knocks}
        self._outcomes.share_knockers(len(knocking))
        if ours:
            self._add(ours, options.rate, mix)
        if others:
            self._add(others, options.other_rate, {end.kind: 1 for end in others})
        if options.control:
            controls = [end for end in options.control if ENTRIES[end.kind].share is not None]
            self._add(controls, POLITE_RATE, {end.kind: 1 for end in controls}, control=True)
        if options.streams:
            self.streams = Streams(self._engine, self._outcomes, [self._lane(end) for end in streams], options.streams)

    def _leave_out_what_is_not_permitted(self, mix: dict[str, int]) -> None:
        """Leave kinds out of the default mix that this process may not send; in a given mix, they are an error."""
        for kind, entry in ENTRIES.items():
            if not entry.permitted or not mix.get(kind):
                continue
            families = {end.family for end in self._options.endpoints if end.kind == kind and end.answers}
            try:
                for family in families:
                    load(entry.permitted)(family)
            except MissingError as error:
                mix[kind] = 0
                self.remarks.append(f"{kind} is left out: {error}")

    def _add(
        self, endpoints: Sequence[ProbeEndpoint], rate: float, mix: Mapping[str, int], *, control: bool = False
    ) -> None:
        lanes: dict[Kind, list[Lane]] = {}
        for end in endpoints:
            lanes.setdefault(end.kind, []).append(self._lane(end, control=control))
        weights: dict[str, int] = {kind: mix[kind] for kind in lanes}
        for kind, group in lanes.items():
            self._compare(kind, group, rate * weights[kind] / sum(weights.values()))
        self.tracks.append(
            Track(
                SendSchedule(0, rate, None if control else self._options.count),
                cycle(interleave(weights)),
                {kind: cycle(group) for kind, group in lanes.items()},
                counted=not control,
            )
        )

    def _compare(self, kind: Kind, group: Sequence[Lane], rate: float) -> None:
        """Add a remark if there are too few 5-tuples for the rate."""
        first = group[0].endpoint
        most = _IDENTIFIERS / (REUSE_NS / 1e9) if TRANSPORTS[kind] == "icmp" else fastest(len(first.ports))
        if rate / len(group) > most:
            self.remarks.append(
                f"{rate / len(group):.0f} {kind} flows per second to {first.address} are more than its 5-tuples allow "
                f"({most:.0f}/s with none used twice in 130 s): the rest will be skipped; give more targets"
            )

    def _lane(self, end: ProbeEndpoint, *, control: bool = False) -> Lane:
        options = self._options
        source = options.sources.get(end.family, "")
        lane = Lane(end, self._tuples_of(end), source=source, interface=options.interface, control=control)
        client = ENTRIES[end.kind].client
        if client and (end.kind, end.family) not in self._kinds:
            self._kinds[end.kind, end.family] = load(client)(
                ClientContext(
                    engine=self._engine,
                    outcomes=self._outcomes,
                    family=end.family,
                    closing=self._closing,
                    lingering=self._lingering,
                    interface=options.interface,
                    insecure=options.insecure,
                )
            )
        self.lanes.append(lane)
        return lane

    def _tuples_of(self, end: ProbeEndpoint) -> Tuples:
        protocol = TRANSPORTS[end.kind]
        key = (protocol, end.address, end.ports)
        if key not in self._tuples:
            start = int.from_bytes(os.urandom(4), "big")  # so that the next run uses other 5-tuples
            if protocol == "icmp":
                self._tuples[key] = Tuples((0,), first=1, last=_IDENTIFIERS, start=start)
            else:
                self._tuples[key] = Tuples(end.ports, start=start)
        return self._tuples[key]
