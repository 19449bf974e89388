"""What an agent is called where people read.

Problem: the lab's ``flannel-0.28`` runs flannel's commands and is not flanneld; a table, a page or a CI report that
calls it flannel says something untrue. Promise: ``display`` is the one name that every report shows, with "(stand-in)"
behind those that are; the key in logs, options and JSON stays what it was. The drill's header says which agents are
stand-ins and what each replays; of logs that are older than that, the names tell. Next stage: ``verdict`` and
``reports``.
"""

from __future__ import annotations

from hitless.evidence.settings import Settings

__all__ = ["GUARDED", "REAL_ONE", "bare", "display", "replays"]

GUARDED = "+guard"
"""Ends the key of a row that has ``hitless guard`` beside the agent."""

REAL_ONE = (
    "hitless drill --agent-command '/PATH/flanneld --healthz-port=10248 …' --ready-http http://127.0.0.1:10248/readyz"
)
"""How to test the program itself."""

_BEFORE = frozenset({"flannel-0.26", "flannel-0.28", "flannel-0.28-canal", "adopter"})
"""The stand-ins of versions whose header did not name them."""


def replays(settings: Settings, agent: str) -> str:
    """What the stand-in does that an agent's key names; empty when it is no stand-in."""
    base = agent.removesuffix(GUARDED)
    if settings.stand_ins is None:
        return "an agent's commands" if settings.target == "lab" and base in _BEFORE else ""
    return dict(settings.stand_ins).get(base, "")


def bare(name: str) -> str:
    """A display name without what stands behind it: ``flannel-0.28``."""
    return name.partition(" (stand-in)")[0]


def display(settings: Settings, agent: str) -> str:
    """The agent's name for people."""
    others = ", ".join(f"{name} on {node}" for node, name in settings.mixed)
    mixed = f" with {others}" if others else ""
    if not replays(settings, agent):
        return agent + mixed
    base = agent.removesuffix(GUARDED)
    return f"{base} (stand-in)" + (" + guard" if base != agent else "") + mixed
