"""The zone of the times that a view shows, printed once at its beginning."""

from __future__ import annotations

from datetime import datetime

__all__ = ["zone"]


def zone(t: int) -> str:
    """``UTC`` or ``UTC+01:00``: what this machine's clock showed at ``t`` (Unix nanoseconds)."""
    offset = datetime.fromtimestamp(t // 1_000_000_000).astimezone().strftime("%z")
    return "UTC" if offset in ("+0000", "-0000") else f"UTC{offset[:3]}:{offset[3:5]}"
