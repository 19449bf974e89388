"""The common parts of events: node and family, the closed choices of their fields, the writer of a rule.

Next stage: ``events``, which defines the event types and reads them.
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
"""The transport protocol of each kind of traffic."""
State = Literal["carried", "not_carried", "cannot_tell"]
Code = Literal["", "dropped", "rejected", "untranslated", "unanswered"]
"""How packets are lost: dropped or rejected by a rule, sent out with the pod's own address, or without a reply. Empty:
they are not lost, or it is not known.
"""
Cause = Literal[
    "gap", "poisoned", "refused", "timeout", "unreachable", "far_end_down", "far_end_full", "starved", "error"
]
"""Why an attempt failed. The prober itself detects refused, timeout, unreachable, starved and error; gap, poisoned,
far_end_down and far_end_full are derived by ``hitless.evidence`` from the other streams.
"""


class Writer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process that committed a rule change: pid, command name; ``argv`` and the command name of its ``parent`` (for
    example the program that ran iptables) if /proc still had them. ``pid`` 0: unknown."""

    pid: int
    comm: str
    argv: str = ""
    parent: str = ""


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The machine that a tool ran on; empty where it is not known. ``host`` is its name, ``iptables`` and ``nft`` are
    versions."""

    host: str = ""
    kernel: str = ""
    arch: str = ""
    cpus: int = 0
    cpu: str = ""
    os: str = ""
    iptables: str = ""
    nft: str = ""


class Stamped(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True, kw_only=True):
    """``node``, ``agent`` and ``stream`` are filled in when streams are merged; ``stream`` names the tool's run: watch,
    probe, farend, or control… for a probe that does not pass the egress path."""

    t: int
    node: str = ""
    agent: str = ""
    stream: str = ""
