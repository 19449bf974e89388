"""The chart: linted and rendered by a real helm, checked against Kubernetes' schemas, with the rights of the drill."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hitless.cluster import manifests
from hitless.cluster.manifests import PodOptions
from hitless.restarts.methods import ApiMethod
from hitless.testing.api_rights import RbacRule, rules_of

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/chart"
NAMESPACE = "hitless-system"
EVERYTHING = (
    "guard.metrics.enabled=true",
    "guard.metrics.podMonitor=true",
    "guard.metrics.alerts=true",
    "guard.observe=true",
    "guard.networks={10.42.0.0/16,fd42::/48}",
    "image.pullSecrets={one}",
    "drill.enabled=true",
    "drill.alerts=true",
    "drill.rate=200",
    "drill.pushgateway=http://pushgateway.monitoring:9091",
    "drill.timeZone=Europe/Berlin",
    "drill.to={https://example.org/,node}",
    "commonLabels.team=net",
)


def program(name: str) -> str:
    found = shutil.which(name, path=f"{ROOT / '.venv/bin'}:{os.environ.get('PATH', '')}")
    if found is None:
        words = f"{name} is not installed: " + (
            "tools/get_helm.py" if name == "helm" else f"apt-get install {'prometheus' if name == 'promtool' else name}"
        )
        if os.environ.get("REQUIRE_KERNEL") == "1":
            pytest.fail(words)
        pytest.skip(words)
    return found


def render(*settings: str, code: int = 0) -> list[dict[str, Any]]:
    command = [program("helm"), "template", "hitless", str(CHART), "--namespace", NAMESPACE]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(code), done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one] if code == 0 else []


@functools.cache
def _fits(text: str, version: str) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(json.loads(text), version, strict=True)


def fits(document: dict[str, Any], *versions: str) -> bool:
    """Whether an object has a schema of Kubernetes, and fits it (else an error); the same object is looked at once."""
    if document["apiVersion"].startswith("monitoring.coreos.com/"):  # the operator's: test_chart_monitoring
        return False
    for version in versions:
        _fits(json.dumps(document, sort_keys=True), version)
    return True


def of(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in documents if one["kind"] == kind]


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    done = subprocess.run(
        [program("helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.27", "1.30", "1.34"])
@pytest.mark.parametrize("settings", [(), EVERYTHING, ("guard.enabled=false", "drill.enabled=true")])
def test_every_object_fits_the_schemas_of_kubernetes(version: str, settings: tuple[str, ...]) -> None:
    assert sum(fits(document, version) for document in render(*settings)) >= 4


@pytest.mark.parametrize("version", ["1.27", "1.30", "1.34"])
def test_the_pods_of_a_drill_fit_the_schemas_of_kubernetes(version: str) -> None:
    pods = PodOptions("d1", see_processes=version != "1.27", pull_secrets=("one",), networks=("10.42.0.0/16",))
    owner = manifests.owner(pods, pods.namespace)
    owner["metadata"]["uid"] = "u"
    far = ["farend://192.0.2.2:7800"]
    documents = [
        manifests.namespace(pods),
        manifests.owner(pods, "x"),
        manifests.peer_pod(pods, "n", owner),
        manifests.farend_pod(pods, "n", ["192.0.2.2", "2001:db8::2"], owner),
        manifests.probe_pod(pods, "n", owner, far, peer="10.42.0.9"),
        manifests.watch_pod(pods, "n", owner, far),
    ]
    assert all(fits(document, version) for document in documents)


@pytest.mark.parametrize(
    "setting",
    ["guard.family=v4", "guard.unknown=1", "drill.rounds=0", "drill.schedule=daily", "drill.abortAfter=soon",
     "guard.networks={10.42.0.0}", "drill.restart=reboot", "image.pullPolicy=Sometimes"],
)  # fmt: skip
def test_a_wrong_value_is_refused(setting: str) -> None:
    render(setting, code=1)


def test_every_value_is_in_the_schema_and_every_schema_value_has_a_default() -> None:
    def keys(values: dict[str, Any], schema: dict[str, Any], at: str = "") -> None:
        properties = schema.get("properties")
        if properties is None:
            return
        assert set(values) == set(properties) - {"global"}, at
        for key, value in values.items():
            if isinstance(value, dict):
                keys(value, properties[key], f"{at}.{key}")

    keys(
        yaml.safe_load((CHART / "values.yaml").read_text()), yaml.safe_load((CHART / "values.schema.json").read_text())
    )


@pytest.mark.parametrize("restart", list(ApiMethod))
def test_the_rights_of_scheduled_drills_are_those_of_the_dry_run(restart: ApiMethod) -> None:
    chart = rules_of(render("guard.enabled=false", "drill.enabled=true", f"drill.restart={restart}"))
    pods = PodOptions("x", namespace=NAMESPACE)
    told = manifests.rights(
        pods, restart, "kube-system", "rke2-canal", ["rke2-canal-config"], makes_namespace=False, turn=True, tells=True
    )
    assert chart
    assert set(chart) == set(rules_of(told))


def test_drills_in_maintenance_windows_may_read_the_config_map_of_the_windows_and_no_other() -> None:
    chart = render(
        "guard.enabled=false", "drill.enabled=true", "drill.windows.configMap=cni", "drill.windows.cluster=prod eu"
    )
    told = manifests.rights(
        PodOptions("x", namespace=NAMESPACE),
        ApiMethod.DELETE_POD,
        "kube-system",
        "rke2-canal",
        ["rke2-canal-config"],
        makes_namespace=False,
        turn=True,
        tells=True,
        windows=f"{NAMESPACE}/cni",
    )
    assert set(rules_of(chart)) == set(rules_of(told))
    (job,) = of(chart, "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    words = {f"--configmap={NAMESPACE}/cni", "--skip-outside", "--window-cluster=prod eu"}
    assert words <= set(container["args"])
    assert not any("needs" in word for word in container["args"])


def test_the_guard_may_create_events_and_nothing_else() -> None:
    assert rules_of(render()) == [RbacRule("create", "", "events", "default")]
    quiet = render("guard.events=false")
    assert rules_of(quiet) == []
    assert of(quiet, "DaemonSet")[0]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_guard_has_net_admin_and_no_more_and_runs_where_canal_runs() -> None:
    spec = of(render(), "DaemonSet")[0]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert "privileged" not in container["securityContext"]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["hostNetwork"] is True
    assert not spec.get("hostPID")
    assert "ports" not in container


def test_the_flags_of_the_chart_are_flags_of_the_programs() -> None:
    from hitless.cli import drill

    spec = of(render(*EVERYTHING), "DaemonSet")[0]["spec"]["template"]["spec"]
    words = [*spec["containers"][0]["command"][2:], *spec["containers"][0]["args"]]
    help_text = subprocess.run(
        [str(ROOT / ".venv/bin/hitless"), "guard", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for flag in (word.split("=")[0] for word in words if word.startswith("--")):
        assert flag in help_text, flag
    known = {option for parameter in drill.command.params for option in parameter.opts}
    job = of(render(*EVERYTHING), "CronJob")[0]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    flags = {word.split("=")[0] for word in (*job["command"][2:], *job["args"])}
    assert flags <= known, flags - known


def test_the_chart_the_package_the_image_and_the_drill_are_of_one_version() -> None:
    from tools import build_image

    from hitless import __version__
    from hitless.cli.drill_choices import DEFAULT_IMAGE

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    semantic = __version__.replace(".dev", "-dev.").replace("rc", "-rc.")
    assert chart["version"] == semantic
    image = of(render(), "DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == manifests.IMAGE == DEFAULT_IMAGE == f"{build_image.NAME}:{__version__}"


def test_the_guards_readiness_is_the_exit_code_of_its_real_command(tmp_path: Path) -> None:
    (container,) = of(render("guard.observe=false"), "DaemonSet")[0]["spec"]["template"]["spec"]["containers"]
    command = container["readinessProbe"]["exec"]["command"]
    asked = [word.replace("/run/hitless-guard", str(tmp_path)) for word in command]
    done = subprocess.run([str(ROOT / ".venv/bin/hitless"), *asked[1:]], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 3), done.stderr  # no guard runs here: not ready (3: nor may the kernel be asked)
    assert "unrecognized" not in done.stderr
    observing = of(render("guard.observe=true"), "DaemonSet")[0]["spec"]["template"]["spec"]["containers"][0]
    assert "readinessProbe" not in observing, "a guard that observes protects nothing and would never be ready"
    assert "startupProbe" not in observing


def test_a_guard_is_ready_within_seconds_of_standing_by_and_is_never_killed_for_having_no_rules_to_learn_from() -> None:
    (guard,) = of(render(), "DaemonSet")[0]["spec"]["template"]["spec"]["containers"]
    startup, readiness = guard["startupProbe"], guard["readinessProbe"]
    assert startup["exec"] == readiness["exec"]
    assert startup["periodSeconds"] + startup.get("initialDelaySeconds", 0) < 5
    assert startup["periodSeconds"] * startup["failureThreshold"] > 10 * 365 * 24 * 3600
    assert startup["failureThreshold"] < 1 << 31
    (served,) = of(render("guard.metrics.enabled=true"), "DaemonSet")[0]["spec"]["template"]["spec"]["containers"]
    assert served["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert served["readinessProbe"]["periodSeconds"] < 5
    assert served["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_rollout_goes_on_side_by_side_and_stops_at_a_version_that_does_not_start() -> None:
    strategy = of(render(), "DaemonSet")[0]["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}


def test_one_drill_at_a_time_and_none_is_repeated() -> None:
    job = of(render("drill.enabled=true"), "CronJob")[0]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["jobTemplate"]["spec"]["backoffLimit"] == 0


@pytest.mark.parametrize("name", ["alerts.yaml", "drill-alerts.yaml"])
def test_promtool_accepts_the_alerts_and_the_rule_objects_hold_them(name: str) -> None:
    path = CHART / "files" / name
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rules = [one["spec"] for one in of(render(*EVERYTHING), "PrometheusRule")]
    of_this_release = path.read_text().replace(".*hitless.*-drill-", "hitless-drill-")
    assert yaml.safe_load(of_this_release) in rules


def test_the_alerts_ask_for_metrics_that_the_guard_has() -> None:
    import re

    from hitless.guard import metrics

    asked = set(re.findall(r"hitless_guard_[a-z_]+", (CHART / "files/alerts.yaml").read_text()))
    source = Path(metrics.__file__).read_text()
    assert asked
    assert all(f'"{name}"' in source for name in asked)


def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    from tools import render_manifests

    program("helm")
    for name, settings in render_manifests.VARIANTS.items():
        assert (ROOT / "deploy/manifests" / name).read_text() == render_manifests.render(settings), (
            f"{name} is old: .venv/bin/python tools/render_manifests.py"
        )
