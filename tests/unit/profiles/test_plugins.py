"""A plugin is one file: what stands in it is what the watch, the guard, the survey, drills and advice know."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hitless import profiles
from hitless.drill import restart_signs
from hitless.guard import primaries
from hitless.kube.objects import DaemonSet
from hitless.survey import cni
from hitless.watch import load, shipped

MINE = """
name = "my-cni"
chains = ["nat/MY-MASQ"]
processes = ["my-agentd"]
networks = ["10.9.0.0/16"]
pod_interfaces = ["my+"]

[[tables]]
name = "nat"
chains = ["POSTROUTING", "MY-MASQ"]
networks_from = ["MY-MASQ"]
"""


@pytest.mark.parametrize("name", profiles.names())
def test_each_plugin_is_known_to_whoever_its_file_speaks_to(name: str) -> None:
    file = profiles.shipped(name)
    assert file.name == name
    assert primaries.load(name).chains == tuple(tuple(one.split("/", 1)) for one in file.chains)
    assert (name in shipped()) is bool(file.tables)
    for mode in file.modes:
        assert load(mode.name).tables == mode.tables
    if file.cluster is not None:
        assert set(file.cluster.programs) <= restart_signs._agents()
        assert file.cluster.nftables in ("", *shipped())
        assert file.cluster.of in ("", *profiles.names())


def test_what_the_guard_stands_in_for_is_what_the_watch_takes_the_networks_from() -> None:
    for name in profiles.names():
        file = profiles.shipped(name)
        tables = [*file.tables, *(table for mode in file.modes for table in mode.tables)]
        named = {f"{table.name}/{chain}" for table in tables for chain in table.networks_from}
        assert named <= set(file.chains), name


def test_one_file_of_users_serves_the_watch_and_the_guard(tmp_path: Path) -> None:
    path = tmp_path / "my-cni.toml"
    path.write_text(MINE)
    assert primaries.load(str(path)).processes == ("my-agentd",)
    assert load(str(path)).pod_interfaces == ("my+",)
    assert primaries.load(str(path)).networks == load(str(path)).networks


def daemon_set(*images: str) -> DaemonSet:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    document = {"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": containers}}}}
    return msgspec.convert(document, DaemonSet)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (["rancher/hardened-calico:v3", "rancher/hardened-flannel:v0.26.7"], {"canal": "c1", "calico": "c0"}),
        (["docker.io/flannel/flannel:v0.27.4"], {"flannel": "c0"}),
        (["quay.io/calico/node:v3.30"], {"calico": "c0"}),
        (["quay.io/cilium/cilium:v1.17@sha256:00"], {"cilium": "c0"}),
        (["quay.io/cilium/operator-generic:v1.17", "docker.io/flannel/flannel-cni-plugin:v1"], {}),
        (["example.org/other:1"], {}),
    ],
)
def test_a_plugin_is_found_by_what_its_daemonset_runs(images: list[str], found: dict[str, str]) -> None:
    assert {name: one.name for name, one in cni._agents(daemon_set(*images)).items()} == found
