"""A slow and obvious account of maintenance windows: minute by minute, and a rule read day by day.

Shares nothing with the product but the values that describe a window: no dateutil, no calculation with offsets.
"""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

Starts = Callable[[datetime], bool]
"""Whether a local minute is a start."""


@dataclass(frozen=True)
class Plain:
    """What a rule says, spelt out: of each part the numbers that fit (empty: all)."""

    frequency: str = "DAILY"
    interval: int = 1
    start: date | None = None
    until: date | None = None
    months: frozenset[int] = frozenset()
    month_days: frozenset[int] = frozenset()
    week_days: frozenset[int] = frozenset()  # 0 is Monday
    nth: int = 0  # with week_days in a month: the n-th, from behind where negative
    hours: frozenset[int] = field(default_factory=lambda: frozenset({0}))
    minutes: frozenset[int] = field(default_factory=lambda: frozenset({0}))
    either: bool = False  # cron: a day of the month or of the week is enough

    def __call__(self, when: datetime) -> bool:
        return when.minute in self.minutes and when.hour in self.hours and self.on(when.date())

    def on(self, day: date) -> bool:
        if self.start is not None and (day < self.start or not self._turn(day)):
            return False
        if self.until is not None and day > self.until:
            return False
        if self.months and day.month not in self.months:
            return False
        length = calendar.monthrange(day.year, day.month)[1]
        in_month = not self.month_days or day.day in self.month_days or day.day - length - 1 in self.month_days
        in_week = not self.week_days or day.weekday() in self.week_days
        if self.nth:
            place = (day.day - 1) // 7 + 1 if self.nth > 0 else -((length - day.day) // 7 + 1)
            in_week = in_week and place == self.nth
        return (in_month or in_week) if self.either else (in_month and in_week)

    def _turn(self, day: date) -> bool:
        assert self.start is not None
        if self.frequency == "WEEKLY":
            monday, first = (one - timedelta(days=one.weekday()) for one in (day, self.start))
            return (monday - first).days // 7 % self.interval == 0
        if self.frequency == "MONTHLY":
            return ((day.year - self.start.year) * 12 + day.month - self.start.month) % self.interval == 0
        return (day - self.start).days % self.interval == 0


def opened(
    starts: Starts, place: ZoneInfo, duration: int, frozen: Iterable[tuple[date, date]], begin: int, end: int
) -> list[bool]:
    """For each minute from ``begin`` to ``end`` (Unix minutes): is it open? Walks every minute from well before."""
    freezes = list(frozen)
    answer: list[bool] = []
    left = 0
    seen: set[datetime] = set()
    before: datetime | None = None
    since = datetime.fromtimestamp(0, place)
    closed = False
    owed: dict[int, bool] = {}  # minutes at which a start is held that the clock skipped
    for minute in range(begin - duration - 1440, end):
        aware = datetime.fromtimestamp(minute * 60, place)
        wall = aware.replace(tzinfo=None, fold=0)
        if before is not None and wall - before > timedelta(minutes=1):
            skipped = before + timedelta(minutes=1)
            while skipped < wall:  # with the offset from before, it comes so much after the change as it was skipped by
                if starts(skipped):
                    at = (skipped - (since.utcoffset() or timedelta(0))).replace(tzinfo=UTC)
                    owed[int(at.timestamp()) // 60] = True
                seen.add(skipped)
                skipped += timedelta(minutes=1)
        if before is None or wall.date() != before.date():
            closed = any(first <= wall.date() <= last for first, last in freezes)
        before, since = wall, aware
        begins = owed.pop(minute, False) or (wall not in seen and starts(wall))
        seen.add(wall)
        left = max(left, duration) if begins and not closed else left
        if closed:
            left = 0
        if minute >= begin:
            answer.append(left > 0)
        left = max(left - 1, 0)
    return answer


def words(plain: Plain, names: Sequence[str] = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")) -> str:
    """The same as a recurrence of RFC 5545."""

    def listed(values: Iterable[int]) -> str:
        return ",".join(str(one) for one in sorted(values))

    parts = [f"FREQ={plain.frequency}"]
    parts += [f"INTERVAL={plain.interval}"] if plain.interval > 1 else []
    parts += [f"UNTIL={plain.until:%Y%m%d}"] if plain.until else []
    parts += [f"BYMONTH={listed(plain.months)}"] if plain.months else []
    parts += [f"BYMONTHDAY={listed(plain.month_days)}"] if plain.month_days else []
    nth = str(plain.nth) if plain.nth else ""
    parts += [f"BYDAY={','.join(f'{nth}{names[one]}' for one in sorted(plain.week_days))}"] if plain.week_days else []
    parts += [f"BYHOUR={listed(plain.hours)}", f"BYMINUTE={listed(plain.minutes)}"]
    return ";".join(parts)


def as_cron(plain: Plain) -> str:
    """The same as five fields; only with days that count from the beginning."""

    def listed(values: Iterable[int]) -> str:
        return ",".join(str(one) for one in sorted(values)) or "*"

    week = (one + 1 for one in plain.week_days)
    return " ".join(map(listed, (plain.minutes, plain.hours, plain.month_days, plain.months, week)))
