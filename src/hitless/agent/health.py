"""Is this node's egress path in order? The one place that answers /readyz.

Problem: a readiness that is set once and never turns back is a lie. Promise: ready means that the last comparison is
recent, found (or made) everything as it should be, and that the evaluator does not say that pods' packets are refused
or go out un-translated; anything else is not ready, with every reason in words. Health (/healthz) means that the loop
turns. What is not known is ``cannot_tell``, and never a reason not to be ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["UNREAD", "Health"]

UNREAD = "all rules of the node are still being read; so far only flannel's and those in the same chains are known"

_LONG = 3.0  # seconds of reading that are worth a word
_LATE = 30.0  # seconds; the loop says that it turns every second


@dataclass(slots=True)
class Health:
    """Written by the loop, read by the server. ``stale_after`` seconds without a comparison is not ready; ``turned`` is
    when the event loop last ran, for the server has a thread of its own; ``overlay``: why pods of other nodes are not
    all reached."""

    stale_after: float
    waiting_for: str = "the first comparison with the kernel"
    last_pass: float | None = None
    problems: tuple[str, ...] = ()
    not_carried: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)  # families of which it cannot be told, and why
    asked_since: float | None = None  # what becomes of the pods' packets is being asked since then
    fighting: tuple[str, ...] = ()
    turned: float | None = None
    overlay: tuple[str, ...] = ()
    outer: str = ""  # why peers cannot reach this node: its address, or the interface of it, is gone
    configuration: str = ""  # why a restart would do something else
    leases: str = ""  # why the source of leases cannot be asked; what it told last goes on

    def reasons(self, now: float) -> tuple[str, ...]:
        """Why this node is not ready; empty: it is."""
        if self.last_pass is None:
            return (f"waiting for {self.waiting_for}", *self.problems, *self.overlay)
        found = list(self.problems)
        age = now - self.last_pass
        if age > self.stale_after:
            found.append(f"the last comparison was {age:.0f} s ago")
        found += [f"{family}: {why}" for family, why in self.not_carried.items()]
        found += self.overlay
        found += [f"overlay: {self.outer}"] if self.outer else []
        return tuple(found)

    def cannot_tell(self, now: float) -> tuple[str, ...]:
        """What is not known, and why."""
        found = [f"{family}: {why}" for family, why in self.doubtful.items()]
        since = self.asked_since
        if since is not None and now - since > _LONG and UNREAD not in self.doubtful.values():
            found.append(f"rules: being read again for {now - since:.0f} s; the answers are from before")
        if self.leases:
            found.append(f"leases: {self.leases}")
        if self.configuration:
            found.append(f"configuration: {self.configuration}")
        return tuple(found)

    def alive(self, now: float) -> bool:
        """Whether the event loop turns, and compares (or waits for a first comparison)."""
        if self.turned is not None and now - self.turned > _LATE:
            return False
        return self.last_pass is None or now - self.last_pass <= max(60.0, 4 * self.stale_after)
