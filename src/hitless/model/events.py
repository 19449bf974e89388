"""The event log: what ``watch``, ``probe``, ``farend`` and ``drill`` write, one JSON object per line.

Problem: tools run anywhere (here, in a namespace, in a pod), and a verdict is computed from what they wrote, now or a
year later. Promise: one tagged union with a schema version; reading validates completely; unknown *types* of the same
schema are kept as ``Unknown``, so that an older reader accepts the log of a newer writer. Times (``t``, ``begin``,
``end``) are Unix nanoseconds of the writer's clock (``hitless.kernel.clock``); durations end in ``_ns``. docs/events.md
describes the schema for users. Next stage: ``hitless.evidence``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from hitless.model.documents import shallow
from hitless.model.event_fields import Cause, FamilyName, Kind, Machine, Stamped, State, Writer
from hitless.model.rule_events import Bridged, Change, Gap, LostEvents, RuleState, Standby

__all__ = [
    "LONGEST",
    "SCHEMA",
    "Attempts",
    "Bridged",
    "Cause",
    "Change",
    "Event",
    "FamilyName",
    "Gap",
    "Header",
    "Heartbeat",
    "Kind",
    "Leak",
    "Loss",
    "LostEvents",
    "Machine",
    "Note",
    "Phase",
    "Recovery",
    "Restart",
    "RuleState",
    "Stamped",
    "Standby",
    "State",
    "StreamBreak",
    "Summary",
    "Unknown",
    "Writer",
    "decode",
    "encode",
]

SCHEMA = 1


class Header(Stamped, tag="header", frozen=True, kw_only=True):
    """First line of every stream. ``config``: the tool's settings, for users and reports.

    Of a drill also: its name (``drill``), the ``command`` as typed, both without secrets; ``utc`` is ``t`` in readable
    form; ``anonymous``: the names of machines were left out.
    """

    schema: int = SCHEMA
    tool: str
    version: str
    pid: int = 0
    config: dict[str, Any] = msgspec.field(default_factory=dict)
    drill: str = ""
    utc: str = ""
    command: str = ""
    machine: Machine | None = None
    anonymous: bool = False

    # ``schema`` must always be written, although it has a default
    def __post_init__(self) -> None:
        if self.schema < 1:
            raise ValueError("schema must be 1 or more")


class Heartbeat(Stamped, tag="heartbeat", frozen=True, kw_only=True):
    """A tool's measurement of itself over the last interval: its largest lag behind its own plan or the kernel.

    ``begun``, ``skipped``: a prober's attempts since its start, and those that were planned and not made. ``open``: a
    prober's attempts without a reply yet. ``full``: connections that a far end had to close, or could not accept,
    because there were too many.
    """

    tool: str
    interval_ns: int
    max_lag_ns: int = 0
    cpu_ns: int = 0
    detail: str = ""
    begun: int = 0
    skipped: int = 0
    full: int = 0
    open: int = 0


class Attempts(Stamped, tag="attempts", frozen=True, kw_only=True):
    """Counts of attempts *begun* in ``[t, t + interval_ns)``, written once all of them have ended.

    ``ok + lost + undecided == sent``; ``undecided`` only where the prober was asked to end at once. ``delayed``:
    answered, but only after a retry. ``leaked``: answered, un-translated. ``latency_*_ns`` are over those that were
    answered.
    """

    interval_ns: int
    kind: Kind
    family: FamilyName
    sent: int
    ok: int
    lost: int = 0
    undecided: int = 0
    delayed: int = 0
    leaked: int = 0
    max_lag_ns: int = 0
    latency_p50_ns: int = 0
    latency_p99_ns: int = 0
    latency_max_ns: int = 0


class Loss(Stamped, tag="loss", frozen=True, kw_only=True):
    """A failed attempt: ``t`` when its first packet was really sent, ``planned`` when it should have been, ``end``
    when it was given up."""

    kind: Kind
    family: FamilyName
    src: str
    sport: int
    dst: str
    dport: int
    planned: int
    end: int
    cause: Cause
    tries: int = 1
    detail: str = ""


class Recovery(Stamped, tag="recovery", frozen=True, kw_only=True):
    """A lost flow that was retried: when it was answered after all, or (``recovered`` false) how long it was watched
    without an answer. ``duration_ns`` counts from the flow's first packet."""

    kind: Kind
    family: FamilyName
    src: str
    sport: int
    dst: str
    dport: int
    begin: int
    duration_ns: int
    recovered: bool


