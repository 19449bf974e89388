"""The names of agents in reports.

Problem: the lab's ``flannel-0.28`` runs flannel's commands but is not flanneld, and reports must not call it flannel.
Promise: every report shows the name that ``display`` returns, with "(stand-in)" where it applies; keys in logs, options
and JSON do not change. The drill's header lists the stand-ins and what each replays; for logs of earlier versions, the
names decide. Next stage: ``verdict`` and ``reports``.
"""

from __future__ import annotations

from hitless.evidence.settings import Settings

__all__ = ["GUARDED", "REAL_ONE", "bare", "display", "replays"]

GUARDED = "+guard"
"""Suffix of the key of a row with ``hitless guard`` beside the agent."""

REAL_ONE = (
    "hitless drill --agent-command '/PATH/flanneld --healthz-port=10248 …' --ready-http http://127.0.0.1:10248/readyz"
)
"""How to test the real program."""

_EARLIER = frozenset({"flannel-0.26", "flannel-0.28", "flannel-0.28-canal", "adopter"})
"""The stand-ins of earlier versions, whose header did not list them."""


def replays(settings: Settings, agent: str) -> str:
    """What a stand-in replays; empty if the agent is not a stand-in."""
    base = agent.removesuffix(GUARDED)
    if settings.stand_ins is None:
        return "an agent's commands" if settings.target == "lab" and base in _EARLIER else ""
    return dict(settings.stand_ins).get(base, "")


def bare(name: str) -> str:
    """A display name without its suffixes: ``flannel-0.28``."""
    return name.partition(" (stand-in)")[0]


def display(settings: Settings, agent: str) -> str:
    """The agent's name in reports."""
    others = ", ".join(f"{name} on {node}" for node, name in settings.mixed)
    mixed = f" with {others}" if others else ""
    if not replays(settings, agent):
        return agent + mixed
    base = agent.removesuffix(GUARDED)
    return f"{base} (stand-in)" + (" + guard" if base != agent else "") + mixed
