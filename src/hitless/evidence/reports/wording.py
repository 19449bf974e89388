"""The sentences and signs that all reports share, so that they tell the same story."""

from __future__ import annotations

from datetime import UTC, datetime

from hitless.evidence import display_names
from hitless.evidence.criteria import duration, not_sent, plural
from hitless.evidence.figures import Figures, milliseconds
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = [
    "SIGNS", "bridged", "duration", "headline", "leaked", "longest", "moment", "of", "plural", "recovery",
    "setting_words", "stand_ins", "titles",
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
"""Settings worth a reader's first look, in this order; the rest stands in the log."""


def moment(t: int) -> str:
    """A time for people, in UTC."""
    return datetime.fromtimestamp(t // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def of(lost: int, attempted: int) -> str:
    """``3 of 12,000``."""
    return f"{lost:,} of {attempted:,}"


def longest(figures: Figures) -> str:
    """The longest gap, or a dash."""
    return duration(figures.longest_gap_ms) if figures.gaps else "–"


def bridged(figures: Figures) -> str:
    """What a guard's standby bridged: ``5 gaps, 312 flows``; a dash where none was on the node."""
    if not figures.standby:
        return "–"
    return f"{plural(figures.bridged_gaps, 'gap')}, {plural(figures.bridged_flows, 'flow')}"


def leaked(figures: Figures) -> str:
    """Packets that left with a pod's address; a dash where no far end of the drill could see them."""
    return f"{figures.leaked:,}" if figures.leaks_known else "–"


def recovery(figures: Figures) -> str:
    """How long the slowest poisoned flow was dead; ``>`` when it was not seen to recover."""
    if not figures.poisoned:
        return "–"
    return ("> " if figures.unrecovered else "") + duration(figures.slowest_recovery_ms)


def _told(agent: AgentVerdict) -> str:
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
    return what + _unsent(agent)


def _unsent(agent: AgentVerdict) -> str:
    return f" ({agent.skipped:,} of {agent.asked:,} planned ones were not sent)" if not_sent(agent) else ""


def headline(verdict: Verdict) -> str:
    """The drill in one sentence: the judged agent first, then the others, the worst first."""
    judged = [one for one in verdict.agents if one.agent in verdict.judged]
    others = sorted((one for one in verdict.agents if one not in judged), key=lambda one: -one.lost)
    told = [*judged, *others]
    if not told:
        return "The log names no agent."
    unclear = [f"{one.name}: could not tell{_unsent(one)}" for one in judged if one.verdict == "inconclusive"]
    clear = [one for one in told if one not in judged or one.verdict != "inconclusive"]
    return "; ".join([*unclear, *(_told(one) for one in clear)]) + "."


def stand_ins(verdict: Verdict) -> str:
    """What the stand-ins in the table are, and how to test the real program; empty without one."""
    found = {display_names.bare(one.name): one.replays for one in verdict.agents if one.stand_in}
    if not found:
        return ""
    what = "; ".join(f"{name} replays {text}" for name, text in found.items())
    return (
        f"A stand-in changes real rules and is not the program itself: {what}. The real one: {display_names.REAL_ONE}"
    )


def setting_words(words: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    """The settings that a reader looks for first."""
    known = dict(words)
    return [(key, known[key]) for key in _SHOWN if known.get(key)]


def since(t: int, begin: int) -> str:
    """Seconds after the beginning, to the millisecond."""
    return f"{milliseconds(t - begin) / 1000:.3f} s"