class StreamBreak(Stamped, tag="stream_break", frozen=True, kw_only=True):
    """A long-lived stream that stopped: ``begin`` when it was opened, ``t`` when it was found broken."""

    family: FamilyName
    src: str
    sport: int
    dst: str
    dport: int
    begin: int
    stalled_ns: int = 0
    detail: str = ""


class Leak(Stamped, tag="leak", frozen=True, kw_only=True):
    """A packet that arrived at the far end (or left the node) with a pod source address."""

    kind: Kind
    family: FamilyName
    src: str
    sport: int
    dst: str
    dport: int


class Phase(Stamped, tag="phase", frozen=True, kw_only=True):
    """The phases of a drill: baseline, round (with its number from 1), recovery, end."""

    phase: Literal["baseline", "round", "recovery", "end"]
    round: int = 0
    detail: str = ""


RestartCode = Literal["", "no_sign"]
"""``no_sign``: no sign shows that an agent restarted; more restarts of this kind would prove as little."""


class Restart(Stamped, tag="restart", frozen=True, kw_only=True):
    """A step of an agent's restart. ``evidence``: what shows that the agent ended or began: another process, container,
    pod or activation of a unit. ``code``: why a step failed."""

    step: Literal["stop", "killed", "exited", "started", "ready", "unready", "failed"]
    round: int = 0
    pid: int = 0
    method: str = ""
    detail: str = ""
    evidence: str = ""
    code: RestartCode = ""


class Summary(Stamped, tag="summary", frozen=True, kw_only=True):
    """Last line of a tool's stream: its totals. If it is missing, the stream was cut off."""

    tool: str
    totals: dict[str, int] = msgspec.field(default_factory=dict)
    detail: str = ""


class Note(Stamped, tag="note", frozen=True, kw_only=True):
    """A notice for users; ``level`` info, warning or error."""

    level: Literal["info", "warning", "error"]
    text: str
    code: str = ""


class Unknown(Stamped, tag="unknown", frozen=True, kw_only=True):
    """An event of a type that this version does not know, kept completely."""

    raw: dict[str, Any] = msgspec.field(default_factory=dict)


Event = (
    Header
    | Change
    | RuleState
    | Gap
    | Bridged
    | Standby
    | LostEvents
    | Heartbeat
    | Attempts
    | Loss
    | Recovery
    | StreamBreak
    | Leak
    | Phase
    | Restart
    | Summary
    | Note
    | Unknown
)

LONGEST = 1 << 20
"""Bytes of a line; our longest, a change of many rules with its writer, has some thousands."""

_DIGITS = re.compile(rb"[0-9]{19}")
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """One line of JSON, without the newline."""
    line = _encoder.encode(event)
    if isinstance(event, Header) and event.schema == SCHEMA:
        return line[:-1] + b',"schema":%d}' % SCHEMA
    return line


def decode(line: bytes | str) -> Event:
    """The event of one line; raises only ``msgspec.DecodeError`` (``ValidationError``), for a line that is not an
    event.

    Lines are refused, too, if they are longer or more deeply nested than any of ours, or contain a number beyond 64
    bits, which cannot be converted to a time.
    """
    if len(line) > LONGEST:
        raise msgspec.DecodeError(f"the line is longer than {LONGEST} bytes")
    try:
        event = _decode(line)
        text = line.encode() if isinstance(line, str) else line
        if _DIGITS.search(text) and not _fits(msgspec.to_builtins(event)):
            raise msgspec.ValidationError("a number is beyond 64 bits")
    except msgspec.DecodeError:
        raise
    except RecursionError as error:
        raise msgspec.DecodeError("the values nest too deep") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise msgspec.DecodeError(str(error) or type(error).__name__) from error
    return event


def _fits(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list):
        return all(map(_fits, value))
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 64


def _decode(line: bytes | str) -> Event:
    event: Event
    try:
        event = _decoder.decode(line)
    except msgspec.ValidationError:
        raw = msgspec.json.decode(line)
        if isinstance(raw, dict) and type(raw.get("t")) is int and isinstance(raw.get("type"), str):
            known = {kind.__struct_config__.tag for kind in Event.__args__}
            if raw["type"] not in known:
                event = Unknown(t=raw["t"], node=str(raw.get("node", "")), raw=raw)
                if shallow(raw):
                    return event
                raise msgspec.ValidationError("the values nest too deep") from None
        raise
    if isinstance(event, Unknown) and not shallow(event.raw):
        raise msgspec.ValidationError("the values nest too deep")
    return event
