"""The agent of another commit and this one, side by side: start, memory, idle processor time, repair.

Promise: both run on the same node, over the same rules, in turns (which one is first alternates) or at the same time,
so that the machine's load is the same for both. The other commit is checked out in a temporary folder, with an
environment that has our dependencies and its own code; both are removed at the end. A figure is ``MISSED`` where ours
is worse beyond what chance explains: in 39 of 40 resamplings of both sides' values (bootstrap) it is worse by more
than a twentieth.
"""

from __future__ import annotations

import contextlib
import random
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.parts.agent_lab import Agent, watch

from hitless.lab import building
from hitless.lab.building import Lab
from hitless.lab.plans import LabPlan
from hitless.lab.saboteurs import FAULTS, SabotageTarget, opens_a_gap
from hitless.model.families import Backend, Family

Require = Callable[[bool, str], None]
_DAMAGES = ("flush-chain", "delete-jump", "accept-in-front", "flush-nat", "flush-ruleset", "wrong-subnet")
_RESAMPLINGS, _CERTAIN, _WORSE = 2000, 0.975, 1.05
_MOST_MEMORY = 60  # MB
_LATEST = 100  # ms, from damage right behind the start to its repair
_SETTLES = 10.0  # seconds for reading all rules, twice
_SLICES, _SLICE = 10, 3.0
_BETWEEN = 1.5  # seconds between two damages: no fight, and a reload is over
_ANOTHER_PORT = "--healthz-port=10991"


@dataclass
class Side:
    """One of the two, and what was measured: milliseconds, megabytes, percents of a core."""

    name: str
    python: str
    ready: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)  # from damage right behind the start to its repair
    quiet: list[float] = field(default_factory=list)  # memory of a life without damage
    disturbed: list[float] = field(default_factory=list)  # the same, where damage fell into the first reading
    idle: list[float] = field(default_factory=list)
    repair: list[float] = field(default_factory=list)


def beside(commit: str, backends: Sequence[Backend], services: int, rounds: int, require: Require) -> None:
    """Measure both, and print one table for each backend."""
    with _checked_out(commit) as python:
        for backend in backends:
            sides = (Side(commit, python), Side("this", sys.executable))
            with building.up(LabPlan(family="dual", backend=backend, services=services)) as lab:
                Agent(lab).end(signal.SIGTERM)  # the rules that all later starts find
                _starts(lab, sides, rounds)
                _lives(lab, sides)
                _disturbed_lives(lab, sides)
            with building.up(LabPlan(family="dual", backend=backend)) as lab:
                _repairs(lab, backend, sides, rounds)
            _table(backend, services, *sides)
            _judge(backend, *sides, require)


