"""What is judged here (limits of days, COUNT, UNTIL, starts that are moved) changes nothing of what dateutil says."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest
from dateutil.rrule import rrulestr

from hitless.errors import InputError
from hitless.operations.windows.recurrences import rule

SLOW = ("DAILY", "HOURLY")
"""Where dateutil looks until the year 9999, step by step, for a day that never comes: it is not asked for one."""
START = datetime(2025, 6, 1)  # noqa: DTZ001 - local time of any zone
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def drawn(draw: random.Random) -> str:
    def some(values: list[int], most: int = 4) -> str:
        return ",".join(str(one) for one in sorted(draw.sample(values, draw.randint(1, most))))

    frequency = draw.choice(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY"])
    parts = [f"FREQ={frequency}"]
    if draw.random() < 0.6:
        parts.append(f"INTERVAL={draw.randint(1, 9)}")
    if draw.random() < 0.4:
        parts.append(f"BYMONTH={some(list(range(1, 13)))}")
    if draw.random() < 0.5:
        nth = draw.choice(["", "1", "2", "-1"]) if frequency in ("YEARLY", "MONTHLY") else ""
        parts.append(f"BYDAY={','.join(nth + one for one in draw.sample(DAYS, draw.randint(1, 3)))}")
    elif draw.random() < 0.5 and frequency != "WEEKLY" and not (frequency in SLOW and "BYMONTH" in parts[-1]):
        parts.append(f"BYMONTHDAY={some([*range(1, 32), *range(-31, 0)], 8)}")
    elif draw.random() < 0.3 and frequency == "YEARLY":
        parts.append(draw.choice([f"BYWEEKNO={some(list(range(1, 54)))}", f"BYYEARDAY={some([*range(1, 367), -1])}"]))
    if draw.random() < 0.6 and not (frequency == "HOURLY" and any("INTERVAL" in one for one in parts)):
        parts.append(f"BYHOUR={some(list(range(24)))}")
    if draw.random() < 0.6:
        parts.append(f"BYMINUTE={some([0, 15, 30, 59])}")
    if draw.random() < 0.3 and frequency in ("YEARLY", "MONTHLY", "DAILY"):
        parts.append(f"BYSETPOS={draw.choice(['1', '-1', '1,-1', '2'])}")
    if draw.random() < 0.3:
        parts.append(f"WKST={draw.choice(DAYS)}")
    if draw.random() < 0.3:
        parts.append(draw.choice([f"COUNT={draw.randint(1, 60)}", "UNTIL=20260815", "UNTIL=20260815T113000"]))
    return ";".join(parts)


@pytest.mark.slow
def test_it_says_what_dateutil_says_in_any_stretch_of_time() -> None:
    compared = 0
    for seed in range(120):
        draw = random.Random(seed)
        text = drawn(draw)
        start = START + timedelta(minutes=15 * draw.randrange(4 * 24 * 400))
        first = start + timedelta(days=draw.randrange(-40, 500))
        last = first + timedelta(days=draw.choice([3, 40, 200]))
        plain = text.replace("UNTIL=20260815", "UNTIL=20260815T235959") if text.endswith("UNTIL=20260815") else text
        whole = f"{plain};BYSECOND=0"
        read = list(rule(text, start=start, where="rrule").starts(first, last))
        expected = []
        for one in rrulestr(whole, dtstart=start):
            if one > last:
                break
            expected += [one] if one >= first else []
        assert read == expected, f"seed {seed}: {text} from {start}, {first} to {last}"
        compared += bool(expected)
    assert compared > 40


@pytest.mark.parametrize("text", ["FREQ=DAILY;BYYEARDAY=1", "FREQ=WEEKLY;BYDAY=2SU", "FREQ=WEEKLY;BYMONTHDAY=3"])
def test_what_the_rfc_forbids_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        rule(text, start=START, where="rrule")
