from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from hitless.lab import kube
from hitless.lab.plans import LabPlan
from hitless.model.families import Family

BUILT_IN = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}
TARGETS = {"ACCEPT", "DROP", "RETURN", "MARK", "MASQUERADE", "DNAT"}


def tables(text: str) -> Iterator[tuple[str, list[str]]]:
    for part in text.split("COMMIT\n"):
        if part:
            head, *lines = part.splitlines()
            assert head.startswith("*")
            yield head[1:], lines


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("services", [0, 7, 300])
def test_every_chain_that_is_used_is_declared_once(family: Family, services: int) -> None:
    text = kube.node_rules(LabPlan(nodes=2, pods_per_node=2, family="dual", services=services), family, 1)
    seen = 0
    for _, lines in tables(text):
        declared = [line.split()[0][1:] for line in lines if line.startswith(":")]
        assert len(set(declared)) == len(declared)
        for line in lines:
            if line.startswith("-A "):
                assert line.split()[1] in declared
                target = re.search(r" -[jg] (\S+)", line)
                assert target is not None, line
                assert target[1] in {*declared, *TARGETS}
                seen += 1
    assert seen > 50


@pytest.mark.parametrize("family", list(Family))
def test_five_thousand_services_are_a_realistic_number_of_rules(family: Family) -> None:
    lines = dict(tables(kube.node_rules(LabPlan(services=5000, family="dual"), family, 0)))["nat"]
    portals = [line for line in lines if line.startswith("-A KUBE-SERVICES ")]
    rules = [line for line in lines if line.startswith("-A ")]
    assert len(portals) == 5001  # the NodePorts rule is the last
    assert "KUBE-NODEPORTS" in portals[-1]
    assert 25_000 <= len(rules) <= 35_000


def test_flannels_rules_are_not_part_of_a_node() -> None:
    assert "FLANNEL" not in kube.node_rules(LabPlan(services=10), Family.IPV4, 0)


def test_the_same_plan_gives_the_same_rules() -> None:
    plan = LabPlan(services=20, pods_per_node=3)
    assert kube.node_rules(plan, Family.IPV4, 0) == kube.node_rules(plan, Family.IPV4, 0)


def test_ipv6_rules_hold_no_ipv4_address() -> None:
    text = kube.node_rules(LabPlan(services=200, family="dual"), Family.IPV6, 0)
    assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b", re.sub(r'"[^"]*"', "", text))


def test_policy_drop_leaves_the_decision_to_the_agents_forward_rules() -> None:
    accept = dict(tables(kube.node_rules(LabPlan(), Family.IPV4, 0)))["filter"]
    drop = dict(tables(kube.node_rules(LabPlan(forward_policy="drop"), Family.IPV4, 0)))["filter"]
    assert ":FORWARD ACCEPT [0:0]" in accept
    assert ":FORWARD DROP [0:0]" in drop
    felix = [line for line in accept if "Policy explicitly accepted" in line]
    assert len(felix) == 1
    assert not [line for line in drop if "Policy explicitly accepted" in line]


def test_conntrack_has_a_user_besides_masquerade() -> None:
    lines = dict(tables(kube.node_rules(LabPlan(), Family.IPV4, 0)))["filter"]
    assert any(line.startswith("-A KUBE-FORWARD") and "RELATED,ESTABLISHED -j ACCEPT" in line for line in lines)
