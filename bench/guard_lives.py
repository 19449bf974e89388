"""Do the guard's invariants hold through random lives in virtual time? Rules, failures, lost events, time and death.

    .venv/bin/python bench/guard_lives.py [--steps 100000] [--seed 1] [--life SEED] [--defects]

Each life is a node in memory (tests/unit/guard/lives.py): after every step it is checked that nobody else's rules were
touched, that the standby says only what the agent's rules once meant, and that what stands is what was decided; at the
end of a life, with whole rules, that everything is as it should be. Ends with 1 and the seed where one is broken;
``--life`` runs that one again. Equal questions to equal rules are evaluated once (tests/unit/remembering.py).
``--defects`` plants mistakes in the guard one by one (tests/unit/guard/defects.py) and tells after how many steps each
is found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.planted_defects import search
from tests.unit.guard.defects import DEFECTS, found_after
from tests.unit.guard.lives import Life, of
from tests.unit.remembering import remembering

_STEPS = 2000  # of a life


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="things that happen (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first life")
    parser.add_argument("--life", type=int, metavar="SEED", help="run this one alone, and nothing from memory")
    parser.add_argument("--defects", action="store_true", help="are planted defects found?")
    options = parser.parse_args()
    if options.defects:
        return search(DEFECTS, found_after, options.steps, options.seed)
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    begun, work = time.monotonic(), time.process_time()
    lives: list[Life] = []
    alone = options.life is not None
    left = _STEPS if alone else options.steps
    with contextlib.nullcontext() if alone else remembering():
        while left > 0:
            life = of(options.life if alone else options.seed + len(lives))
            lives.append(life)
            try:
                while life.steps < min(_STEPS, left):
                    life.step()
                life.settle()
            except AssertionError as broken:
                print(f"missed: life {life.seed}, step {life.steps}: {broken}")
                return 1
            left -= life.steps
            life.forget()
    took, worked = time.monotonic() - begun, time.process_time() - work
    steps, turns = sum(life.steps for life in lives), sum(life.world.turns for life in lives)
    deaths, virtual = sum(life.deaths for life in lives), sum(life.world.seconds for life in lives)
    print(f"{len(lives)} lives, {steps:,} steps, {turns:,} turns of the loop, {deaths:,} deaths of guards")
    print(f"{virtual / 3600:.1f} hours of their time in {took:.1f} s ({worked:.1f} s of work)")
    print("every invariant held: reached")
    return 0


if __name__ == "__main__":
    sys.exit(main())
