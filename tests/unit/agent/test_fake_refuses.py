"""The fake kernel refuses what the real one refuses."""

from __future__ import annotations

import pytest
from tests.contract.refusals import NATIVE, REFUSED, refuses

from hitless.model.families import Backend
from hitless.testing.fake_kernel import FakeKernel


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_text_changes_nothing(backend: Backend, name: str) -> None:
    refuses(FakeKernel(), backend, REFUSED[name])


@pytest.mark.parametrize("name", NATIVE)
def test_a_wrong_batch_changes_nothing(name: str) -> None:
    refuses(FakeKernel(), Backend.NFTABLES, NATIVE[name])
