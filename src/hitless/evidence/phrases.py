"""Phrases that the reasons of a verdict share: numbers with their nouns, durations, causes of losses, rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from hitless.evidence.losses import ExplainedLoss
from hitless.evidence.settings import Settings

__all__ = ["by_number", "causes", "duration", "in_rounds", "plural"]

_Key = TypeVar("_Key", bound=str)

_WHY = {
    "gap": "in a gap",
    "poisoned": "poisoned: dead after the rules were back",
    "refused": "refused",
    "timeout": "no answer although the rules carried them",
    "unreachable": "unreachable",
    "far_end_down": "the far end was down",
    "far_end_full": "the far end was full",
    "starved": "the prober was starved",
    "error": "ended in an error",
}


def plural(number: int, noun: str) -> str:
    """``1 gap``, ``2,000 gaps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(ms: float) -> str:
    """Milliseconds as text: ``48.1 ms``, ``3.2 s``."""
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.1f} ms"


def causes(losses: Iterable[ExplainedLoss], settings: Settings) -> str:
    """Why attempts were lost, the most frequent cause first: ``12 in a gap, 3 refused``."""
    counted = Counter(one.cause for one in losses)
    # an error may be the prober's own or an answer such as HTTP 503: the detail shows which
    details = Counter(one.loss.detail for one in losses if one.cause == "error" and one.loss.detail)
    mostly = f": {by_number(details)[0][0]}" if details else ""
    return ", ".join(
        f"{number:,} {_why(cause, by_traffic=settings.by_traffic)}{mostly if cause == 'error' else ''}"
        for cause, number in by_number(counted)
    )


def _why(cause: str, *, by_traffic: bool) -> str:
    return "no answer" if cause == "timeout" and by_traffic else _WHY[cause]


def by_number(counted: Mapping[_Key, int]) -> list[tuple[_Key, int]]:
    """The most frequent first, then by name, so that the order in which streams arrived does not matter."""
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))


def in_rounds(numbers: Sequence[int]) -> str:
    """``round 3``, ``rounds 1, 2, 3, 4, 5…``."""
    listed = ", ".join(str(number) for number in numbers[:5]) + ("…" if len(numbers) > 5 else "")
    return f"round{'' if len(numbers) == 1 else 's'} {listed}"
