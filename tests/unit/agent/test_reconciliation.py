"""One pass, when things go wrong on the way."""

from __future__ import annotations

import pytest
from tests.contract.adoption import is_right
from tests.contract.start_states import snapshot

from hitless.agent.reconciliation import reconcile
from hitless.errors import ProgramError
from hitless.kernel.iptables import LockBusy, NotSupported
from hitless.model.families import Backend, Family
from hitless.testing.fake_kernel import FakeKernel

FAMILIES = (Family.IPV4, Family.IPV6)


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_an_iptables_without_random_fully_gets_plain_rules_and_the_next_pass_writes_nothing(backend: Backend) -> None:
    kernel = FakeKernel(random_fully=False)
    result = reconcile(kernel, snapshot(*FAMILIES), backend)
    assert result.settled and result.random_fully is False
    is_right(kernel.observe(FAMILIES), snapshot(*FAMILIES, random_fully=False), backend)
    again = reconcile(kernel, snapshot(*FAMILIES), backend, random_fully=result.random_fully)
    assert not again.applied


def test_a_kernel_that_refuses_random_fully_gets_plain_rules() -> None:
    kernel = FakeKernel()
    kernel.fail_next(NotSupported(("iptables-nft-restore",), 2, "unknown option"))
    result = reconcile(kernel, snapshot(Family.IPV4), Backend.NFT)
    assert result.settled and result.random_fully is False


def test_any_other_refusal_does_not_take_random_fully_away() -> None:
    kernel = FakeKernel()
    kernel.fail_next(NotSupported(("iptables-nft-restore",), 1, "Invalid argument"), times=9)
    result = reconcile(kernel, snapshot(Family.IPV4), Backend.NFT)
    assert not result.settled and result.error is not None and result.random_fully is True


def test_a_busy_lock_ends_the_pass_and_the_next_one_finishes() -> None:
    kernel = FakeKernel()
    kernel.fail_next(LockBusy(("iptables-legacy-restore",), 4, "Another app is currently holding the xtables lock"))
    result = reconcile(kernel, snapshot(*FAMILIES), Backend.LEGACY)
    assert not result.settled and isinstance(result.error, LockBusy) and result.left.transactions
    assert reconcile(kernel, snapshot(*FAMILIES), Backend.LEGACY).settled


@pytest.mark.parametrize("failing", range(8))
def test_a_failure_anywhere_converges_when_it_goes_away(failing: int) -> None:
    """A switch of backends: eight transactions, and any of them may fail."""
    kernel = FakeKernel()
    assert reconcile(kernel, snapshot(*FAMILIES), Backend.LEGACY).settled

    count = 0
    real = kernel.apply

    def apply(transaction: object) -> None:
        nonlocal count
        count += 1
        if count == failing + 1:
            raise ProgramError(("iptables",), 1, "no")
        real(transaction)  # type: ignore[arg-type]  # passed through

    kernel.apply = apply  # type: ignore[method-assign]  # the n-th commit fails
    reconcile(kernel, snapshot(*FAMILIES), Backend.NFT)
    assert reconcile(kernel, snapshot(*FAMILIES), Backend.NFT).settled
    is_right(kernel.observe(FAMILIES), snapshot(*FAMILIES), Backend.NFT)
