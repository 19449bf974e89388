"""On which nodes a DaemonSet runs: selectors, affinity and taints as the controller weighs them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hitless.kube.objects import DaemonSet, Node
from hitless.kube.placement import runs_on


def node(name: str = "n", system: str = "linux", labels: dict[str, str] | None = None, *taints: str) -> Node:
    """``taints`` as KEY=VALUE:EFFECT."""
    parts = [one.replace("=", ":").split(":") for one in taints]
    whole: dict[str, Any] = {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": [{"key": key, "value": value, "effect": effect} for key, value, effect in parts]},
        "status": {"nodeInfo": {"operatingSystem": system, "architecture": "arm64"}},
    }
    return msgspec.convert(whole, Node)


def daemon_set(**spec: object) -> DaemonSet:
    return msgspec.convert({"spec": {"template": {"spec": spec}}}, DaemonSet)


def affinity(*terms: dict[str, object]) -> DaemonSet:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}
    return daemon_set(affinity={"nodeAffinity": required})


def label(key: str, operator: str, *values: str) -> dict[str, object]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def test_a_linux_selector_excludes_windows_by_label_or_by_the_nodes_own_status() -> None:
    linux = daemon_set(nodeSelector={"kubernetes.io/os": "linux"})
    assert runs_on(linux, node())
    assert not runs_on(linux, node(system="windows"))
    assert not runs_on(linux, node(system="", labels={"kubernetes.io/os": "windows"}))


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (label("kubernetes.io/arch", "In", "arm64", "amd64"), True),
        (label("kubernetes.io/arch", "NotIn", "arm64"), False),
        (label("zone", "Exists"), True),
        (label("zone", "DoesNotExist"), False),
        (label("generation", "Gt", "3"), True),
        (label("generation", "Lt", "3"), False),
        (label("zone", "Gt", "3"), False),
        (label("zone", "Nearly", "x"), True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}, False),
        ({}, False),
    ],
)
def test_required_affinity_is_weighed_by_its_operators(term: dict[str, object], expected: bool) -> None:
    there = node(labels={"zone": "a", "generation": "4"})
    assert runs_on(affinity(term), there) is expected
    assert runs_on(affinity(term, label("zone", "In", "a")), there), "one term that holds is enough"


def test_taints_exclude_unless_they_are_tolerated_and_the_controllers_own_never_do() -> None:
    plain, own = daemon_set(), node("n", "linux", None, "node.kubernetes.io/not-ready=:NoExecute")
    tainted = node("n", "linux", None, "dedicated=gpu:NoSchedule")
    assert runs_on(plain, own)
    assert runs_on(plain, node("n", "linux", None, "dedicated=gpu:PreferNoSchedule"))
    assert not runs_on(plain, tainted)
    assert runs_on(daemon_set(tolerations=[{"operator": "Exists"}]), tainted)
    assert runs_on(daemon_set(tolerations=[{"key": "dedicated", "value": "gpu"}]), tainted)
    assert not runs_on(daemon_set(tolerations=[{"key": "dedicated", "value": "cpu"}]), tainted)
    assert not runs_on(daemon_set(tolerations=[{"operator": "Exists", "effect": "NoExecute"}]), tainted)
