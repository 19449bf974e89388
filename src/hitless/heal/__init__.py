"""Frees connections that were bound without translation. Used by agent and guard; writes no rules."""

from hitless.heal.flows import ConntrackPort, heal, poisoned

__all__ = ["ConntrackPort", "heal", "poisoned"]
