"""The events of the rules' watch: changes, their effect, gaps, and what a guard's standby carried.

``events`` re-exports, reads and writes them.
"""

from __future__ import annotations

from hitless.model.event_fields import Code, FamilyName, Stamped, State, Writer

__all__ = ["Bridged", "Change", "Gap", "Interval", "LostEvents", "RuleState", "Standby"]


class Change(Stamped, tag="change", frozen=True, kw_only=True):
    """A committed change of watched tables: one transaction. ``summary`` describes it, bounded in length.

    ``relevant``: it touched a chain that a witness packet passes.
    """

    family: FamilyName
    backend: str
    table: str
    writer: Writer | None = None
    generation: int = 0
    added: int = 0
    removed: int = 0
    summary: str = ""
    relevant: bool = True


class RuleState(Stamped, tag="state", frozen=True, kw_only=True):
    """What the committed rules do now to the witness packets of ``network`` (a pod network). Written at start and at
    each change of the answer. ``pods``: how many of its pods were evaluated (0: there is none, or the answer was clear
    before). ``partly``: which of them, or which next one, is not carried although others are."""

    family: FamilyName
    network: str
    state: State
    code: Code = ""
    reason: str = ""
    writer: Writer | None = None
    generation: int = 0
    pods: int = 0
    pods_not_carried: int = 0
    pods_unknown: int = 0
    partly: str = ""


class Interval(Stamped, frozen=True, kw_only=True):
    """A time in which pods' packets were lost, or would have been: the one record of it, for watch, guard and agent.

    Written at its end (``t == end``); ``open`` if it had not ended then. ``code``: how packets were lost; ``reason``:
    by which rules, for users.
    """

    family: FamilyName
    begin: int
    end: int
    code: Code = ""
    reason: str = ""
    opened_by: Writer | None = None
    closed_by: Writer | None = None
    open: bool = False

    @property
    def lasted_ns(self) -> int:
        """How long it lasted, as far as it is known."""
        return self.end - self.begin


class Gap(Interval, tag="gap", frozen=True, kw_only=True):
    """A time in which the rules did not carry a network's egress."""

    network: str


class Bridged(Interval, tag="bridged", frozen=True, kw_only=True):
    """A time in which the rules of other programs did not carry a network, and a guard's standby did."""

    network: str


class Standby(Stamped, tag="standby", frozen=True, kw_only=True):
    """A guard's standby on the node: at start, when it appears or disappears, and at the end. ``guard``: a running
    guard owns it; ``flows``: how many it has carried since it was written."""

    family: FamilyName
    present: bool = True
    guard: bool = False
    flows: int = 0


class LostEvents(Stamped, tag="lost_events", frozen=True, kw_only=True):
    """Rule events are missing (the kernel dropped them, ENOBUFS, or commits came during a full read); what happened
    until ``resynced`` is not known."""

    resynced: int = 0
    detail: str = ""
