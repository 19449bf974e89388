"""A file of maintenance windows, read whole or refused.

Problem: a window that is misread is an outage at noon. Promise: every key of the TOML is known and of its type, or the
file is refused with its name, the entry's and what was expected; also what can be read and cannot be meant: a window
that never opens (again), that excludes itself, that is longer than the time to its next start, or that opens hundreds
of times a day. Files are regular ones of bounded size; calendars (.ics) are taken from beside it. Next: ``openings``.
"""

from __future__ import annotations

import hashlib
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from hitless.errors import InputError
from hitless.kernel import files
from hitless.model.documents import decoded, shallow
from hitless.model.reading import shown
from hitless.operations.windows import calendars
from hitless.operations.windows.cron import cron
from hitless.operations.windows.openings import AHEAD, openings
from hitless.operations.windows.recurrences import RecurrenceRule, rule
from hitless.operations.windows.selectors import selectors
from hitless.operations.windows.times import LATEST, length, moment, span, utc
from hitless.operations.windows.values import Freeze, Pause, Recurrence, Repeated, Window, Windows
from hitless.operations.windows.zones import local, zone

__all__ = ["parsed", "read"]

_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 200
_MOST_LISTED = 1000
_MOST_STARTS = 288
"""A day: every five minutes."""
_LONGEST = 31 * 86400
_NAME = 63
_KEYS = ("name", "rrule", "cron", "start", "duration", "zone", "exclude", "clusters", "nodes", "labels", "pause")
_LOOKED_AT = 800
"""Starts that are compared with the next one."""


def read(path: Path, *, at: int | None = None) -> Windows:
    """The windows of a TOML file. Raises ``InputError``."""

    def beside(name: str) -> str:
        return _text(path.parent / name, f"{path}: {name}", "a calendar, by its path from the file's folder")

    text = _text(path, str(path), "a file with [[window]] entries")
    return parsed(text, source=str(path), at=at, beside=beside)


def _text(path: Path, where: str, expected: str) -> str:
    try:
        return files.read_text(path, most=_MOST_BYTES)
    except UnicodeDecodeError as error:
        raise InputError("is not text", where=where, expected="UTF-8") from error
    except ValueError as error:  # a NUL in its name
        raise InputError("is not a file name", where=shown(where), expected="a file") from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=where, expected=expected) from error


def parsed(text: str, *, source: str, beside: Callable[[str], str], at: int | None = None) -> Windows:
    """The windows of a TOML text; ``beside`` gives the text of a calendar, ``at`` the time that is past (default: now).

    Raises ``InputError``.
    """
    try:
        document = decoded(lambda: tomllib.loads(text))
    except ValueError as error:
        raise InputError(
            f"is not TOML: {error}", where=source, expected="[[window]] entries (docs/windows.md)"
        ) from error
    if not shallow(document):
        raise InputError("nests too deep", where=source, expected="[[window]] entries")
    _known(document, ("window", "pause"), source)
    entries = document.get("window")
    if not isinstance(entries, list) or not entries or not all(isinstance(one, dict) for one in entries):
        raise InputError("has no window", where=source, expected="at least one [[window]]")
    if len(entries) > _MOST_ENTRIES:
        raise InputError(f"has {len(entries)} windows", where=source, expected=f"at most {_MOST_ENTRIES}")
    moment_ = int(time.time()) if at is None else at
    warnings: list[str] = []
    found: list[Window] = []
    for number, entry in enumerate(entries, 1):
        one = _window(entry, f"{source}: window {number}", source, beside, warnings)
        if any(one.name == other.name for other in found):
            raise InputError(
                "is the name of another window too", where=f"{source}: window {one.name}", expected="a name of its own"
            )
        _opens(one, moment_, f"{source}: window {one.name}")
        found.append(one)
    return Windows(
        tuple(found),
        source,
        _pause(document.get("pause"), f"{source}: pause"),
        tuple(warnings),
        hashlib.sha256(text.encode()).hexdigest(),
    )


