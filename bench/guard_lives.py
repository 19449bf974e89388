"""Do the guard's invariants hold through random lives in virtual time? Rules, failures, lost events, time and death.

    .venv/bin/python bench/guard_lives.py [--turns 100000] [--seed 1]

Each life is a node in memory (tests/unit/guard/lives.py): after every step it is checked that nobody else's rules were
touched, that the standby says only what the agent's rules once meant, and that what stands is what was decided; at the
end of a life, with whole rules, that everything is as it should be. Ends with 1 and the seed where one is broken.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.guard.lives import Life

from hitless.model.families import Family

_STEPS = 2000  # of a life


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=100_000, help="of the guard's loop (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    begun, work = time.monotonic(), time.process_time()
    turns = steps = deaths = 0
    virtual, seed = 0.0, options.seed
    while turns < options.turns:
        life = Life(seed, families=tuple(Family) if seed % 2 else (Family.IPV4,))
        try:
            while life.steps < _STEPS and turns + life.world.turns < options.turns:
                life.step()
            life.settle()
        except AssertionError as broken:
            print(f"missed: seed {seed}, step {life.steps}: {broken}")
            return 1
        turns, steps, deaths = turns + life.world.turns, steps + life.steps, deaths + life.deaths
        virtual, seed = virtual + life.world.seconds, seed + 1
    print(f"{seed - options.seed} lives, {steps:,} steps, {turns:,} turns of the loop, {deaths:,} deaths of guards")
    took, worked = time.monotonic() - begun, time.process_time() - work
    print(f"{virtual / 3600:.1f} hours of their time in {took:.1f} s ({worked:.1f} s of work)")
    print("every invariant held: reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
