"""Checks of measuring tools that excused a miss by the tool's own lateness: counted, and reported at the end of a run.

A drill on a machine that stood still may see nothing, and then its test cannot fail. That is allowed, but never in
silence: the summary of a run says how many checks were excused, and what for. ``tests/conftest.py`` gathers the counts
of xdist's workers.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["CHECKS", "check", "lines"]

CHECKS: Counter[str] = Counter()
"""Checks that could have been excused (``checks``), and those that were, by the reason."""


def check(holds: bool, excuse: bool, reason: str) -> bool:
    """Whether a check passes: as it holds, or as the tool was late. The second is counted."""
    CHECKS["checks"] += 1
    if not holds and excuse:
        CHECKS[reason] += 1
    return holds or excuse


def lines(checks: Counter[str]) -> list[str]:
    """The report; empty where there was no such check."""
    if not checks["checks"]:
        return []
    excused = {reason: count for reason, count in sorted(checks.items()) if reason != "checks"}
    told = f"{sum(excused.values())} of {checks['checks']} checks of measuring tools were excused by their own lateness"
    return [told, *(f"  {count}: {reason}" for reason, count in excused.items())]
