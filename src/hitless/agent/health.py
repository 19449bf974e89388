"""The agent's health and readiness: what /healthz and /readyz report.

Problem: a readiness that is set once and never withdrawn misleads. Promise: a node is ready while the last comparison
is recent and left the rules as desired, and the evaluation does not find that pods' packets are refused or leave
untranslated. Otherwise it is not ready, and every reason is given. Healthy means that the loop is running. What is not
known is listed as ``cannot_tell``, and does not make a node unready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["UNREAD", "Health"]

UNREAD = "all rules of the node are still being read; so far only flannel's and those in the same chains are known"

_LONG = 3.0  # seconds of reading that are worth reporting
_LATE = 30.0  # seconds; ``turned`` is set every second


@dataclass(slots=True)
class Health:
    """Written by the loop, read by the server's thread. A node is not ready after ``stale_after`` seconds without a
    comparison. ``turned``: when the event loop last ran; ``overlay``: why not all pods of other nodes are reached."""

    stale_after: float
    waiting_for: str = "the first comparison with the kernel"
    last_pass: float | None = None
    problems: tuple[str, ...] = ()
    not_carried: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)  # families of which it is not known, and why
    asked_since: float | None = None  # when the running evaluation began
    fighting: tuple[str, ...] = ()
    turned: float | None = None
    overlay: tuple[str, ...] = ()
    outer: str = ""  # why peers cannot reach this node: its address, or the interface of it, is gone
    configuration: str = ""  # why a restart would use another configuration
    leases: str = ""  # why the source of leases cannot be reached; its last leases stay in use

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
        """Whether the event loop runs, and compares (or waits for its first comparison)."""
        if self.turned is not None and now - self.turned > _LATE:
            return False
        return self.last_pass is None or now - self.last_pass <= max(60.0, 4 * self.stale_after)
