"""Every option of the chart, as an operator turns it on: alone, by an upgrade, with a slip of the pen."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.deploy import test_chart
from tests.unit.deploy.test_chart import CHART, fits, of, program

# A chart that is rendered twice with the same values is the same: these tests ask for the defaults again and again.
render = functools.cache(test_chart.render)

DRILL = "drill.enabled=true"
METRICS = "guard.metrics.enabled=true"
OPTIONS: tuple[tuple[str, ...], ...] = (
    ("image.repository=localhost:5000/net/hitless", "image.tag=1.0", f"image.digest=sha256:{'0' * 64}"),
    ("image.pullPolicy=Never", "image.pullSecrets={one,two}", DRILL),
    ("commonLabels.team=net", DRILL),
    ("guard.observe=true",),
    ("guard.remove=true", "image.pullSecrets={one}"),
    ("guard.profile=canal", "guard.family=ipv6", "guard.networks={10.42.0.0/16,fd42::/48}"),
    ("guard.events=false", "guard.journal="),
    (METRICS, "guard.metrics.port=9999"),
    (METRICS, "guard.metrics.podMonitor=true", "guard.metrics.alerts=true", "guard.metrics.labels.release=prometheus"),
    ("guard.tolerations[0].key=a", "guard.tolerations[0].operator=Exists", "guard.tolerations[0].effect=NoExecute"),
    ("guard.tolerations=null", "guard.priorityClassName=", "guard.nodeSelector.zone=a"),
    ("guard.updateStrategy.type=OnDelete", "guard.updateStrategy.rollingUpdate=null"),
    ("guard.updateStrategy.rollingUpdate.maxUnavailable=10%", "guard.resources.limits.cpu=200m"),
    (DRILL, "drill.suspend=true", "drill.schedule=@daily", "drill.timeZone=Europe/Berlin"),
    (DRILL, "drill.schedule=*/30 1-5 ? * MON\\,WED"),
    (DRILL, "drill.restart=rollout-restart", "drill.rounds=3", "drill.rate=200", "drill.family=dual"),
    (DRILL, "drill.restart=kill", "drill.abortAfter=500", "drill.nodeSelector=zone=a\\,role", "drill.to={node}"),
    (DRILL, "drill.restart=evict", "drill.abortAfter=", "drill.to={https://example.org/a?b=c#d,farend://[fd00::1]:7800}"),
    (DRILL, "drill.agent.namespace=kube-flannel", "drill.agent.daemonSet=kube-flannel-ds",
     "drill.agent.container=kube-flannel", "drill.agent.configMaps={kube-flannel-cfg}"),
    (DRILL, "drill.agent.configMaps=null", "drill.tolerations[0].operator=Exists", "drill.historyLimit=0"),
    (DRILL, "drill.pushgateway=https://push.example.org:9091/x", "drill.alerts=true", "drill.alertLabels.release=p"),
    (DRILL, "drill.networkPolicy.enabled=true", "drill.networkPolicy.apiServers={10.43.0.1/32}",
     "drill.pushgateway=http://push:9091", "drill.podLabels.a=b", "drill.podAnnotations.a=b"),
    (DRILL, "drill.podNodeSelector.zone=a", "drill.priorityClassName=high",
     "drill.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight=1",
     "drill.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey=k"),
    ("guard.criticalPods=200", "guard.seLinuxOptions.type=spc_t", "guard.podLabels.a=b", "guard.podAnnotations.a=b"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("settings", OPTIONS, ids=lambda one: one[0])
def test_each_option_makes_objects_that_every_kubernetes_of_these_years_takes(settings: tuple[str, ...]) -> None:
    command = [program("helm"), "lint", "--strict", "--quiet", str(CHART)]
    done = subprocess.run(
        [*command, *(f"--set={one}" for one in settings)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert sum(fits(one, "1.27", "1.31", "1.34", "1.37") for one in render(*settings)) >= 2


def _fixed(document: dict[str, Any]) -> tuple[tuple[str, str, str], Any]:
    """What an API server lets nobody change of an object that is there."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    who = (document["kind"], metadata.get("namespace", ""), metadata["name"])
    return who, (spec.get("selector"), document.get("roleRef"))


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda one: one[0])
def test_no_upgrade_changes_what_cannot_be_changed(settings: tuple[str, ...]) -> None:
    defaults = render(*([DRILL] if DRILL in settings else []))
    before, after = (dict(map(_fixed, some)) for some in (defaults, render(*settings)))
    assert before.keys() & after.keys()
    assert all(before[one] == after[one] for one in before.keys() & after.keys())


