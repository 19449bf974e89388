"""What ``hitless guard status`` reads while a guard runs: its facts, and the file that they are in.

Promise: the file is replaced whole, when something in it changed; else its time is set every ten seconds, so that
readers see by it that the loop runs. A disk that is full costs the file and no more. Next stage: ``status``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from hitless.guard.reasons import GuardState
from hitless.guard.side import Side
from hitless.kernel import files
from hitless.kernel.nftables.owned import Owner
from hitless.model.families import Family

__all__ = ["Numbers", "StandbyHolder", "StateFile", "family_facts"]

_TOUCH = 10.0  # seconds between marks that the loop turns


class StandbyHolder(Protocol):
    """Who holds the standby's tables."""

    def owner(self, family: Family) -> Owner | None:
        """How the kernel holds the family's table."""


@dataclass(slots=True)
class Numbers:
    """Totals of one family."""

    gaps: dict[str, int] = field(default_factory=dict)  # by writer
    gap_ns: int = 0
    longest_gap_ns: int = 0
    uncovered: int = 0
    forward_gaps: int = 0
    forward_gap_ns: int = 0
    carried: int = 0
    leaked: int = 0
    healed: int = 0
    followed: int = 0
    withdrawn: int = 0


class StateFile:
    """One file, or none."""

    def __init__(self, path: Path | None, monotonic: Callable[[], float]) -> None:
        self._path, self._monotonic = path, monotonic
        self._written: dict[str, object] = {}
        self._touch_due = 0.0
        self.problem = ""

    def write(self, facts: dict[str, object]) -> None:
        """Make the file hold this."""
        if self._path is None:
            return
        now = self._monotonic()
        if facts == self._written:  # most of the time: nothing is encoded
            if now >= self._touch_due:
                self._touch_due = now + _TOUCH
                with suppress(OSError):
                    os.utime(self._path)
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            data = json.dumps(facts, indent=1).encode()
            files.replace(self._path, data, mode=0o600, durable=False)
            self._written, self.problem, self._touch_due = facts, "", now + _TOUCH
        except OSError as error:
            self.problem = f"{self._path}: {error.strerror or error}"

    def remove(self) -> None:
        """The guard ended in order."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def family_facts(side: Side, numbers: Numbers, holder: StandbyHolder | None) -> dict[str, object]:
    """A family as ``hitless guard status --json`` shows it. ``holder`` ``None``: the guard only observes."""
    installed = side.installed
    owner = holder.owner(side.family) if holder is not None else None
    state, why = _state(side, observing=holder is None), side.withdrawn or side.why
    gap = side.egress.open
    return {
        "state": state.value,
        "code": state.code,
        "why": str(why),
        "why_code": why.code.value,
        "networks": [str(network) for network in installed.networks] if installed is not None else [],
        "left_out": [str(one) for one in installed.left_out] if installed is not None else [],
        "protected": owner is not None and owner.protected,
        "doubt": side.doubt,
        "forward_doubt": side.forward_doubt,
        "partly": side.partly,
        "pods": side.pods,
        "pods_not_carried": side.kept,
        "gap_since": gap.begin if gap is not None else 0,
        "gaps": sum(numbers.gaps.values()),
        "gaps_by_writer": dict(numbers.gaps),
        "uncovered_gaps": numbers.uncovered,
        "gap_ms": numbers.gap_ns // 1_000_000,
        "longest_gap_ms": numbers.longest_gap_ns // 1_000_000,
        "forward_gap_since": side.forward.open.begin if side.forward.open is not None else 0,
        "forward_reason": side.forward.open.reason if side.forward.open is not None else "",
        "forward_gaps": numbers.forward_gaps,
        "carried": numbers.carried,
        "leaked": numbers.leaked,
        "healed": numbers.healed,
    }


def _state(side: Side, *, observing: bool) -> GuardState:
    installed = side.installed
    if side.withdrawn or side.decider.withdrawn or (side.unclear and installed is None):
        return GuardState.WITHDRAWN
    if side.open:
        return GuardState.CARRYING if installed is not None and not observing else GuardState.GAP
    if installed is not None:
        return GuardState.WATCHING if observing else GuardState.STANDING_BY
    return GuardState.WAITING
