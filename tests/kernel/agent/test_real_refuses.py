"""The real kernel refuses what the fake one refuses."""

from __future__ import annotations

import pytest
from tests.contract.refusals import NATIVE, REFUSED, refuses
from tests.kernel.agent.real import RealKernel

from hitless.model.families import Backend

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_text_changes_nothing(kernel: RealKernel, backend: Backend, name: str) -> None:
    refuses(kernel, backend, REFUSED[name])


@pytest.mark.parametrize("name", NATIVE)
def test_a_wrong_batch_changes_nothing(kernel: RealKernel, name: str) -> None:
    refuses(kernel, Backend.NFTABLES, NATIVE[name])
