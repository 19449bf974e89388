"""The journal: what the guard saw and did, one JSON object a line.

Promise: every record has ``t`` (Unix nanoseconds) and ``type``; numbers are counted by the kernel, not estimated; a
record is written when what it reports is over (a gap at its end); ``code`` is its reason for machines, and never
changes its meaning. Described in docs/guard.md. Next stage: ``journal`` keeps them, ``metrics`` counts them,
``kubernetes`` posts them.
"""

from __future__ import annotations

import msgspec

from hitless.guard.reasons import Code
from hitless.model.event_fields import FamilyName, Writer
from hitless.model.rule_events import Interval

__all__ = [
    "Followed",
    "ForwardGap",
    "GuardGap",
    "GuardNote",
    "Healed",
    "LeakSeen",
    "Partly",
    "Record",
    "Started",
    "Withdrawn",
    "encode",
]


class _Record(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    t: int


class Started(_Record, tag="started", frozen=True, kw_only=True):
    """The guard began: which primary, and what it found standing."""

    version: str
    primary: str
    mode: str
    found: str = ""


class Followed(_Record, tag="followed", frozen=True, kw_only=True):
    """The standby now does what the primary's rules do: ``why``."""

    family: FamilyName
    why: str
    code: Code | None = None
    networks: list[str]
    left_out: list[str] = []
    writer: Writer | None = None


class Withdrawn(_Record, tag="withdrawn", frozen=True, kw_only=True):
    """The standby translates nothing any more: ``why``."""

    family: FamilyName
    why: str
    code: Code | None = None


class GuardGap(Interval, tag="gap", frozen=True, kw_only=True):
    """A time in which the primary did not carry pod networks.

    ``covered``: the standby stood throughout. ``carried``: flows that it translated meanwhile (the family's counter).
    ``leaked``: packets that left un-translated. ``healed``: flows that were freed afterwards.
    """

    networks: list[str]
    covered: bool
    carried: int = 0
    leaked: int = 0
    healed: int = 0


class ForwardGap(Interval, tag="forward_gap", frozen=True, kw_only=True):
    """A time in which forwarding dropped pods' flows: the guard cannot bridge it, only report it."""

    networks: list[str]


class Partly(_Record, tag="partly", frozen=True, kw_only=True):
    """Some pods are cut off although others are not (``reason``), or none is any more (``reason`` empty)."""

    family: FamilyName
    pods: int = 0
    pods_not_carried: int = 0
    reason: str = ""


class Healed(_Record, tag="healed", frozen=True, kw_only=True):
    """Flows that had been bound without translation and were freed: how many, and the first of them."""

    family: FamilyName
    flows: int
    after: str
    took_ns: int = 0


class LeakSeen(_Record, tag="leak", frozen=True, kw_only=True):
    """Packets that left the node with a pod's address although they should have been translated."""

    family: FamilyName
    packets: int
    flows: list[str] = []


class GuardNote(_Record, tag="note", frozen=True, kw_only=True):
    """Something that users should know."""

    level: str
    text: str


Record = Started | Followed | Withdrawn | GuardGap | ForwardGap | Partly | Healed | LeakSeen | GuardNote

_encoder = msgspec.json.Encoder()


def encode(record: Record) -> bytes:
    """One line of JSON, without the newline."""
    return _encoder.encode(record)
