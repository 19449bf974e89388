"""A look at the node is a reason to ask again only where others are to be asked than last time."""

from __future__ import annotations

from collections.abc import Collection

from tests.unit.observe.three import Node

from hitless.agent.judge import NodeJudge
from hitless.agent.ports import AroundPort
from hitless.agent.runtime import SYSTEM
from hitless.model.families import Family
from hitless.model.reading import network
from hitless.model.rules import Ruleset
from hitless.observe.pods import LocalPod
from hitless.sources import FamilyNetworks, SourceSnapshot

NETWORK, SUBNET = network("10.42.0.0/16", where="test"), network("10.42.0.0/24", where="test")
SNAPSHOT = SourceSnapshot({Family.IPV4: FamilyNetworks(NETWORK, SUBNET)})


class Looked(Node):
    """Always looked at anew."""

    def look(self, now: float) -> bool:
        return True


class QuietRules:
    """Rules that stay as they are, around a node."""

    def __init__(self) -> None:
        self.node, self.asked = Looked((LocalPod(NETWORK[7], "veth7"),), "eth0"), 0

    def changed(self, families: Collection[Family]) -> bool:
        return False

    def everything(self, families: Collection[Family]) -> Ruleset:
        self.asked += 1
        return Ruleset()

    def around(self, families: Collection[Family]) -> AroundPort:
        return self.node

    def close(self) -> None:
        pass


def test_a_node_that_is_as_it_was_is_not_asked_about_again_and_another_one_is() -> None:
    rules = QuietRules()
    judging = NodeJudge(rules, SYSTEM)
    assert judging.judge(SNAPSHOT, changed=False) is not None  # the first time
    assert judging.judge(SNAPSHOT, changed=False) is None
    assert judging.judge(SNAPSHOT) is not None
    rules.node.pods = (LocalPod(NETWORK[8], "veth8"),)
    assert judging.judge(SNAPSHOT, changed=False) is not None
    assert judging.judge(SNAPSHOT, changed=False) is None
    rules.node.way = ""
    assert judging.judge(SNAPSHOT, changed=False) is not None
    assert rules.asked == 4
