"""The events of an .ics file (RFC 5545), as time in which a window stays closed.

Problem: holiday calendars come from anywhere. Promise: VEVENTs with start, length, RRULE, RDATE and EXDATE, within
bounds of size, number and frequency; whatever is not understood is refused with file and line, because a holiday that
is left out is a window that is open. A calendar may only close: an event that was moved (RECURRENCE-ID) closes its
old day too. Nothing of VTIMEZONE is read: zones are taken by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hitless.errors import InputError
from hitless.model.reading import shown
from hitless.operations.windows.recurrences import RecurrenceRule, rule
from hitless.operations.windows.values import Repeated
from hitless.operations.windows.zones import zone

__all__ = ["MOST_BYTES", "events"]

MOST_BYTES = 1 << 20
_MOST_EVENTS = 5000
_MOST_REPEATED = 200
_MOST_DATES = 5000
_MOST_DAYS = 400
_LENGTH = re.compile(
    r"\+?P(?:([0-9]{1,3})W|(?:([0-9]{1,4})D)?(?:T(?:([0-9]{1,4})H)?(?:([0-9]{1,5})M)?(?:([0-9]{1,6})S)?)?)"
)


@dataclass(frozen=True, slots=True)
class _Times:
    """A ``Recurrence`` of single times."""

    times: tuple[datetime, ...]

    def starts(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """See ``Recurrence``."""
        return (one for one in self.times if first <= one <= last)


@dataclass(frozen=True, slots=True)
class _Without:
    """A rule's times but those of EXDATE."""

    rule: RecurrenceRule
    excluded: frozenset[datetime]

    def starts(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """See ``Recurrence``."""
        return (one for one in self.rule.starts(first, last) if one not in self.excluded)


@dataclass
class _Event:
    line: int
    fields: dict[str, list[tuple[int, dict[str, str], str]]] = field(default_factory=dict)


def events(text: str, *, where: str) -> list[Repeated]:
    """The events of a calendar; raises ``InputError``."""
    if "BEGIN:VCALENDAR" not in text.upper()[:1000]:
        raise InputError("is not a calendar", where=where, expected="an .ics file: BEGIN:VCALENDAR")
    found: list[Repeated] = []
    repeated = 0
    for event in _events(text, where):
        one = _read(event, where)
        repeated += sum(not isinstance(each.recurrence, _Times) for each in one)
        if repeated > _MOST_REPEATED:
            raise InputError("too many events that repeat", where=f"{where}:{event.line}", expected=f"{_MOST_REPEATED}")
        found += one
    return _joined(found)


def _joined(found: list[Repeated]) -> list[Repeated]:
    """Single events of one length and zone together: a thousand holidays are searched as one."""
    groups: dict[tuple[int, int, ZoneInfo | None], list[datetime]] = {}
    rest: list[Repeated] = []
    for one in found:
        if isinstance(one.recurrence, _Times):
            groups.setdefault((one.days, one.seconds, one.zone), []).extend(one.recurrence.times)
        else:
            rest.append(one)
    return rest + [
        Repeated(_Times(tuple(sorted(set(times)))), days, seconds, place)
        for (days, seconds, place), times in groups.items()
    ]


def _events(text: str, where: str) -> Iterator[_Event]:
    event: _Event | None = None
    inside: list[str] = []
    number = 0
    for line, content in _unfolded(text):
        name, parameters, value = _content(content, f"{where}:{line}")
        kind = value.upper().strip()
        if name == "BEGIN":
            inside.append(kind)
            if len(inside) > 8:
                raise InputError(
                    "components nest too deep", where=f"{where}:{line}", expected="VCALENDAR, VEVENT, VALARM"
                )
            if kind == "VEVENT":
                if event is not None:
                    raise InputError("a VEVENT in a VEVENT", where=f"{where}:{line}", expected="END:VEVENT before it")
                event = _Event(line)
                number += 1
                if number > _MOST_EVENTS:
                    raise InputError("too many events", where=f"{where}:{line}", expected=f"{_MOST_EVENTS} at most")
        elif name == "END":
            if not inside or inside.pop() != kind:
                raise InputError(f"END:{shown(kind)} ends nothing", where=f"{where}:{line}", expected="BEGIN before it")
            if kind == "VEVENT" and event is not None:
                yield event
                event = None
        elif event is not None and inside[-1] == "VEVENT":  # not in its alarms
            event.fields.setdefault(name, []).append((line, parameters, value.strip()))
    if inside:
        raise InputError(f"{inside[-1]} has no end: the file was cut off", where=where, expected=f"END:{inside[-1]}")


def _unfolded(text: str) -> Iterator[tuple[int, str]]:
    pieces: list[str] = []
    begun = 0
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line[:1] in (" ", "\t") and pieces:
            pieces.append(line[1:])
            continue
        if pieces:
            yield begun, "".join(pieces)
        pieces, begun = ([line], number) if line.strip() else ([], 0)
    if pieces:
        yield begun, "".join(pieces)


def _content(text: str, where: str) -> tuple[str, dict[str, str], str]:
    """``DTSTART;TZID=Europe/Berlin:20261224T120000``; a colon in quotes ends nothing."""
    quoted = False
    for place, one in enumerate(text):
        if one == '"':
            quoted = not quoted
        elif one == ":" and not quoted:
            name, *parameters = text[:place].split(";")
            pairs = (piece.partition("=") for piece in parameters)
            return name.upper(), {key.upper(): value.strip('"') for key, _, value in pairs}, text[place + 1 :]
    raise InputError(f"{shown(text)} is not a line of an iCalendar file", where=where, expected="NAME:VALUE")


def _time(value: str, parameters: dict[str, str], where: str) -> tuple[datetime, bool, ZoneInfo | None]:
    """A local time, whether it is a whole day, and its zone where it names one."""
    match = re.fullmatch(r"([0-9]{8})(?:T([0-9]{6})(Z?))?", value)
    try:
        if match is None:
            raise ValueError(value)
        when = datetime.strptime(f"{match[1]}{match[2] or '000000'}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as error:
        expected = "20261224 or 20261224T120000Z"
        raise InputError(f"{shown(value)} is not a date", where=where, expected=expected) from error
    if not 1971 <= when.year < 2199:
        raise InputError(f"{when.year} is out of range", where=where, expected="1971 to 2198")
    named = parameters.get("TZID", "").removeprefix("/")
    place = (
        zone("UTC", where=where) if match[3] else zone(named, where=f"{where}: TZID") if named and match[2] else None
    )
    return when.replace(tzinfo=None), match[2] is None, place


def _read(event: _Event, where: str) -> list[Repeated]:
    def of(name: str) -> tuple[int, dict[str, str], str] | None:
        given = event.fields.get(name, [])
        if len(given) > 1:
            raise InputError(f"{name} is given twice", where=f"{where}:{given[1][0]}", expected="once in an event")
        return given[0] if given else None

    status = of("STATUS")
    if status is not None and status[2].upper() == "CANCELLED":
        return []
    first = of("DTSTART")
    if first is None:
        raise InputError("the event has no DTSTART", where=f"{where}:{event.line}", expected="DTSTART")
    start, whole_day, place = _time(first[2], first[1], f"{where}:{first[0]}")
    days, seconds = _long(of("DTEND"), of("DURATION"), start, whole_day, place, where)
    excluded = frozenset(_dates(event, "EXDATE", whole_day, place, where))
    times = {start, *_dates(event, "RDATE", whole_day, place, where)} - excluded
    found = [Repeated(_Times(tuple(sorted(times))), days, seconds, place)] if times else []
    repeats = of("RRULE")
    if repeats is not None:
        parsed = rule(repeats[2], start=start, where=f"{where}:{repeats[0]}: RRULE", place=place)
        if parsed.frequency == "HOURLY":
            raise InputError("an event every hour", where=f"{where}:{repeats[0]}", expected="DAILY or slower")
        found.append(Repeated(_Without(parsed, excluded), days, seconds, place))
    return found


def _dates(event: _Event, name: str, whole_day: bool, place: ZoneInfo | None, where: str) -> list[datetime]:
    found: list[datetime] = []
    for line, parameters, value in event.fields.get(name, []):
        for piece in value.split(","):
            when, day, other = _time(piece.partition("/")[0], parameters, f"{where}:{line}")
            if other is not None and place is not None and other.key != place.key:
                when = when.replace(tzinfo=other).astimezone(place).replace(tzinfo=None)
            if day != whole_day:
                raise InputError(
                    f"{name} and DTSTART are not of one kind",
                    where=f"{where}:{line}",
                    expected="both days, or both times",
                )
            found.append(when)
            if len(found) > _MOST_DATES:
                raise InputError(
                    f"too many dates in {name}", where=f"{where}:{line}", expected=f"{_MOST_DATES} at most"
                )
    return found


def _long(
    end: tuple[int, dict[str, str], str] | None,
    long: tuple[int, dict[str, str], str] | None,
    start: datetime,
    whole_day: bool,
    place: ZoneInfo | None,
    where: str,
) -> tuple[int, int]:
    """Days, or seconds. An event without an end is its day, or, with a time, that instant: the rest of nothing."""
    if end is not None:
        line = end[0]
        last, day, other = _time(end[2], end[1], f"{where}:{line}")
        if day != whole_day:
            raise InputError(
                "DTEND and DTSTART are not of one kind", where=f"{where}:{line}", expected="both days or times"
            )
        begun, ended = (one.replace(tzinfo=p or UTC) for one, p in ((start, place), (last, other or place)))
        length = last - start if day else timedelta(seconds=ended.timestamp() - begun.timestamp())
    elif long is not None:
        line = long[0]
        match = _LENGTH.fullmatch(long[2])
        if match is None or not any(match.groups()):
            raise InputError(f"{shown(long[2])} is not a duration", where=f"{where}:{line}", expected="P1D or PT2H")
        weeks, days, hours, minutes, secs = (int(one or 0) for one in match.groups())
        length = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=secs)
    else:
        return (1, 0) if whole_day else (0, 1)
    if length < timedelta(0) or length > timedelta(days=_MOST_DAYS):
        raise InputError(
            "ends before it begins, or is too long", where=f"{where}:{line}", expected=f"{_MOST_DAYS} days"
        )
    if whole_day:
        return max(length.days, 1), 0
    return 0, max(int(length.total_seconds()), 1)