@pytest.mark.parametrize(
    "setting",
    [
        "image.repository=ghcr.io/hitless/hitless:1", "image.repository=", "image.tag=a b", "image.digest=sha256:1",
        "commonLabels.app\\.kubernetes\\.io/name=x", "commonLabels.team=a b", "image.pullSecrets={A}",
        "guard.journal=guard.jsonl", "guard.metrics.port=80", "guard.tolerations[0].effekt=x",
        "guard.tolerations[0].operator=Exist", "guard.updateStrategy.type=Rolling", "guard.resources.limit.cpu=1",
        "guard.updateStrategy.rollingUpdate.maxUnavailable=x", "guard.updateStrategy.rollingUpdate.maxUnavailable=0",
        "guard.updateStrategy.rollingUpdate.maxUnavailable=0%",
        "guard.updateStrategy.rollingUpdate.maxUnavailable=101%",
        "guard.resources.limits.memory=lots", "guard.priorityClassName=A", "drill.schedule=@sometimes",
        "drill.schedule=1 2 3 4", "drill.to={example.org}", "drill.abortAfter=0", "drill.nodeSelector=a in (b)",
        "drill.agent.daemonSet=kube-system/rke2-canal", "drill.agent.namespace=", "drill.agent.container=A",
        "drill.pushgateway=http://me:secret@push", "drill.pushgateway=push:9091", "drill.deadlineSeconds=5",
        "drill.timeZone=UTC+1 2",
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_is_refused(setting: str) -> None:
    render(setting, code=1)


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("guard.metrics.podMonitor=true", "need guard.metrics.enabled=true"),
        ("guard.metrics.alerts=true", "need guard.metrics.enabled=true"),
        ("drill.enabled=true,drill.alerts=true,drill.historyLimit=0", "needs drill.historyLimit of at least 1"),
    ],
)
def test_a_monitor_of_what_is_not_there_is_refused_with_the_remedy(setting: str, remedy: str) -> None:
    command = [program("helm"), "template", "hitless", str(CHART), "--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert remedy in done.stderr


@pytest.mark.parametrize(
    ("version", "taken"),
    [("v1.26.15", False), ("v1.27.3+k3s1", True), ("v1.34.1+rke2r1", True), ("v1.29.4-gke.1", True)],
)
def test_the_chart_is_for_kubernetes_1_27_and_later_of_every_distribution(version: str, taken: bool) -> None:
    command = [program("helm"), "template", "hitless", str(CHART), "--kube-version", version]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == taken, done.stderr


@pytest.mark.slow
def test_two_options_at_once_make_objects_that_are_as_good() -> None:
    """Each with one far away in the list; all pairs were tried once, by hand."""
    from tests.unit.deploy.test_chart_monitoring import refusals
    from tests.unit.deploy.test_chart_names import Strict

    for at, settings in enumerate(OPTIONS):
        both = (*settings, *OPTIONS[(at + 7) % len(OPTIONS)])
        command = [program("helm"), "template", "x" * 53, str(CHART), *(f"--set={one}" for one in both)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (both, done.stderr)
        documents = [one for one in yaml.load_all(done.stdout, Loader=Strict) if one]
        assert len(documents) >= 2
        assert all(fits(one, "1.27") or refusals(one) == [] for one in documents), both


@pytest.mark.slow
def test_any_release_name_makes_names_that_kubernetes_and_the_alerts_take() -> None:
    for release in ("x" * 53, f"{'x' * 31}-y", "my-hitless", "h"):
        command = [program("helm"), "template", release, str(CHART), "--set", DRILL]
        documents = [one for one in yaml.safe_load_all(subprocess.check_output(command, text=True)) if one]
        (name,) = (one["metadata"]["name"] for one in of(documents, "CronJob"))
        assert len(name) <= 52
        assert re.fullmatch(".*hitless.*-drill-[0-9]+", f"{name}-29386997")


def test_the_drill_is_told_the_agent_that_its_rights_are_for() -> None:
    documents = render(DRILL, "drill.agent.namespace=net", "drill.agent.daemonSet=ds", "drill.agent.container=c")
    assert {"--agent=net/ds/c"} < set(_job(documents)["args"])
    assert "--agent=kube-system/rke2-canal" in _job(render(DRILL))["args"]


def _job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    spec = of(documents, "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    container: dict[str, Any] = spec["containers"][0]
    return container


def test_helm_test_asks_what_the_schedule_will_and_touches_nothing() -> None:
    (pod,) = of(render(DRILL), "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (container,) = pod["spec"]["containers"]
    job = of(render(DRILL), "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["spec"]["serviceAccountName"] == job["serviceAccountName"]
    assert set(_job(render(DRILL))["args"]) - set(container["args"]) == {
        "--yes",
        "--json",
        "--quiet",
        "--out=/tmp/drill",
    }
    assert set(container["args"]) - set(_job(render(DRILL))["args"]) == {"--dry-run"}
    assert of(render(), "Pod") == []


def test_before_uninstalling_the_standby_is_removed_and_none_is_made() -> None:
    spec = of(render("guard.remove=true"), "DaemonSet")[0]["spec"]["template"]["spec"]
    (remove,), (guard,) = spec["initContainers"], spec["containers"]
    assert [*remove["command"], *remove["args"]] == ["hitless", "guard", "--run-dir=/run/hitless-guard", "remove"]
    assert remove["securityContext"] == guard["securityContext"]
    assert "--observe" in guard["args"]
    assert "readinessProbe" not in guard
    assert "initContainers" not in of(render(), "DaemonSet")[0]["spec"]["template"]["spec"]


def test_labels_that_prometheus_selects_by_are_on_monitors_and_rules() -> None:
    settings = ["guard.metrics.podMonitor=true", "guard.metrics.alerts=true", "guard.metrics.labels.r=g"]
    documents = render(METRICS, *settings, DRILL, "drill.alerts=true", "drill.alertLabels.r=d")
    found = [*of(documents, "PodMonitor"), *of(documents, "PrometheusRule")]
    labels = {(one["kind"], one["metadata"]["name"]): one["metadata"]["labels"]["r"] for one in found}
    assert labels == {
        ("PodMonitor", "hitless-guard"): "g",
        ("PrometheusRule", "hitless-guard"): "g",
        ("PrometheusRule", "hitless-drill"): "d",
    }


def test_the_last_drill_that_ended_is_what_rings(tmp_path: Path) -> None:
    played = tmp_path / "played.yaml"
    rules = CHART / "files/drill-alerts.yaml"
    played.write_text((Path(__file__).parent / "drill_alerts_played.yaml").read_text().replace("RULES", str(rules)))
    command = [program("promtool"), "test", "rules", str(played)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_the_charts_readme_sets_is_taken() -> None:
    text = (CHART / "README.md").read_text()
    lines = list(re.findall(r"`(--set [^`]+)`", text))
    assert len(lines) >= 8
    for line in [*lines, *(line for line in text.splitlines() if line.startswith("helm upgrade"))]:
        settings = [word for word in line.split() if "=" in word]
        assert render(*settings), line


def test_every_value_is_described_where_it_stands() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    blocks = {"image", "guard", "drill", "metrics", "rollingUpdate", "requests"}
    clear = {"type", "maxUnavailable", "cpu", "memory", "namespace", "daemonSet", "limits"}  # by the block's own words
    bare = []
    for before, line in itertools.pairwise(["", *lines]):
        match = re.match(r"^ *([A-Za-z]+):", line)
        if match and match[1] not in blocks | clear and not before.lstrip().startswith("#"):
            bare.append(line.strip())
    assert bare == []
