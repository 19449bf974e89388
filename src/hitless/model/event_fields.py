"""What every event of the log is made of: whom it is about, the choices of its words, who wrote a rule.

Next stage: ``events``, which has the types and reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

__all__ = ["TRANSPORTS", "Cause", "Code", "FamilyName", "Kind", "Machine", "Stamped", "State", "Writer"]

FamilyName = Literal["ipv4", "ipv6"]
Kind = Literal["tcp", "udp", "icmp", "http", "stream"]
TRANSPORTS: Mapping[Kind, Literal["tcp", "udp", "icmp"]] = {
    "tcp": "tcp",
    "udp": "udp",
    "icmp": "icmp",
    "http": "tcp",
    "stream": "tcp",
}
"""What each kind of traffic travels by."""
State = Literal["carried", "not_carried", "cannot_tell"]
Code = Literal["", "dropped", "rejected", "untranslated", "unanswered"]
"""How packets are lost: dropped or rejected by a rule, sent out with the pod's own address, or their answers do not
come back. Empty: they are not, or it cannot be told."""
Cause = Literal[
    "gap", "poisoned", "refused", "timeout", "unreachable", "far_end_down", "far_end_full", "starved", "error"
]
"""Why an attempt failed. The prober itself knows refused, timeout, unreachable, starved and error; gap, poisoned,
far_end_down and far_end_full are found by ``hitless.evidence`` from the other streams."""


class Writer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who committed a rule change: process id, command name; ``argv`` and the command name of its ``parent`` (whoever
    ran iptables, say) where /proc still had them. ``pid`` 0 = unknown."""

    pid: int
    comm: str
    argv: str = ""
    parent: str = ""


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a tool ran on; empty where it is not known. ``host`` is its name, ``iptables`` and ``nft`` are versions."""

    host: str = ""
    kernel: str = ""
    arch: str = ""
    cpus: int = 0
    cpu: str = ""
    os: str = ""
    iptables: str = ""
    nft: str = ""


class Stamped(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """``node``, ``agent`` and ``stream`` are filled in by whoever merges streams; ``stream`` names the tool's run:
    watch, probe, farend, or control… for a probe that does not pass the egress path."""

    t: int
    node: str = ""
    agent: str = ""
    stream: str = ""
