"""Reads and writes instants and durations.

Promise: ``length`` reads ``2h``, ``90m``, ``1h30m``, ``1d``; ``moment`` reads an instant with its offset (RFC 3339);
``utc`` and ``span`` write them. Whatever else is given is refused with ``InputError``. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hitless.errors import InputError
from hitless.model.reading import shown

__all__ = ["EARLIEST", "LATEST", "length", "moment", "span", "utc"]

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_LENGTH = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,5})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,7})s)?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)

EARLIEST = int(datetime(1970, 1, 2, tzinfo=UTC).timestamp())
LATEST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
"""Between these, every zone's local time can be expressed in Python."""

EXPECTED_LENGTH = "a duration such as 2h, 90m or 1h30m"
EXPECTED_MOMENT = "an instant with its offset, such as 2026-03-23T00:00:00Z, from 1970 to 2199"


def length(text: object, *, where: str) -> int:
    """Seconds of a duration, more than none."""
    found = _LENGTH.fullmatch(text) if isinstance(text, str) and text else None
    if found is None:
        raise InputError(f"{shown(text)} is not a duration", where=where, expected=EXPECTED_LENGTH)
    seconds = sum(int(number) * unit for number, unit in zip(found.groups(), _UNITS.values(), strict=True) if number)
    if not seconds:
        raise InputError(f"{shown(text)} is zero", where=where, expected=EXPECTED_LENGTH)
    return seconds


def moment(text: object, *, where: str) -> int:
    """Unix seconds of an instant."""
    if isinstance(text, str):
        try:
            found = datetime.fromisoformat(text.upper()) if _MOMENT.fullmatch(text) else None
        except ValueError:  # the 30th of February
            found = None
    else:
        found = text if isinstance(text, datetime) and text.tzinfo is not None else None  # TOML's own
    try:
        seconds = int(found.timestamp()) if found is not None else -1
    except (ValueError, OverflowError):
        seconds = -1
    if not EARLIEST <= seconds < LATEST:
        raise InputError(f"{shown(text)} is not an instant", where=where, expected=EXPECTED_MOMENT)
    return seconds


def utc(seconds: int) -> str:
    """``2026-03-29T10:00:00Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span(seconds: int) -> str:
    """``1h30m``, ``2d``; without seconds from an hour on."""
    if seconds >= 3600:
        seconds -= seconds % 60
    parts = []
    for name, unit in _UNITS.items():
        number, seconds = divmod(seconds, unit)
        if number:
            parts.append(f"{number}{name}")
    return "".join(parts) or "0s"
