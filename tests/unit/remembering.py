"""Pure functions of rule sets, whose answers are remembered by value while random runs go on.

Problem: a random walk over a node's states meets the same rules thousands of times, and nearly all of its time went
into evaluating them again. Promise: within ``remembering()`` the evaluator's questions, what a guard learns, and
what its tables look like in the kernel, are worked out once for equal rules and equal questions; what the agent plans,
once for the same observation (a plan names rules by their handles, so that equal ones do not do). Every ``AGAIN``-th
known answer is worked out again and must be equal, so that a function which is not pure is found. What decides is not
touched: loops, schedules, panels and deciders run each time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from hitless.agent import reconciliation, worker
from hitless.errors import HitlessError
from hitless.guard import images, loop, side
from hitless.model.packets import Packet
from hitless.model.rules import Chain, Ruleset, Table
from hitless.model.state import NodeState
from hitless.observe import questions
from hitless.plan import plan
from hitless.sources import SourceSnapshot

AGAIN = 200
_MOST = 50_000  # values that are kept
_PURE = (
    (questions, "egress"),
    (questions, "through"),
    (questions, "nat"),
    (side, "learn"),
    (loop, "found_in"),
    (images, "canonical"),
    (images, "image"),
    (worker, "was_open"),
    (worker, "desired_state"),
    (worker, "torn"),
    (worker, "plan"),
    (reconciliation, "desired_state"),
)


_OF_PACKETS = (questions.egress, questions.through, questions.nat)


def _concerning(ruleset: Ruleset, packets: tuple[Packet, ...], *values: Any) -> tuple[Any, ...]:
    """A question about packets of one family is one about the tables that these may meet."""
    families = {f"ip{'6' * (packet.src.version == 6)}" for packet in packets} | {"inet"}
    if len(families) == 2:
        ruleset = Ruleset(tuple(table for table in ruleset.tables if table.family in families), ruleset.node)
    return ruleset, packets, *values


class _Numbers:
    """A number for each value of a rule set: equal for equal tables in the same order. Handles do not count, as for the
    evaluator."""

    def __init__(self) -> None:
        self._chains: dict[Chain, int] = {}
        self._of_chain: dict[int, tuple[Chain, int]] = {}  # by identity; what is named by one is kept alive
        self._tables: dict[tuple[Any, ...], int] = {}
        self._of_table: dict[int, tuple[Table, int]] = {}
        self._of_holding: dict[int, object] = {}

    def state(self, state: NodeState) -> tuple[Any, ...]:
        """By the identity of what was read."""
        self._of_holding.update((id(held), held) for held in state.places.values())
        return tuple((place, id(held)) for place, held in state.places.items())

    def ruleset(self, ruleset: Ruleset) -> tuple[int, ...]:
        return tuple(map(self._table, ruleset.tables))

    def _table(self, table: Table) -> int:
        known = self._of_table.get(id(table))
        if known is None:
            value = table.family, table.name, table.legacy, *map(self._chain, table.chains.values())
            known = self._of_table[id(table)] = table, self._tables.setdefault(value, len(self._tables))
        return known[1]

    def _chain(self, chain: Chain) -> int:
        known = self._of_chain.get(id(chain))
        if known is None:
            known = self._of_chain[id(chain)] = chain, self._chains.setdefault(chain, len(self._chains))
        return known[1]

    @property
    def many(self) -> bool:
        return any(len(each) > _MOST for each in (self._of_table, self._of_chain, self._of_holding))


class Answers:
    """What was worked out. ``worked_out`` and ``known`` count."""

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._known: dict[tuple[Any, ...], tuple[Any, HitlessError | None]] = {}
        self.worked_out = self.known = 0

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function; a rule set among its arguments has no ``node``, which would be somebody else to ask."""

        def asked(*values: Any, **named: Any) -> Any:
            values = tuple(tuple(value) if isinstance(value, Iterator | list) else value for value in values)
            if function in _OF_PACKETS:
                values = _concerning(*values)
            key = function, *map(self._key, values), *sorted(named.items())
            found = self._known.get(key)
            if found is None:
                self._forget()
                self.worked_out += 1
                found = self._known[key] = _result(function, *values, **named)
            else:
                self.known += 1
                if self.known % AGAIN == 0:
                    anew = _result(function, *values, **named)
                    assert anew[0] == found[0] and repr(anew[1]) == repr(found[1]), f"{function} is not pure"
            result, error = found
            if error is not None:
                raise error
            return result

        return asked

    def _key(self, value: Any) -> Any:
        if isinstance(value, NodeState):
            return self._numbers.state(value)
        if isinstance(value, SourceSnapshot):
            return *value.networks.items(), value.masquerade, value.random_fully, value.forward
        if not isinstance(value, Ruleset):
            return value
        assert value.node is None
        return self._numbers.ruleset(value)

    def _forget(self) -> None:
        if len(self._known) > _MOST or self._numbers.many:
            self._known.clear()
            self._numbers = _Numbers()


def _result(function: Callable[..., Any], *values: Any, **named: Any) -> tuple[Any, HitlessError | None]:
    try:
        return function(*values, **named), None
    except HitlessError as error:
        return None, error


@contextlib.contextmanager
def _default(function: Any, name: str, value: Any) -> Iterator[None]:
    """Another default for the last parameter, or for a keyword."""
    named, last = function.__kwdefaults__, function.__defaults__
    if named and name in named:
        function.__kwdefaults__ = {**named, name: value}
    else:
        function.__defaults__ = (*last[:-1], value)
    try:
        yield
    finally:
        function.__kwdefaults__, function.__defaults__ = named, last


@contextlib.contextmanager
def remembering() -> Iterator[Answers]:
    """Questions to rule sets are answered from memory, where they can be."""
    answers = Answers()
    with contextlib.ExitStack() as patches:
        for module, name in _PURE:
            patches.enter_context(patch.object(module, name, answers.of(getattr(module, name))))
        # the planner that a pass takes unless it is given another one was bound when its function was defined
        planned = answers.of(plan)
        for function in (reconciliation.reconcile, reconciliation.plan_pass):
            patches.enter_context(_default(function, "how", planned))
        yield answers
