"""Do the invariants of agent, guard and watch hold in every order of events? Random histories in virtual time.

    python bench/interleavings.py [--loop agent|guard|watch] [--steps 100000] [--seed 1] [--jobs 1]
    python bench/interleavings.py --loop agent --world '1 3 17'      one world again
    python bench/interleavings.py --machine                          Hypothesis state machines instead of a seed
    python bench/interleavings.py --defects [--machine]              are planted defects found?

Others write rules and undo ours, events arrive or are lost, time goes on, calls fail, configurations change, and the
daemon dies and starts again, on a node in memory. The invariants are in tests/unit/agent/interleavings.py,
tests/unit/guard/lives.py and tests/unit/watch/histories.py. Exit 1: one was broken, or something never happened. A
broken one is printed with the name of its world; ``--world`` runs that one again. Pure functions of equal rules are
computed once (tests/unit/remembering.py). ``--defects`` plants mistakes one by one (``defects.py`` beside the
invariants) and prints after how many steps each is found; with ``--machine`` the shortest history that shows it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tests.conftest  # noqa: F401 - Hypothesis' profiles
from bench.parts.planted_defects import search, shrink
from tests.unit.agent import defects as agent_defects
from tests.unit.agent import interleavings as agent
from tests.unit.guard import defects as guard_defects
from tests.unit.guard import lives as guard
from tests.unit.histories import Kind, Planted, explore, live, run
from tests.unit.remembering import remembering
from tests.unit.watch import defects as watch_defects
from tests.unit.watch import histories as watch

_SHARE = 50_000  # steps that a process takes at once; what it remembers is of use for all of them
_SHOWN = 5
_EXAMPLES, _ACTIONS = 500, 50  # of a state machine: histories, and actions in each at most


@dataclass(frozen=True)
class _Loop:
    kind: Kind
    defects: Mapping[str, Planted]


_LOOPS = {
    "agent": _Loop(agent.KIND, agent_defects.DEFECTS),
    "guard": _Loop(guard.KIND, guard_defects.DEFECTS),
    "watch": _Loop(watch.KIND, watch_defects.DEFECTS),
}


def some(name: str, seed: str, steps: int) -> tuple[Counter[str], str, float]:
    """A share of the steps, what was broken, and the processor seconds."""
    tally: Counter[str] = Counter()
    begun, failed = time.process_time(), ""
    with remembering():
        try:
            run(_LOOPS[name].kind, seed, steps, tally)
        except AssertionError as error:
            failed = str(error)
    return tally, failed, time.process_time() - begun


def by_seed(name: str, steps: int, seed: str, jobs: int) -> bool:
    """Random steps of one loop; whether every invariant held, and all happened that was to happen."""
    broken: list[str] = []
    tally: Counter[str] = Counter()
    begun, worked = time.monotonic(), 0.0
    shares = [min(_SHARE, steps - done) for done in range(0, steps, _SHARE)]
    seeds = [f"{seed} {number}" for number in range(len(shares))]
    with ProcessPoolExecutor(jobs) as pool:
        for counted, failed, work in pool.map(some, [name] * len(shares), seeds, shares):
            tally.update(counted)
            broken += [failed] if failed else []
            worked += work
    for text in broken[:_SHOWN]:
        print(f"  {text}")
    print(", ".join(f"{key.replace('_', ' ')} {count:,}" for key, count in tally.most_common()))
    took, each = time.monotonic() - begun, 1000 * worked / max(1, tally["steps"])
    print(
        f"{name}: {tally['steps']:,} steps in {took:.1f} s ({worked:.1f} s of processor time, {each:.2f} ms a step): "
        f"{len(broken)} worlds broke an invariant",
        flush=True,
    )
    return not broken and all(tally[each] for each in _LOOPS[name].kind.counted) and tally["steps"] >= steps


def by_machine(name: str, steps: int) -> None:
    """The same by a state machine; what breaks an invariant is raised with its shortest history."""
    begun = time.process_time()
    machine = explore(_LOOPS[name].kind, share=steps / _ACTIONS / 100, steps=_ACTIONS)
    took = time.process_time() - begun
    print(
        f"{name}: {machine.steps:,} steps of a state machine in {took:.1f} s of processor time, "
        f"{1000 * took / machine.steps:.2f} ms a step",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loop", choices=tuple(_LOOPS), action="append", help="this one only; may be repeated")
    parser.add_argument("--steps", type=int, default=100_000, help="of each loop (default: %(default)s)")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--world", metavar="NAME", help="run this one alone, and nothing from memory (needs --loop)")
    parser.add_argument("--machine", action="store_true", help="let Hypothesis choose, and shrink what fails")
    parser.add_argument("--defects", action="store_true", help="are planted defects found?")
    options = parser.parse_args()
    loops = options.loop or list(_LOOPS)
    if options.world:
        tally: Counter[str] = Counter()
        live(_LOOPS[loops[0]].kind, options.world, tally)
        print(f"{loops[0]}, world {options.world!r}: every invariant held in {tally['steps']} steps")
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if options.defects:
        missed = 0
        for name in loops:
            print(f"{name}:")
            kind, defects = _LOOPS[name].kind, _LOOPS[name].defects
            missed += (
                shrink(kind, defects, _EXAMPLES)
                if options.machine
                else search(kind, defects, options.steps, options.seed)
            )
        print("met: every defect was found" if not missed else f"missed: {missed} defects")
        return int(bool(missed))
    held = True
    for name in loops:
        if options.machine:
            by_machine(name, options.steps)
        else:
            held &= by_seed(name, options.steps, options.seed, options.jobs)
    print("met: every invariant held" if held else "missed")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())
