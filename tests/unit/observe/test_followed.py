"""What the running observers report after each change is what a fresh evaluation of the same rules comes to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import pytest
from tests.unit.observe.followed import STEPS, stale

from hitless.agent.egress import Egress
from hitless.guard import side
from hitless.model.families import Family
from hitless.model.rules import Hook, Ruleset, Table
from hitless.semantics import ChainName
from hitless.watch.loop import WatchLoop

CASES = int(os.environ.get("HITLESS_OBSERVER_SEQUENCES", "16"))
SEED = os.environ.get("HITLESS_SEED", "1")


@pytest.mark.slow
def test_after_each_change_all_three_report_what_a_fresh_evaluation_comes_to() -> None:
    tally: Counter[str] = Counter()
    assert not list(stale(SEED, CASES, tally))
    assert tally["steps"] == CASES * STEPS
    # changes that are passed over, and those that make a difference, are what this is about
    assert 0.1 < tally["guard passed over"] / tally["steps"] < 0.8, tally
    assert tally["states changed"] > 0.2 * tally["steps"], tally
    assert tally["guard has no pods"] < 0.5 * tally["steps"], tally
    for name in ("watch", "agent", "guard"):
        assert all(tally[f"{name} {state}"] for state in ("carried", "cannot_tell", "not_carried")), tally


def _without(hidden: Callable[[Hook], bool]) -> Callable[[pytest.MonkeyPatch], None]:
    """The guard does not compare base chains at some hooks."""
    passed = side._passed

    def mistaken(ruleset: Ruleset, family: Family, met: Collection[ChainName]) -> Iterator[object]:
        def seen(table: Table) -> Table:
            chains = {name: one for name, one in table.chains.items() if one.hook is None or not hidden(one.hook)}
            return replace(table, chains=chains)

        return passed(replace(ruleset, tables=tuple(map(seen, ruleset.tables))), family, met)

    return lambda patch: patch.setattr(side, "_passed", mistaken)


def _met_no_chains(patch: pytest.MonkeyPatch) -> None:
    passed = side._passed
    patch.setattr(side, "_passed", lambda ruleset, family, _: passed(ruleset, family, ()))


MISTAKES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the guard passes over nat chains at prerouting": _without(
        lambda hook: hook.type == "nat" and hook.hook == "prerouting"
    ),
    "the guard forgets the chains that packets met": _met_no_chains,
    "the guard does not evaluate other pods": lambda patch: patch.setattr(side.Side, "ask_again", lambda _: None),
    "the agent does not evaluate other pods": lambda patch: patch.setattr(Egress, "moved", lambda *_, **__: False),
    "the watch passes over base chains": lambda patch: patch.setattr("hitless.watch.loop._HOOKS", frozenset()),
    "the watch passes over what changed": lambda patch: patch.setattr(WatchLoop, "_matters", lambda *_: False),
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_detection_of_changes_that_misses_one_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MISTAKES[mistake](monkeypatch)
    next(stale("mistakes 4", 500, Counter()))  # the first is enough
