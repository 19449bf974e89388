"""Rules, zones and stretches of time drawn at random, and the product asked about them beside the reference."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from tests.unit.operations.reference import Plain, as_cron, opened, words

from hitless.errors import InputError
from hitless.operations.windows import WindowSchedule, parsed

ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Asia/Gaza",
    "Australia/Lord_Howe",
    "Australia/Adelaide",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Auckland",
    "America/Santiago",
    "Atlantic/Azores",
)
FIRST, YEARS = 2016, 20


def plain(draw: random.Random) -> tuple[str, Plain]:
    """``cron`` or ``rrule``, and a rule that both the product and the reference can read."""

    def some(values: range, most: int, none: float = 0.0) -> frozenset[int]:
        if draw.random() < none:
            return frozenset()
        return frozenset(draw.sample(values, draw.randint(1, min(most, len(values)))))

    near_midnight = draw.random() < 0.7
    hours = some(range(0, 5) if near_midnight else range(24), 3)
    minutes = some(range(0, 60, 15), 2)
    months = some(range(1, 13), 6, none=0.6)
    if draw.random() < 0.4:
        month_days, week_days = some(range(1, 29), 9, none=0.5), some(range(7), 4, none=0.5)
        return "cron", Plain(
            months=months,
            month_days=month_days,
            week_days=week_days,
            hours=hours,
            minutes=minutes,
            either=bool(month_days and week_days),
        )
    frequency = draw.choice(["DAILY", "WEEKLY", "MONTHLY"])
    start = date(FIRST - 1, 1, 1) + timedelta(days=draw.randrange(400)) if draw.random() < 0.5 else None
    interval = draw.randint(2, 5) if start and draw.random() < 0.7 else 1
    until = date(FIRST, 1, 1) + timedelta(days=draw.randrange(365, 365 * YEARS)) if draw.random() < 0.1 else None
    days = frozenset[int]()
    month_days, nth = frozenset[int](), 0
    if frequency == "WEEKLY":
        days = some(range(7), 3)
    elif frequency == "DAILY":
        days, month_days = some(range(7), 4, none=0.6), some(range(-8, 0), 4, none=0.8)
    elif draw.random() < 0.5:
        days, nth = some(range(7), 2), draw.choice([-2, -1, 1, 2, 3, 4, 5])
    else:
        month_days = some(range(1, 32), 6) if draw.random() < 0.5 else some(range(-31, 0), 6)
    return "rrule", Plain(frequency, interval, start, until, months, month_days, days, nth, hours, minutes)


def changes(place: ZoneInfo, year: int) -> list[int]:
    """The days of the year (Unix days) in which the zone's offset changes."""
    first = int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 86400

    def offset(day: int) -> timedelta | None:
        return datetime.fromtimestamp(day * 86400, UTC).astimezone(place).utcoffset()

    return [day for day in range(first, first + 365) if offset(day) != offset(day + 1)]


def differs(seed: int) -> str:
    """Draw a rule, a zone and three days, ask both; what differs, or "" ("refused" where the product refused it)."""
    draw = random.Random(seed)
    kind, rule = plain(draw)
    name = draw.choice(ZONES)
    place = ZoneInfo(name)
    year = FIRST + draw.randrange(YEARS)
    around = changes(place, year) if draw.random() < 0.7 else []
    day = (
        draw.choice(around) - 1
        if around
        else int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) // 86400 + draw.randrange(360)
    )
    begin, end = day * 1440, (day + 2) * 1440
    durations = [draw.choice([30, 60, 90, 120, 300, 1440]), 15]
    frozen = []
    for _ in range(draw.choice([0, 0, 1, 2])):
        first = datetime.fromtimestamp((day + draw.randrange(-2, 4)) * 86400, UTC).date()
        frozen.append((first, first + timedelta(days=draw.randrange(2))))
    text = f'[[window]]\nname = "w"\nzone = "{name}"\n'
    text += f'cron = "{as_cron(rule)}"\n' if kind == "cron" else f'rrule = "{words(rule)}"\n'
    text += f"start = {rule.start}\n" if rule.start else ""
    text += f"exclude = [{', '.join(f'{chr(34)}{a}/{b}{chr(34)}' for a, b in frozen)}]\n"
    for duration in durations:
        try:
            whole = f'{text}duration = "{duration}m"\n'
            schedule = WindowSchedule(parsed(whole, source="f", beside=str, at=(day - 40) * 86400))
            break
        except InputError as error:
            if "begins again after" not in str(error) and "never opens" not in str(error):
                raise AssertionError(f"seed {seed}: {error}\n{text}") from error
    else:
        return "refused"
    expected = opened(rule, place, duration, frozen, begin, end)
    got = [False] * (end - begin)
    for one in schedule.openings(begin * 60, before=end * 60):
        for minute in range(max(one.begin // 60, begin), min(one.end // 60, end)):
            got[minute - begin] = True
    if got != expected:
        at = next(number for number, (a, b) in enumerate(zip(got, expected, strict=True)) if a != b)
        when = datetime.fromtimestamp((begin + at) * 60, UTC)
        return f"seed {seed}: {when}: {got[at]}, not {expected[at]}\n{whole}"
    return ""
