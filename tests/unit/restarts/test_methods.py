"""Every method of restart has all that is said of one, wherever it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hitless.cluster import manifests
from hitless.restarts.methods import ApiMethod, entry_of

SCHEMA = Path(__file__).parents[3] / "deploy/chart/values.schema.json"


@pytest.mark.parametrize("method", ApiMethod)
def test_a_method_has_a_text_for_dry_runs_and_exactly_the_permission_that_it_needs(method: ApiMethod) -> None:
    entry = entry_of(method)
    assert "rke2-canal" in entry.call.format(agent="rke2-canal", place="kube-system", container="kube-flannel")
    pods = manifests.PodOptions("x")
    granted = json.dumps(manifests.rights(pods, method, "kube-system", "rke2-canal", [], makes_namespace=False))
    if entry.right is None:
        assert entry.sees_processes, "what needs no right of the API is done on the node"
        return
    group, resource, verb = entry.right
    rule = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
    rule |= {"resourceNames": ["rke2-canal"]} if entry.named else {}
    assert json.dumps(rule) in granted


def test_the_chart_offers_every_method() -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema["properties"]["drill"]["properties"]["restart"]["enum"] == list(ApiMethod)
