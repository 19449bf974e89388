"""Local times become instants: one rule for both changes of daylight saving.

Promise (RFC 5545, 3.3.5): a local time that a change skips is taken with the offset from before the change, so that
02:30 on the night when 02:00 becomes 03:00 is 03:30; of a local time that comes twice the first is meant. A day begins
with its first instant. Durations are elapsed time and never pass by here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hitless.errors import InputError, MissingError
from hitless.model.reading import shown

__all__ = ["instant", "local", "midnight", "zone"]

_EXPECTED = "a zone of the IANA database, such as Europe/Berlin or UTC"
_LONGEST = 64


def zone(name: object, *, where: str) -> ZoneInfo:
    """The zone of this name; raises ``InputError``."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isascii() or not name.isprintable():
        raise InputError(f"{shown(name)} is not a time zone", where=where, expected=_EXPECTED)
    if name in ("localtime", "posixrules", "Factory"):  # this machine's own setting would mean another zone elsewhere
        raise InputError(f"{name} is not a zone that means the same everywhere", where=where, expected=_EXPECTED)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError) as error:
        _has_zones()
        raise InputError(f"there is no time zone {shown(name)}", where=where, expected=_EXPECTED) from error


def _has_zones() -> None:
    try:
        ZoneInfo("Europe/Berlin")
    except (ValueError, OSError, LookupError) as error:
        raise MissingError(
            "this machine has no time zones", remedy="install Debian's tzdata, or pip install 'hitless[windows]'"
        ) from error


def instant(when: datetime, place: ZoneInfo) -> int:
    """Unix seconds of a local time; the first of two, and with the offset from before where a change skips it."""
    return int(when.replace(tzinfo=place, fold=0).timestamp())


def local(at: int, place: ZoneInfo) -> datetime:
    """The local time at an instant."""
    return datetime.fromtimestamp(at, UTC).astimezone(place).replace(tzinfo=None, fold=0)


def midnight(day: date, place: ZoneInfo, *, days: int = 0) -> int:
    """The first instant of a day, or of one some ``days`` later."""
    return instant(datetime.combine(day, time()) + timedelta(days=days), place)
