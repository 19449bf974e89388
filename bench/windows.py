"""Maintenance windows beside a reference, and a gate whose clock jumps: does anything ever begin outside?

    .venv/bin/python bench/windows.py [--rules 100000] [--ticks 1000000] [--jobs 2] [--first 0]

``rules``: so many random rules (cron and RFC 5545, 21 zones, 20 years, freezes), each compared minute by minute over
two days with a slow account that shares no code with the product. ``ticks``: a gate is asked so often by a virtual
clock that goes on, jumps back and forth and stands still; what it lets begin is looked up in the minutes of the
reference. Needs no rights. Prints a table; ends with 1 when something differed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import random
import sys
import time
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.operations.reference import Plain, opened
from tests.unit.operations.rules_at_random import differs

from hitless.operations.windows import Gate, parsed


def ticks(number: int) -> tuple[int, int]:
    """How often the gate was open, and how often it was wrong."""
    text = '[[window]]\nname = "w"\ncron = "30 1-3,12 * * *"\nduration = "50m"\nzone = "Europe/Berlin"\n'
    text += 'exclude = ["2026-03-31/2026-04-02"]\n'
    begin, end = (int(datetime(2026, month, 1, tzinfo=UTC).timestamp()) for month in (3, 5))
    windows = parsed(text, source="bench", beside=str, at=begin)
    rule = Plain(hours=frozenset({1, 2, 3, 12}), minutes=frozenset({30}))
    frozen = [(date(2026, 3, 31), date(2026, 4, 2))]
    truth = opened(rule, ZoneInfo("Europe/Berlin"), 50, frozen, begin // 60, end // 60)
    draw, at, let, wrong = random.Random(14), float(begin), 0, 0
    gate = Gate(windows, now=lambda: at)
    for _ in range(number):
        step = draw.random()
        at += 30 * step if step < 0.9 else draw.choice([-1, 1]) * draw.choice([60, 3600, 86400, 864000]) * draw.random()
        at = at if begin <= at < end else begin + draw.random() * (end - begin)
        may = gate.refusal() == ""
        let += may
        wrong += may is not truth[int(at) // 60 - begin // 60]
    return let, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=100_000)
    parser.add_argument("--ticks", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    asked = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}")
    begun = time.monotonic()
    counted: Counter[str] = Counter()
    with multiprocessing.Pool(asked.jobs) as pool:
        for one in pool.imap_unordered(differs, range(asked.first, asked.first + asked.rules), chunksize=50):
            kind = one if one in ("", "refused") else "different"
            counted[kind] += 1
            if kind == "different" and counted[kind] <= 10:
                print(one)
    took = time.monotonic() - begun
    print(f"rules     {asked.rules:>9,}  same {counted['']:,}, different {counted['different']:,}, ", end="")
    print(f"refused (begin again before they end, or never) {counted['refused']:,}; {took:.0f} s")
    let, wrong = ticks(asked.ticks)
    print(f"ticks     {asked.ticks:>9,}  open {let:,}, wrong {wrong:,}; {time.monotonic() - begun - took:.0f} s")
    missed = bool(counted["different"] or wrong or not let or not counted[""])
    print("missed" if missed else "reached")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
