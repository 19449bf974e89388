"""Freeing connections that were bound without translation. The agent and the guard use it; it writes no rules."""

from hitless.heal.flows import ConntrackPort, heal, poisoned

__all__ = ["ConntrackPort", "heal", "poisoned"]
