"""Does what the agent promises hold whatever comes in between? Random interleavings in virtual time.

    python bench/interleavings.py [--steps 100000] [--seed 1]

Others write rules and undo ours, events arrive or are lost, time goes on, programs and readings fail, the lock is busy,
the configuration changes, the agent dies before and after commits and starts again: on a fake node, in all backends, in
any order (tests/unit/agent/interleavings.py has the invariants). Exit 1: one did not hold, or something never happened.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.agent.interleavings import run

_SHARE = 2_000  # steps that a process takes at once
_SHOWN = 5


def some(seed: str, steps: int) -> tuple[Counter[str], str]:
    """A share of the steps, and what did not hold."""
    tally: Counter[str] = Counter()
    try:
        run(seed, steps, tally)
    except AssertionError as error:
        return tally, str(error)
    return tally, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    options = parser.parse_args()
    tally: Counter[str] = Counter()
    wrong: list[str] = []
    begun = time.monotonic()
    shares = [min(_SHARE, options.steps - done) for done in range(0, options.steps, _SHARE)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for told, failed in pool.map(some, (f"{options.seed} {number}" for number in range(len(shares))), shares):
            tally.update(told)
            wrong += [failed] if failed else []
    for words in wrong[:_SHOWN]:
        print(f"  {words}")
    print(f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} cores")
    print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in tally.most_common()))
    print(f"{tally['steps']:,} steps in {time.monotonic() - begun:.0f} s: {len(wrong)} runs broke an invariant")
    happened = all(tally[name] for name in ("deaths", "damages repaired", "ready", "settled"))
    met = not wrong and happened and tally["steps"] >= options.steps
    print("met: every invariant held" if met else "missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
