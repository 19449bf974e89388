"""RFC 5545 recurrences, by python-dateutil, within bounds.

Problem: dateutil takes a rule that never happens and searches for it until the year 9999 (hours, for FREQ=HOURLY), and
takes what a rule does not name (the weekday, e.g.) from a start that it invents. Promise: ``rule`` reads a rule whole
or refuses it with its part. Parts that only restrict days are judged here, on a stream of dateutil's that never runs
dry; COUNT and UNTIL too, because they count what is left. Without ``start`` a rule must say its day, and must not
depend on where it is counted from. Next stage: ``openings``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hitless.errors import InputError, MissingError
from hitless.model.reading import shown

__all__ = ["RecurrenceRule", "rule"]

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY")
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_NUMBERS: Mapping[str, tuple[int, int, bool]] = {
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 0, False),
    "BYSETPOS": (1, 366, True),
}
_PARTS = ("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_NUMBERS)
_UNTIL = re.compile(r"([0-9]{8})(?:T([0-9]{6})(Z?))?")
_LONGEST = 1000
_MOST_OF_COUNT = 10_000
_BACK = {"YEARLY": 366 * 2, "MONTHLY": 62, "WEEKLY": 14, "DAILY": 2, "HOURLY": 2}
"""Days before the requested time at which a rule without a start is begun."""
_STEPS = {"WEEKLY": timedelta(weeks=1), "DAILY": timedelta(days=1), "HOURLY": timedelta(hours=1)}
"""Frequencies of one length in local time: a start can be moved by whole intervals."""


@dataclass(frozen=True, slots=True)
class RecurrenceRule:
    """A ``Recurrence``; ``parts``: for dateutil; ``months`` and so on restrict what it gives (empty: not)."""

    parts: str
    frequency: str
    interval: int = 1
    start: datetime | None = None
    count: int | None = None
    until: datetime | None = None
    months: frozenset[int] = frozenset()
    month_days: frozenset[int] = frozenset()
    week_days: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()

    def _fits(self, when: datetime) -> bool:
        if self.months and when.month not in self.months:
            return False
        if self.week_days and when.weekday() not in self.week_days:
            return False
        if self.hours and when.hour not in self.hours:
            return False
        if self.month_days:
            after = (when.replace(day=28) + timedelta(days=4)).replace(day=1)
            last = (after - timedelta(days=1)).day
            return when.day in self.month_days or when.day - last - 1 in self.month_days
        return True

    def _begin(self, first: datetime) -> datetime:
        """The start to give to dateutil, so that it yields everything from ``first`` on."""
        if self.start is None:
            return datetime.combine(first.date() - timedelta(days=_BACK[self.frequency]), time())
        step = _STEPS.get(self.frequency)
        if step is None or self.count is not None or first <= self.start:
            return self.start
        return self.start + (first - self.start) // (step * self.interval) * (step * self.interval)

    def starts(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """See ``Recurrence``."""
        from dateutil.rrule import rrulestr

        if self.until is not None:
            last = min(last, self.until)
        number = 0
        # a week that began before is whole again only from a week earlier: BYSETPOS counts in it
        begin = self._begin(first - timedelta(weeks=self.interval) if self.frequency == "WEEKLY" else first)
        for when in rrulestr(self.parts, dtstart=begin):
            if when > last:
                return
            if not self._fits(when):
                continue
            number += 1
            if self.count is not None and number > self.count:
                return
            if when >= first:
                yield when


def rule(text: object, *, start: datetime | None, where: str, place: ZoneInfo | None = None) -> RecurrenceRule:
    """Read a recurrence; ``start``: from where it is counted; ``place``: the zone of its times.

    Raises ``InputError``; ``MissingError`` without dateutil.
    """
    parts = _parts(text, where)
    frequency = parts["FREQ"]
    interval = _number(parts.get("INTERVAL", "1"), 1, 1000, f"{where}: INTERVAL")
    count = _number(parts["COUNT"], 1, _MOST_OF_COUNT, f"{where}: COUNT") if "COUNT" in parts else None
    if count is not None and "UNTIL" in parts:
        raise InputError("COUNT and UNTIL are both given", where=where, expected="one of them")
    until = _until(parts["UNTIL"], place, where) if "UNTIL" in parts else None
    if start is None:
        _counts_from_nowhere(parts, interval, where)
    numbers = {
        name: _numbers(parts[name], *bounds, where=f"{where}: {name}")
        for name, bounds in _NUMBERS.items()
        if name in parts
    }
    days = _days(parts, frequency, where)
    _together(parts, frequency, where)
    kept = dict(parts)
    for name in ("COUNT", "UNTIL"):
        kept.pop(name, None)
    restricting: dict[str, frozenset[int]] = {}

    def restrict(part: str, field: str, values: frozenset[int]) -> None:
        kept.pop(part, None)
        restricting[field] = values

    if frequency in ("DAILY", "HOURLY"):
        restrict("BYMONTHDAY", "month_days", numbers.get("BYMONTHDAY", frozenset()))
        restrict("BYDAY", "week_days", days)
    if frequency == "HOURLY":
        restrict("BYHOUR", "hours", numbers.get("BYHOUR", frozenset()))
    if frequency in ("WEEKLY", "DAILY", "HOURLY"):
        restrict("BYMONTH", "months", numbers.get("BYMONTH", frozenset()))
    if start is None:
        kept.setdefault("BYMINUTE", "0")
        if frequency != "HOURLY":
            kept.setdefault("BYHOUR", "0")
    kept["BYSECOND"] = "0"
    read = RecurrenceRule(
        ";".join(f"{name}={value}" for name, value in kept.items()),
        frequency,
        interval,
        start,
        count,
        until,
        **restricting,
    )
    _known_to_dateutil(read, where)
    return read


def _parts(text: object, where: str) -> dict[str, str]:
    expected = 'a recurrence of RFC 5545, e.g. "FREQ=WEEKLY;BYDAY=SU;BYHOUR=12;BYMINUTE=0"'
    if not isinstance(text, str) or not text.isascii() or not 0 < len(text) <= _LONGEST:
        raise InputError(f"{shown(text)} is not a recurrence", where=where, expected=expected)
    parts: dict[str, str] = {}
    for piece in text.upper().strip().removeprefix("RRULE:").rstrip(";").split(";"):
        name, sign, value = (one.strip() for one in piece.partition("="))
        if not sign or not value or name not in _PARTS:
            raise InputError(f"{shown(piece)} is not part of a recurrence", where=where, expected=expected)
        if name in parts:
            raise InputError(f"{name} is given twice", where=where, expected="each part once")
        parts[name] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        raise InputError(
            f"its FREQ is {shown(parts.get('FREQ', 'missing'))}",
            where=where,
            expected=f"{', '.join(_FREQUENCIES)} (minutes: BYMINUTE=0,15,30,45)",
        )
    if parts.get("WKST", "MO") not in _WEEKDAYS:
        expected = ", ".join(_WEEKDAYS)
        raise InputError(f"{shown(parts['WKST'])} is not a weekday", where=f"{where}: WKST", expected=expected)
    return parts


def _number(text: str, least: int, most: int, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
        raise InputError(f"{shown(text)} is out of range", where=where, expected=f"{least} to {most}")
    return int(text)


def _numbers(text: str, least: int, most: int, negative: bool, *, where: str) -> frozenset[int]:
    found: set[int] = set()
    for piece in text.split(","):
        match = re.fullmatch(r"([+-]?)([0-9]{1,3})", piece.strip())
        if not match or not least <= int(match[2]) <= most or (match[1] == "-" and not negative):
            below = f", or -{most} to -{least}" if negative else ""
            raise InputError(f"{shown(piece)} is out of range", where=where, expected=f"{least} to {most}{below}")
        found.add(int(f"{match[1]}{match[2]}"))
    return frozenset(found)


def _days(parts: Mapping[str, str], frequency: str, where: str) -> frozenset[int]:
    """The weekdays of BYDAY; ``2SU`` is for months and years alone."""
    found: set[int] = set()
    for piece in parts["BYDAY"].split(",") if "BYDAY" in parts else ():
        match = re.fullmatch(r"([+-]?[0-9]{1,2})?([A-Z]{2})", piece.strip())
        if not match or match[2] not in _WEEKDAYS or (match[1] and not 1 <= abs(int(match[1])) <= 53):
            raise InputError(
                f"{shown(piece)} is not a day", where=f"{where}: BYDAY", expected="SU, 2SU (the second), -1SU"
            )
        if match[1] and (frequency not in ("MONTHLY", "YEARLY") or "BYWEEKNO" in parts):
            raise InputError(f"{piece} needs FREQ=MONTHLY or YEARLY", where=f"{where}: BYDAY", expected=match[2])
        found.add(_WEEKDAYS.index(match[2]))
    return frozenset(found)


def _together(parts: Mapping[str, str], frequency: str, where: str) -> None:
    """What RFC 5545 forbids together."""
    for name, fit in (
        ("BYWEEKNO", ("YEARLY",)),
        ("BYYEARDAY", ("YEARLY",)),
        ("BYMONTHDAY", ("YEARLY", "MONTHLY", "DAILY", "HOURLY")),
    ):
        if name in parts and frequency not in fit:
            raise InputError(
                f"{name} does not go with FREQ={frequency}", where=where, expected=f"FREQ={' or '.join(fit)}"
            )
    if "BYSETPOS" in parts and (frequency == "HOURLY" or (frequency == "WEEKLY" and "BYMONTH" in parts)):
        other = " and BYMONTH" if frequency == "WEEKLY" else ""
        raise InputError(f"BYSETPOS is not read with FREQ={frequency}{other}", where=where, expected="BYDAY, BYHOUR")


def _counts_from_nowhere(parts: Mapping[str, str], interval: int, where: str) -> None:
    """Without a start the rule must say its days itself."""
    for name, counted in (("INTERVAL", interval > 1), ("COUNT", "COUNT" in parts)):
        if counted:
            raise InputError(
                f"{name} counts from a first day", where=where, expected='start = "2026-01-04" beside the rrule'
            )
    days = {name for name in parts if name in ("BYDAY", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO")}
    frequency = parts["FREQ"]
    lacking = frequency in ("WEEKLY", "MONTHLY") and not days
    if frequency == "YEARLY":
        lacking = not days or days == {"BYWEEKNO"}
    if lacking:
        raise InputError(
            f"FREQ={frequency} does not say on which day",
            where=where,
            expected='BYDAY or BYMONTHDAY, or start = "2026-01-04"',
        )


def _until(text: str, place: ZoneInfo | None, where: str) -> datetime:
    found = _UNTIL.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        whole = f"{found[1]}{found[2] or '235959'}"  # a day is meant to its end
        when = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        if found[3] and place is not None:
            when = when.astimezone(place)
        return when.replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{shown(text)} is not a day or time", where=f"{where}: UNTIL", expected="20271231 or 20271231T235959Z"
        ) from error


def _known_to_dateutil(read: RecurrenceRule, where: str) -> None:
    try:
        from dateutil.rrule import rrulestr
    except ImportError as error:
        raise MissingError(
            f"{where}: recurrences need python-dateutil", remedy="pip install 'hitless[windows]', or write it as cron"
        ) from error
    try:
        made: Any = rrulestr(read.parts, dtstart=read.start or datetime.combine(date(2026, 1, 1), time()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"dateutil does not take it: {error}", where=where, expected="RFC 5545") from error
    del made
