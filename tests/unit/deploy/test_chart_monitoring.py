"""What the chart makes for the Prometheus operator, against the operator's own schemas."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from tests.unit.deploy.operator_schemas import schema_of
from tests.unit.deploy.test_chart import of
from tests.unit.deploy.test_chart_options import DRILL, METRICS, render

MONITORED = (METRICS, "guard.metrics.podMonitor=true", "guard.metrics.alerts=true", "guard.metrics.labels.release=p",
             DRILL, "drill.alerts=true", "drill.alertLabels.release=p")  # fmt: skip


def refusals(document: dict[str, Any]) -> list[str]:
    """What is wrong with the object."""
    validator = jsonschema.Draft7Validator(schema_of(document["kind"]))
    return [one.message for one in validator.iter_errors(document)]


@pytest.mark.slow
def test_monitors_and_rules_fit_the_operators_schemas() -> None:
    documents = render(*MONITORED)
    monitors, rules = of(documents, "PodMonitor"), of(documents, "PrometheusRule")
    assert (len(monitors), len(rules)) == (1, 2)
    for document in (*monitors, *rules):
        assert document["apiVersion"] == "monitoring.coreos.com/v1"
        assert refusals(document) == []


@pytest.mark.parametrize(
    ("kind", "at", "value", "words"),
    [
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "relabelling"), [], "relabelling"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), "often", "often"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "scheme"), "ftp", "ftp"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "port"), 9470, "9470"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "portNumber"), 0, "minimum"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "relabelings", 0, "sourceLabels"), "a", "'a'"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "relabelings", 0, "sourceLabels"), ["a-b"], "a-b"),
        ("PodMonitor", ("spec", "selector"), None, "'selector' is a required property"),
        ("PrometheusRule", ("spec", "groups", 0, "name"), None, "'name' is a required property"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "soon", "soon"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), None, "'expr' is a required property"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "labels"), {"severity": 1}, "1 is not"),
        ("PrometheusRule", ("spec", "group"), [], "group"),
    ],
)
def test_a_slip_in_one_of_them_would_be_seen(kind: str, at: tuple[str | int, ...], value: object, words: str) -> None:
    document = copy.deepcopy(of(render(*MONITORED), kind)[0])
    place: Any = document
    for key in at[:-1]:
        place = place[key]
    if value is None:
        del place[at[-1]]
    else:
        place[at[-1]] = value
    assert any(words in one for one in refusals(document)), refusals(document)


def test_the_monitor_finds_the_guards_port_by_its_name_and_pods() -> None:
    documents = render(*MONITORED)
    (monitor,), (guard,) = of(documents, "PodMonitor"), of(documents, "DaemonSet")
    template = guard["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (port,) = template["spec"]["containers"][0]["ports"]
    assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")
