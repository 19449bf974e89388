"""Where the chart's pods may be, and whom they may talk to: Pod Security levels and NetworkPolicies."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.deploy.test_chart import of
from tests.unit.deploy.test_chart_options import render

from hitless.cluster import manifests
from hitless.cluster.manifests import PodOptions

POLICY = ("drill.enabled=true", "drill.networkPolicy.enabled=true")
PODS = PodOptions("d1", namespace="hitless-system")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """What a label selector means."""
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions), "no other one is used"
    wanted = all(labels.get(one["key"]) in one["values"] for one in expressions)
    return wanted and selector.get("matchLabels", {}).items() <= labels.items()


def pods() -> dict[str, dict[str, Any]]:
    """Every pod that the chart or a drill of it makes, by its role."""
    documents = render(*POLICY)
    (guard,), (job,), (test,) = (of(documents, kind) for kind in ("DaemonSet", "CronJob", "Pod"))
    owner = manifests.owner(PODS, PODS.namespace)
    return {
        "guard": guard["spec"]["template"],
        "driver": job["spec"]["jobTemplate"]["spec"]["template"],
        "rehearsal": test,
        "probe": manifests.probe_pod(PODS, "n", owner, ["farend://192.0.2.2:7800"], peer="10.42.0.9"),
        "peer": manifests.peer_pod(PODS, "n", owner),
        "watch": manifests.watch_pod(PODS, "n", owner, ["farend://192.0.2.2:7800"]),
        "farend": manifests.farend_pod(PODS, "n", ["192.0.2.2"], owner),
    }


def policies(*settings: str) -> dict[str, Any]:
    found = of(render(*POLICY, *settings), "NetworkPolicy")
    return {one["metadata"]["name"]: one["spec"] for one in found}


def test_no_policy_is_made_unless_asked_for() -> None:
    assert of(render("drill.enabled=true"), "NetworkPolicy") == []
    assert of(render("drill.networkPolicy.enabled=true"), "NetworkPolicy") == [], "without drills there is nobody"


def test_policies_select_exactly_the_pods_that_have_a_network_of_their_own() -> None:
    found = policies()
    chosen = {
        name: {role for role, pod in pods().items() if selects(spec["podSelector"], pod["metadata"]["labels"])}
        for name, spec in found.items()
    }
    assert chosen == {"hitless-drill": {"driver", "rehearsal"}, "hitless-drill-probes": {"probe", "peer"}}
    host = {role for role, pod in pods().items() if pod["spec"].get("hostNetwork")}
    assert host == {"guard", "watch", "farend"}, "policies do not apply to these, and the chart says so"
    assert all(set(spec["policyTypes"]) == {"Ingress", "Egress"} for spec in found.values())


def _ports(spec: dict[str, Any]) -> set[tuple[int, str]]:
    return {(one["port"], one["protocol"]) for rule in spec["egress"] for one in rule["ports"]}


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ((), set()),
        (("drill.pushgateway=http://push.monitoring:9091",), {9091}),
        (("drill.pushgateway=https://push.example.org/x",), {443}),
        (("drill.pushgateway=http://[fd00::91]",), {80}),
        (("drill.networkPolicy.apiServerPorts={16443}",), {16443}),
    ],
)  # fmt: skip
def test_the_driver_may_ask_dns_the_server_and_the_pushgateway_and_nobody_may_ask_it(
    settings: tuple[str, ...], more: set[int]
) -> None:
    driver = policies(*settings)["hitless-drill"]
    servers = {16443} if 16443 in more else {443, 6443}
    assert "ingress" not in driver
    assert _ports(driver) == {(53, "UDP"), *((port, "TCP") for port in {53, *servers, *more})}
    assert all(rule["ports"] for rule in driver["egress"]), "a rule without ports allows them all"


def test_the_servers_addresses_narrow_that_rule_only() -> None:
    driver = policies("drill.networkPolicy.apiServers={10.43.0.1/32,fd00::/64}")["hitless-drill"]
    (narrow,) = (rule for rule in driver["egress"] if "to" in rule)
    assert [one["ipBlock"]["cidr"] for one in narrow["to"]] == ["10.43.0.1/32", "fd00::/64"]
    assert {one["port"] for one in narrow["ports"]} == {443, 6443}


def test_probes_may_go_anywhere_and_only_probes_may_come_to_the_peer() -> None:
    probes = policies()["hitless-drill-probes"]
    assert probes["egress"] == [{}]
    ((source,),) = (rule["from"] for rule in probes["ingress"])
    assert [role for role, pod in pods().items() if selects(source["podSelector"], pod["metadata"]["labels"])] == [
        "probe"
    ]


@pytest.mark.parametrize("role", ["driver", "rehearsal", "probe", "peer"])
def test_pods_with_a_network_of_their_own_keep_the_restricted_standard(role: str) -> None:
    """Each field that the restricted Pod Security Standard asks for; the safe sysctls of 1.27 are in it."""
    spec = pods()[role]["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(one) - {"name"} <= {"emptyDir", "configMap"} for one in spec.get("volumes", ()))
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] != 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {one["name"] for one in security.get("sysctls", ())} <= {"net.ipv4.ping_group_range"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not any("hostPort" in port for port in container.get("ports", ()))
