"""Does what the agent promises hold whatever comes in between? Random interleavings in virtual time.

    python bench/interleavings.py [--steps 100000] [--seed 1] [--jobs 1] [--world NAME] [--defects]

Others write rules and undo ours, events arrive or are lost, time goes on, programs and readings fail, the lock is busy,
the configuration changes, the agent dies before and after commits and starts again: on a fake node, in all backends, in
any order (tests/unit/agent/interleavings.py has the invariants). Exit 1: one did not hold, or something never happened.
What failed is told with its world's name; ``--world`` runs that one again. Equal questions to equal rules are evaluated
once (tests/unit/remembering.py). ``--defects`` plants mistakes in the agent one by one (tests/unit/agent/defects.py)
and tells after how many steps each is found.
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

from bench.parts.planted_defects import search
from tests.unit.agent.defects import DEFECTS, found_after
from tests.unit.agent.interleavings import live, run
from tests.unit.remembering import remembering

_SHARE = 10_000  # steps that a process takes at once
_SHOWN = 5


def some(seed: str, steps: int) -> tuple[Counter[str], str, float]:
    """A share of the steps, what did not hold, and the seconds of work."""
    tally: Counter[str] = Counter()
    begun, failed = time.process_time(), ""
    with remembering():
        try:
            run(seed, steps, tally)
        except AssertionError as error:
            failed = str(error)
    return tally, failed, time.process_time() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--world", metavar="NAME", help="run this one alone, and nothing from memory")
    parser.add_argument("--defects", action="store_true", help="are planted defects found?")
    options = parser.parse_args()
    if options.defects:
        return search(DEFECTS, found_after, options.steps, options.seed)
    tally: Counter[str] = Counter()
    if options.world:
        live(options.world, tally)
        print(f"{options.world!r}: every invariant held in {tally['steps']} steps")
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    wrong: list[str] = []
    begun, worked = time.monotonic(), 0.0
    shares = [min(_SHARE, options.steps - done) for done in range(0, options.steps, _SHARE)]
    with ProcessPoolExecutor(options.jobs) as pool:
        for told, failed, work in pool.map(some, (f"{options.seed} {n}" for n in range(len(shares))), shares):
            tally.update(told)
            wrong += [failed] if failed else []
            worked += work
    for words in wrong[:_SHOWN]:
        print(f"  {words}")
    print(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in tally.most_common()))
    took = time.monotonic() - begun
    print(f"{tally['steps']:,} steps in {took:.1f} s ({worked:.1f} s of work): {len(wrong)} runs broke an invariant")
    happened = all(tally[name] for name in ("deaths", "damages repaired", "ready", "settled"))
    met = not wrong and happened and tally["steps"] >= options.steps
    print("met: every invariant held" if met else "missed")
    return int(not met)


if __name__ == "__main__":
    sys.exit(main())
