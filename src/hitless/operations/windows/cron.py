"""Five fields of cron, read as cron reads them.

Problem: croniter was abandoned for a time, and each library adds dialects of its own. Promise: minute, hour, day of
month, month and day of week with numbers, names, ``*``, ranges, steps and lists, as in crontab(5): where both kinds of
days are restricted (neither begins with ``*``) one that fits is enough, else both must. Whatever else is refused with
the field's name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from hitless.errors import InputError
from hitless.model.reading import shown

__all__ = ["Cron", "cron"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    ("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(?:(\*)|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,3}))?", re.ASCII)
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Cron:
    """A ``Recurrence``; ``either``: a day of the month or a day of the week that fits is enough."""

    times: tuple[time, ...]
    month_days: frozenset[int]
    months: frozenset[int]
    week_days: frozenset[int]
    either: bool

    def matches(self, day: date) -> bool:
        """Whether it has starts on this day."""
        in_month, in_week = day.day in self.month_days, day.isoweekday() % 7 in self.week_days
        return day.month in self.months and ((in_month or in_week) if self.either else (in_month and in_week))

    def starts(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """See ``Recurrence``."""
        day = first.date()
        while day <= last.date():
            if self.matches(day):
                for one in self.times:
                    if first <= (found := datetime.combine(day, one)) <= last:
                        yield found
            day += timedelta(days=1)


def cron(text: object, *, where: str) -> Cron:
    """Read the five fields; raises ``InputError``."""
    expected = 'five fields "minute hour day-of-month month day-of-week", e.g. "0 12 * * sun"'
    fields = text.split() if isinstance(text, str) and len(text) <= _LONGEST else []
    if len(fields) != len(_FIELDS):
        raise InputError(f"{shown(text)} is not a cron time", where=where, expected=expected)
    sets = [_field(field.lower(), *limits, where=where) for field, limits in zip(fields, _FIELDS, strict=True)]
    minutes, hours, month_days, months, week_days = sets
    return Cron(
        tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
        frozenset(month_days),
        frozenset(months),
        frozenset(day % 7 for day in week_days),
        either=not (fields[2].startswith("*") or fields[4].startswith("*")),
    )


def _field(text: str, name: str, least: int, most: int, names: dict[str, int], *, where: str) -> set[int]:
    or_names = " or names of three letters" if names else ""
    expected = f"{least} to {most}{or_names}, *, ranges a-b, steps /n and lists a,b"
    chosen: set[int] = set()
    for part in text.split(","):
        found = _PART.fullmatch(part)
        if found is None:
            raise InputError(f"{shown(part)} cannot be read as the {name}", where=where, expected=expected)
        star, begin, end, step = found.groups()
        try:
            first = least if star else _number(begin, names)
            last = most if star else first if end is None else _number(end, names)
        except ValueError as error:
            raise InputError(f"{shown(part)} cannot be read as the {name}", where=where, expected=expected) from error
        if not least <= first <= last <= most or step == "0" or (step and int(step) == 0):
            raise InputError(f"{shown(part)} is out of range for the {name}", where=where, expected=expected)
        if step and not star and end is None:
            raise InputError(
                f"{shown(part)} has a step without a range", where=where, expected=f"{part.split('/')[0]}-{most}/{step}"
            )
        chosen |= set(range(first, last + 1, int(step or 1)))
    return chosen


def _number(value: str, names: dict[str, int]) -> int:
    if value in names:
        return names[value]
    return int(value)
