"""Random histories around a loop: what may happen in a world, chosen by a seed or by Hypothesis.

A world is a node in virtual time with one daemon on it. ``Action`` names what may happen there, with the values that
each of its parameters may have. ``run`` chooses by a seed, for many steps at little cost. ``state_machine`` makes a
Hypothesis state machine of the same actions, so that a history that breaks an invariant is shrunk to a short one. Both
call ``step`` of the world, which checks its invariants after each action, and ``settle`` at the end. A planted defect
is a function that makes a context manager; while that is entered, one thing in the daemon is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from typing import Any, Protocol

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from tests.unit.remembering import remembering

__all__ = [
    "Action", "Broken", "History", "Kind", "Planted", "World", "explore", "found_after", "live", "run", "shrunk",
    "state_machine",
]  # fmt: skip

Planted = Callable[[], AbstractContextManager[Any]]

_SHARE = 5.0  # a rule of the state machine for each such part of an action's weight


@dataclass(frozen=True)
class Action:
    """A method of the world. ``weight``: how often it is chosen; ``values``: what each parameter may be."""

    name: str
    weight: float
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class World(Protocol):
    """A node in virtual time. Raises ``AssertionError`` where an invariant is broken. ``tally`` counts what happened,
    with the actions as ``steps``."""

    tally: Counter[str]

    def step(self, action: str, **values: Any) -> None:
        """Do one thing, let the loop run, and check the invariants."""

    def settle(self) -> None:
        """End all faults, and check that everything becomes as it should be."""

    def close(self) -> None:
        """End the daemon."""


@dataclass(frozen=True)
class Kind:
    """A kind of world: how it is made, with which values, what may happen in it, and after how many steps it settles.
    ``counted``: what a long run must have in its tally, as it would prove nothing otherwise."""

    make: Callable[..., World]
    actions: tuple[Action, ...]
    born: Mapping[str, Sequence[Any]]
    steps: int
    counted: tuple[str, ...]


# --- chosen by a seed


def live(kind: Kind, name: str, tally: Counter[str]) -> None:
    """One world, from its beginning until it has settled; ``name`` chooses everything that happens there."""
    random = Random(name)
    world = kind.make(**_chosen(random, kind.born))
    weights = list(accumulate(action.weight for action in kind.actions))
    try:
        for _ in range(kind.steps):
            (action,) = random.choices(kind.actions, cum_weights=weights)
            world.step(action.name, **_chosen(random, action.values))
        world.settle()
    except AssertionError as error:
        raise AssertionError(f"world {name!r}, step {world.tally['steps']}: {error}") from error
    finally:
        world.close()
        tally.update(world.tally)


def run(kind: Kind, seed: str, steps: int, tally: Counter[str]) -> None:
    """So many steps, in as many worlds as that takes."""
    for number in range(-(-steps // kind.steps)):
        live(kind, f"{seed} {number}", tally)


def _chosen(random: Random, values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: random.choice(each) for name, each in values.items()}


def found_after(kind: Kind, defect: Planted, most: int, seed: str = "defects") -> tuple[int, str]:
    """After how many random steps a planted defect is found, and what it broke; 0 steps: it was not."""
    tally: Counter[str] = Counter()
    with remembering(), defect():
        try:
            run(kind, seed, most, tally)
        except Exception as error:  # noqa: BLE001 - whatever shows that something is wrong
            return max(1, tally["steps"]), f"{type(error).__name__}: {error}"
    return 0, ""


# --- chosen by Hypothesis


class History(RuleBasedStateMachine):
    """What ``state_machine`` makes. ``last``: the actions of the last run; after a failure these are the shrunk ones.
    ``steps``: of all runs."""

    kind: Kind
    last: list[tuple[str, dict[str, Any]]]
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self._broken = False
        type(self).last = []

    def begin(self, **values: Any) -> None:
        """Make the world."""
        self.world = self.kind.make(**values)

    def act(self, name: str, values: dict[str, Any]) -> None:
        """One action."""
        assert self.world is not None
        type(self).last.append((name, values))
        type(self).steps += 1
        self._broken = True  # unless the step ends well
        self.world.step(name, **values)
        self._broken = False

    def teardown(self) -> None:
        """A history that broke nothing ends with a world that settles."""
        if self.world is not None:
            try:
                if not self._broken:
                    self.world.settle()
            finally:
                self.world.close()


def state_machine(kind: Kind) -> type[History]:
    """A rule for each action; several for one that is to be chosen more often."""

    def begin(self: History, **values: Any) -> None:
        self.begin(**values)

    decorate: Callable[..., Any] = initialize(**_drawn(kind.born))
    members: dict[str, Any] = {"kind": kind, "last": [], "begin_world": decorate(begin)}
    for action in kind.actions:
        for number in range(max(1, round(action.weight / _SHARE))):
            decorate = rule(**_drawn(action.values))
            members[f"rule_{action.name}_{number}"] = decorate(_method(action.name))
    return type("Machine", (History,), members)


def _method(name: str) -> Callable[..., None]:
    def act(self: History, **values: Any) -> None:
        self.act(name, values)

    act.__name__ = act.__qualname__ = name
    return act


def _drawn(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: st.sampled_from(list(each)) for name, each in values.items()}


def explore(kind: Kind, *, share: float, steps: int = 50) -> type[History]:
    """Run the state machine with ``share`` of the profile's examples, of ``steps`` actions at most."""
    machine = state_machine(kind)
    profile = settings()
    chosen = settings(
        profile,
        max_examples=max(1, round(share * profile.max_examples)),
        stateful_step_count=steps,
        report_multiple_bugs=False,
    )
    with remembering():
        run_state_machine_as_test(machine, settings=chosen)
    return machine


@dataclass(frozen=True)
class Broken:
    """The shortest history that was found, and what it broke. ``steps``: of all runs until then."""

    actions: list[tuple[str, dict[str, Any]]]
    what: str
    steps: int


def shrunk(kind: Kind, defect: Planted, *, examples: int, steps: int = 50) -> Broken | None:
    """The shortest history that shows a planted defect; ``None``: it was not found. The same each time."""
    machine = state_machine(kind)
    chosen = settings(
        settings.get_profile("hitless"),
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    with remembering(), defect():
        try:
            run_state_machine_as_test(machine, settings=chosen)
        except Exception as error:  # noqa: BLE001 - whatever shows that something is wrong
            return Broken(machine.last, f"{type(error).__name__}: {error}", machine.steps)
    return None
