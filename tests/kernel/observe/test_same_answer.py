"""For every rule set of the corpus, loaded into a kernel, the watch, the agent and the guard report the same."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.kernel.observe.everybody import Everybody
from tests.kernel.semantics.corpus import Node, cases
from tests.kernel.semantics.wires import need, wires
from tests.unit.guard.flannels import NETWORK

from hitless.model.families import Family

pytestmark = pytest.mark.kernel


def test_all_three_observers_report_the_same_for_the_corpus() -> None:
    need(
        "ipset", "iptables-nft-restore", "iptables-legacy-restore", "ip6tables-nft-restore", "ip6tables-legacy-restore"
    )
    wrong, tally = [], Counter[str]()
    with wires() as net, Everybody(net.node, tuple(Family)) as everybody:
        node = Node(net)
        for number, case in enumerate(cases()):
            backend = case.backends[number % len(case.backends)]
            node.load(case, backend)
            for family in case.families:
                told = everybody.say(NETWORK[family], family)
                tally[told["watch"][0]] += 1
                if len({state for state, _ in told.values()}) > 1:
                    wrong.append(f"{case.name} ({backend}, {family}): {told}")
    assert not wrong, "\n".join(wrong)
    assert sum(tally.values()) >= 50
    assert tally["carried"] >= 10, tally
    assert tally["not_carried"] >= 10, tally
