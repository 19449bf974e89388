"""Rule sets of nodes after real shapes: the answer is the packets', and the one that the sample's author expects."""

from __future__ import annotations

import pytest
from tests.kernel.semantics.corpus import Node, cases
from tests.kernel.semantics.wires import need, wires

pytestmark = pytest.mark.kernel


def test_every_rule_set_of_the_corpus_gets_the_answer_that_its_packets_give() -> None:
    need(
        "ipset", "iptables-nft-restore", "iptables-legacy-restore", "ip6tables-nft-restore", "ip6tables-legacy-restore"
    )
    wrong, asked = [], 0
    with wires() as net:
        node = Node(net)
        for case in cases():
            for backend in case.backends:
                node.load(case, backend)
                for protocol, said, came, reason in node.judge(case):
                    asked += 1
                    expected = case.answers[protocol]
                    where = f"{case.name} ({backend}) {protocol}"
                    if not said == came == expected:
                        wrong.append(f"{where}: {expected}, but said {said}, came {came}: {reason}")
                    elif case.rule and case.rule not in reason:
                        wrong.append(f"{where}: by {case.rule}, but {reason}")
    assert not wrong, "\n".join(wrong)
    assert len(cases()) >= 40
    assert asked >= 160
