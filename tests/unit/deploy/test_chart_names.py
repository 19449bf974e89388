"""The chart more than once in a cluster, under names of one's choice, and with the values of an older one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.unit.deploy.test_chart import CHART, fits, of, program

CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "PriorityClass", "Namespace", "CustomResourceDefinition"}
ALL = (
    "drill.enabled=true", "drill.alerts=true", "drill.networkPolicy.enabled=true", "guard.criticalPods=10",
    "guard.metrics.enabled=true", "guard.metrics.podMonitor=true", "guard.metrics.alerts=true",
)  # fmt: skip


def release(
    name: str, namespace: str, *settings: str, values: Path | None = None, more: bool = True
) -> list[dict[str, Any]]:
    """Everything that the chart can make; ``more=False``: what it makes by itself, and the drill."""
    command = [program("helm"), "template", name, str(CHART), "--namespace", namespace]
    command += ["--values", str(values)] if values else []
    for setting in (*(ALL if more else ALL[:1]), *settings):
        command += ["--set", setting]
    return [one for one in yaml.safe_load_all(subprocess.check_output(command, text=True)) if one]


def names(documents: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Kind, place, name; an object without a place would be wherever kubectl happens to point."""
    found = set()
    for one in documents:
        wide = one["kind"] in CLUSTER_WIDE
        assert wide != ("namespace" in one["metadata"]), one["metadata"]
        found.add((one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]))
    assert len(found) == len(documents), "two objects of one name"
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("hitless", "a"), ("hitless", "b")),
        (("hitless", "default"), ("hitless", "kube-system")),  # where the rights are that every release needs
        (("guard", "a"), ("drill", "a")),
        (("hitless-b", "a"), ("b", "a-hitless")),
        (("b-hitless", "a"), ("hitless", "a-b")),
        ((f"{'x' * 40}-1", "a"), (f"{'x' * 40}-2", "a")),
        (("one", "a", "fullnameOverride=net"), ("one", "b", "fullnameOverride=net")),
        (("one", "a", "nameOverride=net"), ("two", "a", "nameOverride=net")),
    ],
    ids=str,
)
def test_two_releases_share_no_object_and_no_pods(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    rendered = [release(*one), release(*other)]
    found = [names(documents) for documents in rendered]
    assert all(any(place == "" for _, place, _ in each) for each in found), "nothing was compared cluster-wide"
    assert found[0] & found[1] == set()
    selectors = [of(documents, "DaemonSet")[0]["spec"]["selector"]["matchLabels"] for documents in rendered]
    assert one[1] != other[1] or selectors[0] != selectors[1]


@pytest.mark.slow
def test_names_can_be_chosen_and_the_pods_stay_selected_as_they_were() -> None:
    for settings, name in (
        ((), "r-hitless"), (("nameOverride=net",), "r-net"), (("fullnameOverride=net",), "net"),
        (("nameOverride=x", "fullnameOverride=net"), "net"),
    ):  # fmt: skip
        documents = release("r", "place", *settings)
        assert {one["metadata"]["name"] for one in documents} <= {
            *(f"{name}-{part}" for part in ("guard", "drill", "drill-probes", "drill-test")),
            *(f"place:{name}-{part}" for part in ("guard", "drill", "drill-agent", "drill-events", "drill-rollout")),
        }
        (guard,) = of(documents, "DaemonSet")
        selected = {"app.kubernetes.io/name": "hitless", "app.kubernetes.io/instance": "r"}
        assert guard["spec"]["selector"]["matchLabels"] == {**selected, "app.kubernetes.io/component": "guard"}


@pytest.mark.slow
def test_every_name_fits_whatever_the_release_is_called() -> None:
    long = "y" * 46
    for settings in ((), (f"nameOverride={long}",), (f"fullnameOverride={long}",)):
        for _, place, name in names(release("x" * 53, "n" * 63, *settings)):
            own = name.removeprefix(f"{'n' * 63}:")
            assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", own), name
            assert len(own) <= 63
            assert (own == name) == (place == "n" * 63), "what lies elsewhere says whose it is"
        (job,) = of(release("x" * 53, "n" * 63, *settings), "CronJob")
        assert len(job["metadata"]["name"]) <= 52


@pytest.mark.parametrize("setting", ["nameOverride=Net", "nameOverride=-a", "fullnameOverride=a.b",
                                     f"fullnameOverride={'x' * 47}"])  # fmt: skip
def test_a_name_that_kubernetes_would_refuse_is_refused_here(setting: str) -> None:
    command = [program("helm"), "template", "r", str(CHART), "--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert setting.partition("=")[0] in done.stderr


def test_a_release_rings_for_its_own_drills_only() -> None:
    (rule,) = (
        one for one in of(release("r", "place", "fullnameOverride=net"), "PrometheusRule") if "drill" in str(one)
    )
    (alert,) = rule["spec"]["groups"][0]["rules"]
    patterns = set(re.findall('job_name=~"([^"]+)"', alert["expr"]))
    assert patterns == {"net-drill-[0-9]+"}


def test_labels_of_ones_own_are_never_there_twice() -> None:
    """One key twice is refused by a strict reader; the nearer word wins, and the chart's own before all."""
    same = [f"{where}.team=x" for where in ("guard.podLabels", "drill.podLabels", "guard.metrics.labels")]
    command = [program("helm"), "template", "r", str(CHART), "--namespace", "p"]
    for setting in (*ALL, *same, "drill.alertLabels.team=x", "commonLabels.team=common"):
        command += ["--set", setting]
    text = subprocess.check_output(command, text=True)
    documents = [one for one in yaml.load_all(text, Loader=Strict) if one]
    of_pods = [one["metadata"]["labels"]["team"] for one in _templates(documents)]
    assert of_pods == ["x"] * 3
    labels = {one["kind"]: one["metadata"]["labels"]["team"] for one in documents}
    assert (labels["DaemonSet"], labels["PodMonitor"], labels["PrometheusRule"]) == ("common", "x", "x")


class Strict(yaml.SafeLoader):
    """YAML in which one key twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
        return super().construct_mapping(node, deep)


def _templates(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All pods: the guards', the driver's, the rehearsal's."""
    (guard,), (job,), (test,) = (of(documents, kind) for kind in ("DaemonSet", "CronJob", "Pod"))
    return [guard["spec"]["template"], job["spec"]["jobTemplate"]["spec"]["template"], test]


def test_what_an_operator_says_of_pods_is_in_them() -> None:
    told = [
        word
        for part in ("guard", "drill")
        for word in (
            f"{part}.podLabels.a=b", f"{part}.podAnnotations.c\\.d/e=f",
            f"{part}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"
            ".nodeSelectorTerms[0].matchExpressions[0].key=k",
        )
    ]  # fmt: skip
    told += ["guard.seLinuxOptions.type=spc_t", "drill.podNodeSelector.zone=a", "drill.priorityClassName=high"]
    guard, drill, test = _templates(release("r", "p", *told))
    for pod in (guard, drill, test):
        assert pod["metadata"]["labels"]["a"] == "b"
        assert pod["metadata"]["annotations"]["c.d/e"] == "f"
        assert "nodeAffinity" in pod["spec"]["affinity"]
        (container,) = pod["spec"]["containers"]
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert guard["spec"]["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    for pod in (drill, test):
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux", "zone": "a"}
        assert pod["spec"]["priorityClassName"] == "high"
    calm = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    assert drill["metadata"]["annotations"][calm] == "false"
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"
    key = calm.replace(".", "\\.")
    _, drill, _ = _templates(release("r", "p", f"drill.podAnnotations.{key}=maybe"))
    assert drill["metadata"]["annotations"][calm] == "maybe"


@pytest.mark.parametrize(
    ("settings", "told", "untold"),
    [
        ("", ("rollout status ds/net-guard", "exec ds/net-guard", "privileged"), ("cronjob", "nil", "helm test")),
        ("drill.enabled=true", ("rollout status ds/net-guard", "cronjob/net-drill", "helm test -n p r"), ("nil",)),
        ("drill.enabled=true,guard.enabled=false", ("privileged", "cronjob/net-drill"), ("net-guard",)),
        ("guard.remove=true", ("is being removed", "rollout status ds/net-guard"), ("Uninstalling leaves",)),
        ("guard.observe=true", ("protects nothing", "exec ds/net-guard"), ("stands by",)),
        ("guard.enabled=false", (), ("privileged", "kubectl")),
    ],
)  # fmt: skip
def test_what_is_said_after_an_installation_names_what_was_installed(
    settings: str, told: tuple[str, ...], untold: tuple[str, ...], tmp_path: Path
) -> None:
    command = [program("helm"), "install", "r", str(CHART), "--namespace", "p", "--dry-run=client"]
    command += ["--set", f"fullnameOverride=net,{settings}".rstrip(",")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}  # without a cluster
    notes = subprocess.check_output(command, text=True, env=environment).partition("NOTES:")[2]
    assert all(word in notes for word in told), notes
    assert not any(word in notes for word in untold), notes


@pytest.mark.parametrize(
    "setting",
    [
        "guard.updateStrategy.rollingUpdate.maxSurge=1", "guard.criticalPods=-1", "guard.affinity.podAfinity.x=1",
        "guard.podLabels.app\\.kubernetes\\.io/component=x", "drill.podAnnotations.helm\\.sh/hook=x",
        "guard.seLinuxOptions.tipe=x", "drill.networkPolicy.apiServerPorts={}",
        "drill.networkPolicy.apiServers={10.43.0.1}",
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(setting: str) -> None:
    """A surge of guards would wait for ever: the second guard of a node refuses to start beside the first one."""
    command = [program("helm"), "template", "r", str(CHART), "--set", setting]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_quota_admits_critical_pods_where_only_a_quota_can() -> None:
    (quota,) = of(release("r", "p", "guard.criticalPods=1000000"), "ResourceQuota")
    assert quota["spec"]["hard"] == {"pods": "1000000"}
    (scope,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    assert scope == {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
    assert of(release("r", "p", "guard.criticalPods=0"), "ResourceQuota") == []
    command = [program("helm"), "template", "r", str(CHART), "--set=guard.criticalPods=1,guard.priorityClassName="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "which is empty" in done.stderr


def _missing(values: dict[str, Any], valid: Callable[[], bool], at: str = "") -> dict[str, Any]:
    """Every value that the schema lets be absent, as a null: helm takes the chart's own away for it."""
    found: dict[str, Any] = {}
    for key in list(values):
        value = values.pop(key)
        needed = any(one.startswith(f"{at}{key}") for one in (*ALL, "guard.priorityClassName"))
        absent = valid() and not needed
        values[key] = value
        if absent:
            found[key] = None
        elif isinstance(value, dict):
            found[key] = _missing(value, valid, f"{at}{key}.")
    return found


@pytest.mark.slow
def test_a_value_that_is_missing_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    """`helm upgrade --reuse-values` brings an older chart's values, without those that it did not have."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    validator = jsonschema.Draft7Validator(yaml.safe_load((CHART / "values.schema.json").read_text()))
    missing = _missing(values, lambda: validator.is_valid(values))
    assert "daemonSet" not in missing["drill"]["agent"]
    assert "port" not in missing["guard"]["metrics"]
    assert set(missing["guard"]) > {"affinity", "podLabels", "podAnnotations", "seLinuxOptions", "resources"}
    assert missing["drill"]["networkPolicy"] == {"apiServerPorts": None, "apiServers": None}
    given = tmp_path / "values.yaml"
    given.write_text(yaml.safe_dump(missing))
    documents = release("r", "p", values=given)
    assert sum(fits(document, "1.27") for document in documents) >= 4
    assert "nil" not in str(documents)
    assert of(documents, "NetworkPolicy") == of(release("r", "p"), "NetworkPolicy")
    missing["drill"]["networkPolicy"] = None
    given.write_text(yaml.safe_dump(missing))
    assert of(release("r", "p", values=given, more=False), "NetworkPolicy") == []
