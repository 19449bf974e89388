"""What a user can choose about a watch."""

from __future__ import annotations

from dataclasses import dataclass

from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.families import Backend, Family, Network
from hitless.watch.profiles import Profile
from hitless.watch.schedule import VERIFY_S

__all__ = ["WatchOptions"]


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """What to watch. ``networks`` empty: those of the profile, else those that the rules name; ``backends`` and
    ``families`` empty: those of the profile; ``uplink`` empty: the profile's, else the one that the routes choose.
    ``heartbeat_s`` 0: none. ``all_changes``: report changes that are relevant to no packet, too. ``duration_s``
    ``None``: until ``stop``. ``urgent``: run with a real-time priority."""

    profile: Profile
    namespace: Namespace = HERE
    networks: tuple[Network, ...] = ()
    uplink: str = ""
    backends: frozenset[Backend] = frozenset()
    families: tuple[Family, ...] = ()
    heartbeat_s: float = 1.0
    verify_s: float = VERIFY_S
    duration_s: float | None = None
    all_changes: bool = False
    receive_buffer: int = 8 << 20
    urgent: bool = True
