"""Adoption on the fake kernel: every start state, both families, every backend; and death at every commit."""

from __future__ import annotations

import pytest
from tests.contract.adoption import adopts, carried, is_right, prepare
from tests.contract.start_states import CASES, StartState, case_id, snapshot

from hitless.agent.reconciliation import plan_pass, reconcile
from hitless.model.families import Backend, Family
from hitless.testing.fake_kernel import Death, FakeKernel


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_any_start_state_is_adopted_without_a_generation_without_egress(
    case: tuple[StartState, Backend, Family],
) -> None:
    start, backend, family = case
    kernel = FakeKernel()
    prepare(kernel, start, backend, family)
    adopts(kernel, start, backend, family)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_death_at_any_commit_is_survived(case: tuple[StartState, Backend, Family], before: bool) -> None:
    start, backend, family = case
    deaths, writes = 0, True
    for step in range(12):
        kernel = FakeKernel()
        prepare(kernel, start, backend, family)
        base = kernel.commits
        writes = bool(plan_pass(kernel, snapshot(family), backend).transactions)
        kernel.die_at(base + step, before=before)
        try:
            reconcile(kernel, snapshot(family), backend)
        except Death:
            deaths += 1
        kernel.die_at(None)
        result = reconcile(kernel, snapshot(family), backend)
        assert result.settled
        is_right(kernel.observe((family,)), snapshot(family), backend)
        states = [carried(rules, family)[0] for rules in kernel.history[base:]]
        assert states == sorted(states, key=lambda state: state == "carried"), "egress came and went"
        if deaths <= step:
            break  # there is no such commit
    else:
        pytest.fail("more commits than a transition may need")
    assert deaths or not writes