@contextlib.contextmanager
def _checked_out(commit: str) -> Iterator[str]:
    """The Python program of an environment with that commit's code."""
    top = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="bench-beside-") as folder:
        tree, environment = Path(folder, "tree"), Path(folder, "environment")
        subprocess.run(["git", "-C", top, "worktree", "add", "--quiet", "--detach", tree, commit], check=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
            packages = next(environment.glob("lib/python*/site-packages"))
            # its code comes first; ours is not found, for .pth files of the second folder are not read
            (packages / "beside.pth").write_text(f"{tree / 'src'}\n{sysconfig.get_paths()['purelib']}\n")
            yield str(environment / "bin" / "python")
        finally:
            subprocess.run(["git", "-C", top, "worktree", "remove", "--force", tree], check=True)


def _in_turns(sides: Sequence[Side], rounds: int) -> Iterator[Side]:
    for number in range(rounds):
        yield from sides if number % 2 else reversed(sides)


def _starts(lab: Lab, sides: Sequence[Side], rounds: int) -> None:
    """From exec to ready, and damage right behind that: a flush of both families."""
    damage = FAULTS["flush-chain"](SabotageTarget.of(lab.cluster, lab.nodes[0]))
    for side in _in_turns(sides, rounds):
        agent = Agent(lab, python=side.python)
        side.ready.append(agent.ready_after * 1e3)
        damage.act()
        side.behind += agent.repairs(until=30.0, quiet=0.5)
        agent.end(signal.SIGTERM)


def _lives(lab: Lab, sides: Sequence[Side]) -> None:
    """Memory and idle processor time, both at the same time."""
    with contextlib.ExitStack() as ending:
        agents = []
        for side, more in zip(sides, ((), (_ANOTHER_PORT,)), strict=True):
            agents.append(Agent(lab, *more, python=side.python))
            ending.callback(agents[-1].end, signal.SIGTERM)
        time.sleep(_SETTLES)
        for _ in range(_SLICES):
            before = [agent.cpu_ns() for agent in agents]
            begun = time.monotonic()
            time.sleep(_SLICE)
            took = time.monotonic() - begun
            for side, agent, used in zip(sides, agents, before, strict=True):
                side.idle.append((agent.cpu_ns() - used) / took / 1e7)
        for side, agent in zip(sides, agents, strict=True):
            side.quiet.append(agent.rss() / 1024)


def _disturbed_lives(lab: Lab, sides: Sequence[Side]) -> None:
    """Memory where damage makes the first reading begin again."""
    damage = FAULTS["flush-chain"](SabotageTarget.of(lab.cluster, lab.nodes[0]))
    for side in sides:
        agent = Agent(lab, python=side.python)
        for _ in range(3):
            damage.act()
            time.sleep(0.7)
        time.sleep(_SETTLES)
        side.disturbed.append(agent.rss() / 1024)
        agent.end(signal.SIGTERM)


def _repairs(lab: Lab, backend: Backend, sides: Sequence[Side], rounds: int) -> None:
    """Gaps as ``hitless watch`` saw them, by damage of every kind."""
    target = SabotageTarget.of(lab.cluster, lab.nodes[0])
    names = [name for name in _DAMAGES if opens_a_gap(name, backend)]
    watching = watch(lab, tuple(Family))
    for side in _in_turns(sides, max(2, rounds // 2)):
        agent = Agent(lab, python=side.python)
        time.sleep(_BETWEEN)
        for name in names:
            known = len(watching.events)
            FAULTS[name](target).act()
            time.sleep(_BETWEEN)
            gaps = [event for event in watching.events[known:] if event["type"] == "gap"]
            side.repair += [(one["end"] - one["begin"]) / 1e6 for one in gaps]
        agent.end(signal.SIGTERM)
    watching.end()


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


_Statistic = Callable[[Sequence[float]], float]
_FIGURES: tuple[tuple[str, Callable[[Side], list[float]], tuple[tuple[str, _Statistic], ...]], ...] = (
    ("exec to ready, ms", lambda side: side.ready, (("median", statistics.median), ("worst", max))),
    ("damage right behind it, ms", lambda side: side.behind, (("median", statistics.median), ("p99", _p99))),
    ("idle, % of a core", lambda side: side.idle, (("mean", statistics.fmean),)),
    ("damage to repair, ms", lambda side: side.repair, (("median", statistics.median), ("p99", _p99))),
    ("memory, MB", lambda side: side.quiet, (("", max),)),
    ("memory after damage in the first reading, MB", lambda side: side.disturbed, (("", max),)),
)


def _table(backend: Backend, services: int, other: Side, ours: Side) -> None:
    print(f"  {backend.value}, {services:,} Services (repair without them):")
    print(f"    {'':58} {'values':>7} {other.name[:12]:>12} {ours.name:>12}")
    for what, of, by in _FIGURES:
        for name, statistic in by:
            cells = [f"{statistic(of(side)):.2f}" if of(side) else "none" for side in (other, ours)]
            label = f"{what}, {name}" if name else what
            print(f"    {label:58} {len(of(ours)):7} {cells[0]:>12} {cells[1]:>12}", flush=True)


def _judge(backend: Backend, other: Side, ours: Side, require: Require) -> None:
    """Ours must not be worse beyond chance, and keep the two bounds that are asked of it."""
    for what, of, by in _FIGURES[:4]:
        require(bool(of(ours) and of(other)), f"{backend.value}: {what}: both were measured")
        for name, statistic in by if of(ours) and of(other) else ():
            share = _worse(of(ours), of(other), statistic)
            require(share < _CERTAIN, f"{backend.value}: {what}, {name}: ours is worse in {share:.0%} of resamplings")
    most = max(*ours.quiet, *ours.disturbed)
    require(most <= _MOST_MEMORY, f"{backend.value}: memory {most:.0f} MB (asked: {_MOST_MEMORY})")
    if ours.behind and not backend.legacy:
        late = _p99(ours.behind)
        require(late <= _LATEST, f"{backend.value}: damage behind the start, p99 {late:.0f} ms (asked: {_LATEST})")


def _worse(ours: Sequence[float], other: Sequence[float], statistic: _Statistic) -> float:
    """In which share of resamplings ours is worse by more than a twentieth."""
    drawn = random.Random(1)
    return statistics.fmean(
        statistic(drawn.choices(ours, k=len(ours))) > _WORSE * statistic(drawn.choices(other, k=len(other)))
        for _ in range(_RESAMPLINGS)
    )
