"""The agent's own chart: rendered by a real helm, valid for Kubernetes, with flannel's rights and no more."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.unit.deploy.test_chart import ROOT, fits, program

import hitless
from hitless.sources import parse_flags, parse_netconf

CHART = ROOT / "deploy/agent-chart"


def render(*settings: str) -> dict[str, dict[str, Any]]:
    import subprocess

    command = [program("helm"), "template", "hitless-agent", str(CHART), "--namespace", "kube-system"]
    for setting in settings:
        command += ["--set", setting]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {one["kind"]: one for one in yaml.safe_load_all(text) if one}


@pytest.mark.parametrize(
    "settings",
    [(), ("ipv6Network=fd42::/56", "backend.Type=host-gw", "args={--iface=eth1}", "image.pullSecrets={a,b}", "env.X=1",
          "legacyIptables=true"), ("cniConfDir=",)],
)  # fmt: skip
def test_it_renders_what_kubernetes_and_the_agent_take(settings: tuple[str, ...]) -> None:
    found = render(*settings)
    for one in found.values():
        assert fits(one, "1.31")
    netconf = parse_netconf(found["ConfigMap"]["data"]["net-conf.json"])
    assert str(next(iter(netconf.networks.values()))) == "10.42.0.0/16"
    json.loads(found["ConfigMap"]["data"]["cni-conf.json"])
    (container,) = found["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    options = parse_flags(container["args"], {})
    assert container["command"] == ["/opt/bin/flanneld"] and options.kubernetes and options.masquerade


def test_its_rights_are_flannels_and_no_more() -> None:
    found = render()
    rules = {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in found["ClusterRole"]["rules"]}
    assert rules == {
        (("pods",), ("get",)),
        (("nodes",), ("get", "list", "watch")),
        (("nodes/status",), ("patch",)),
    }
    pod = found["DaemonSet"]["spec"]["template"]["spec"]
    for container in pod["containers"] + pod["initContainers"]:
        held = container["securityContext"]
        assert not held["allowPrivilegeEscalation"] and held["readOnlyRootFilesystem"] and "privileged" not in held
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}


def test_its_version_is_the_projects() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == hitless.__version__
