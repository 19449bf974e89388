"""Sentences and signs that all reports share, so that they say the same."""

from __future__ import annotations

from datetime import UTC, datetime

from hitless.evidence import display_names
from hitless.evidence.doubts import not_sent
from hitless.evidence.figures import Figures, milliseconds
from hitless.evidence.phrases import duration, plural
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = [
    "SIGNS", "bridged", "duration", "headline", "leaked", "longest", "moment", "of", "plural", "recovery",
    "shown_settings", "stand_ins", "titles",
]  # fmt: skip

SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}

titles = {"pass": "pass", "fail": "fail", "inconclusive": "inconclusive"}

_SHOWN = (
    "target",
    "nodes",
    "overlay",
    "underlay",
    "restart",
    "at_once",
    "replace_by",
    "rounds",
    "families",
    "backend",
    "services",
    "rate",
    "kinds",
    "judge",
)
"""The settings that reports show, in this order; all others are in the log."""


def moment(t: int) -> str:
    """A time as text, in UTC."""
    return datetime.fromtimestamp(t // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def of(lost: int, attempted: int) -> str:
    """``3 of 12,000``."""
    return f"{lost:,} of {attempted:,}"


def longest(figures: Figures) -> str:
    """The longest gap, or a dash."""
    return duration(figures.longest_gap_ms) if figures.gaps else "–"


def bridged(figures: Figures) -> str:
    """What a guard's standby bridged: ``5 gaps, 312 flows``; a dash if there was no standby."""
    if not figures.standby:
        return "–"
    return f"{plural(figures.bridged_gaps, 'gap')}, {plural(figures.bridged_flows, 'flow')}"


def leaked(figures: Figures) -> str:
    """Packets that left with a pod's address; a dash if no far end of the drill could see them."""
    return f"{figures.leaked:,}" if figures.leaks_known else "–"


def recovery(figures: Figures) -> str:
    """How long the slowest poisoned flow was dead; with ``>`` if it had not recovered at the end."""
    if not figures.poisoned:
        return "–"
    return ("> " if figures.unrecovered else "") + duration(figures.slowest_recovery_ms)


def _result(agent: AgentVerdict) -> str:
    what = f"{agent.name} lost {of(agent.lost, agent.attempted)} connections over {plural(agent.restarts, 'restart')}"
    if agent.pod_to_pod.attempted:
        what += f", {of(agent.pod_to_pod.lost, agent.pod_to_pod.attempted)} from pod to pod on other nodes"
    if agent.gaps and not agent.lost:
        what += f" but left {plural(agent.gaps, 'gap')} in the rules"
    if agent.bridged_gaps or agent.bridged_flows:
        what += f" while a guard's standby bridged {bridged(agent)}"
    if agent.lost_outside:
        what += f", and {agent.lost_outside:,} more would have been lost to anything outside the cluster"
    if agent.undecided:
        what += f", {agent.undecided:,} undecided"
    return what + _not_sent(agent)


def _not_sent(agent: AgentVerdict) -> str:
    return f" ({agent.skipped:,} of {agent.asked:,} planned ones were not sent)" if not_sent(agent) else ""


def headline(verdict: Verdict) -> str:
    """The drill in one sentence: the judged agents first, then the others by their losses."""
    judged = [one for one in verdict.agents if one.agent in verdict.judged]
    others = sorted((one for one in verdict.agents if one not in judged), key=lambda one: -one.lost)
    ordered = [*judged, *others]
    if not ordered:
        return "The log names no agent."
    unclear = [f"{one.name}: could not tell{_not_sent(one)}" for one in judged if one.verdict == "inconclusive"]
    clear = [one for one in ordered if one not in judged or one.verdict != "inconclusive"]
    return "; ".join([*unclear, *(_result(one) for one in clear)]) + "."


def stand_ins(verdict: Verdict) -> str:
    """What the stand-ins in the table replay, and how to test the real program; empty if there are none."""
    found = {display_names.bare(one.name): one.replays for one in verdict.agents if one.stand_in}
    if not found:
        return ""
    what = "; ".join(f"{name} replays {text}" for name, text in found.items())
    return (
        f"A stand-in changes real rules and is not the program itself: {what}. The real one: {display_names.REAL_ONE}"
    )


def shown_settings(texts: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The settings that reports show, by name."""
    known = dict(texts)
    return [(key, known[key]) for key in _SHOWN if known.get(key)]


def since(t: int, begin: int) -> str:
    """Seconds after ``begin``, to the millisecond."""
    return f"{milliseconds(t - begin) / 1000:.3f} s"