def _known(given: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in given:
        if key not in keys:
            raise InputError(f"{shown(key)} is not known", where=where, expected=f"of {', '.join(keys)}")


def _window(
    entry: Mapping[str, Any], where: str, source: str, beside: Callable[[str], str], warnings: list[str]
) -> Window:
    name = entry.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME or not name.isprintable() or name != name.strip():
        raise InputError(f"its name is {shown(name)}", where=where, expected=f'name = "…", of up to {_NAME} characters')
    where = f"{source}: window {name}"
    _known(entry, _KEYS, where)
    if "duration" not in entry:
        raise InputError("has no duration", where=where, expected='duration = "2h"')
    place = zone(entry.get("zone", "UTC"), where=f"{where}: zone")
    duration = length(entry["duration"], where=f"{where}: duration")
    if duration > _LONGEST or duration < 60:
        raise InputError(f"{span(duration)} is out of range", where=f"{where}: duration", expected="1m to 31d")
    freezes, repeated = _exclude(entry.get("exclude", []), f"{where}: exclude", beside, warnings)
    return Window(
        name=name,
        recurrence=_recurrence(entry, place, where),
        duration=duration,
        zone=place,
        freezes=freezes,
        calendars=repeated,
        clusters=_patterns(entry.get("clusters"), f"{where}: clusters"),
        nodes=_patterns(entry.get("nodes"), f"{where}: nodes"),
        labels=selectors(entry.get("labels"), where=f"{where}: labels"),
        pause=_pause(entry.get("pause"), f"{where}: pause"),
    )


def _recurrence(entry: Mapping[str, Any], place: Any, where: str) -> Recurrence:
    if ("rrule" in entry) == ("cron" in entry):
        both = "both rrule and cron" if "rrule" in entry else "neither rrule nor cron"
        raise InputError(f"has {both}", where=where, expected="one of them")
    if "cron" in entry:
        if "start" in entry:
            raise InputError("cannot be used with cron", where=f"{where}: start", expected="an rrule")
        return cron(entry["cron"], where=f"{where}: cron")
    start = entry.get("start")
    if isinstance(start, str):
        try:
            start = datetime.fromisoformat(start)
        except ValueError:
            start = None
    elif isinstance(start, date) and not isinstance(start, datetime):
        start = datetime(start.year, start.month, start.day)  # noqa: DTZ001 - local time of the window's zone
    if "start" in entry and (
        not isinstance(start, datetime)
        or start.tzinfo
        or not 1971 <= start.year < 2199
        or start.second
        or start.microsecond
    ):
        raise InputError(
            f"{shown(str(entry['start']))} is not a local day or time",
            where=f"{where}: start",
            expected='"2026-01-04" or "2026-01-04T12:00"',
        )
    return rule(entry["rrule"], start=start, where=f"{where}: rrule", place=place)


def _pause(given: object, where: str) -> Pause | None:
    expected = 'reason = "…", and until = "2026-12-01T00:00:00Z" where it ends by itself'
    if given is None or given is False:
        return None
    if not isinstance(given, dict):
        raise InputError(f"is {shown(str(given))}", where=where, expected=f"a table: {{ {expected} }}")
    _known(given, ("reason", "until"), where)
    reason = given.get("reason")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > 500:
        raise InputError("has no reason", where=where, expected=expected)
    return Pause(reason, moment(given["until"], where=f"{where}: until") if "until" in given else None)


def _patterns(given: object, where: str) -> tuple[str, ...]:
    if given is None:
        return ()
    fit = isinstance(given, list) and given and len(given) <= _MOST_LISTED
    if not fit or not all(isinstance(one, str) and 0 < len(one) <= 253 and "**" not in one for one in given):  # type: ignore[attr-defined]
        raise InputError("is not a list of names", where=where, expected='["prod-*", "edge1"]: names, with * ? [a-z]')
    return tuple(given)  # type: ignore[arg-type]


def _exclude(
    given: object, where: str, beside: Callable[[str], str], warnings: list[str]
) -> tuple[tuple[Freeze, ...], tuple[Repeated, ...]]:
    expected = 'days ("2026-12-24", "2026-12-20/2027-01-06", both included) or a calendar ("holidays.ics")'
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or len(given) > _MOST_LISTED:
        raise InputError("is not a list", where=where, expected=f"a list of {expected}")
    freezes: list[Freeze] = []
    repeated: list[Repeated] = []
    for one in given:
        if isinstance(one, date) and not isinstance(one, datetime):
            one = one.isoformat()
        if not isinstance(one, str):
            raise InputError(f"{shown(str(one))} is not a day", where=where, expected=expected)
        if one.lower().endswith(".ics"):
            if len(repeated) > _MOST_LISTED:
                raise InputError("too many calendars", where=where, expected="fewer")
            repeated += calendars.events(beside(one), where=f"{where}: {one}")
            continue
        first, slash, last = one.partition("/")
        freeze = Freeze(_day(first, where, expected), _day(last if slash else first, where, expected))
        if freeze.last < freeze.first:
            raise InputError(f"{one} ends before it begins", where=where, expected="the earlier day first")
        over = next((each for each in freezes if each.first <= freeze.last and freeze.first <= each.last), None)
        if over is not None:
            warnings.append(f"{where}: {one} overlaps {over.first}/{over.last}; the window is closed in both")
        freezes.append(freeze)
    return tuple(freezes), tuple(repeated)


def _day(text: str, where: str, expected: str) -> date:
    try:
        if len(text) != 10:
            raise ValueError(text)
        found = date.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{shown(text)} is not a day", where=where, expected=expected) from error
    if not 1971 <= found.year < 2199:
        raise InputError(f"{found.year} is out of range", where=where, expected="1971 to 2198")
    return found


def _opens(window: Window, at: int, where: str) -> None:
    """Refuse what cannot be meant."""
    begin = local(at - window.duration, window.zone)
    end = local(min(at + AHEAD, LATEST), window.zone)
    starts = list(islice(window.recurrence.starts(begin, end), _LOOKED_AT))
    if not starts:
        ends = isinstance(window.recurrence, RecurrenceRule) and (window.recurrence.count or window.recurrence.until)
        when = (
            f"never opens after {utc(at)}: its COUNT or UNTIL is over" if ends else "never opens: no day fits its rule"
        )
        raise InputError(when, where=where, expected="a rule with a start in the next 40 years; take the entry out")
    for one, other in zip(starts, starts[_MOST_STARTS:], strict=False):
        if other - one < timedelta(days=1):
            raise InputError("opens more than 288 times a day", where=where, expected="one longer window")
    for one, other in pairwise(starts):
        if (other - one).total_seconds() < window.duration:
            raise InputError(
                f"lasts {span(window.duration)}, and begins again after {span(int((other - one).total_seconds()))}",
                where=f"{where}: duration",
                expected="at most the time to its next start",
            )
    if next(openings(replace(window, pause=None), at), None) is None:
        raise InputError(
            "is excluded whenever it would open", where=f"{where}: exclude", expected="a start that is not excluded"
        )
