"""The sample rules, written by this machine's programs and read live."""

from __future__ import annotations

import pytest
from tests.kernel.nftables.live_samples import written
from tests.kernel.nftables.nodes import Node
from tests.unit.nftables.rule_samples import IPTABLES, NFT, Sample, identity

from hitless.kernel.nftables import wire

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("sample", [*NFT, *IPTABLES], ids=identity)
def test_a_rule_that_was_written_is_read_back_with_its_meaning(node: Node, sample: Sample) -> None:
    state = written(node, sample).state
    table = state.tables[wire.NUMBERS[sample.family], sample.chain if sample in IPTABLES else "t"]
    chain = table.chains["SAMPLE" if sample in IPTABLES else sample.chain]
    assert tuple(rule.steps for rule in chain.decoded(table).rules) == sample.expected
