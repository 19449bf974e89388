"""What a source of leases in Kubernetes does, against the fake API server and a real one."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from tests.contract.leases.clusters import Cluster, vxlan_says
from tests.contract.leases.followers import following, offer

from hitless.model.families import Family
from hitless.sources.annotations import PREFIX
from hitless.sources.nodes import NodeLeases, NodeLeasesOptions

NETWORKS = {Family.IPV4: ip_network("10.42.0.0/16")}


def source(cluster: Cluster, node: str = "me", **more: Any) -> NodeLeases:
    return NodeLeases(NodeLeasesOptions(NETWORKS, node, **more), cluster.client())


def wait(right: Callable[[], object]) -> None:
    until = time.monotonic() + 30
    while not right():
        assert time.monotonic() < until, "never came"
        time.sleep(0.05)


def test_peers_come_change_and_go_and_heartbeats_are_no_news(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    cluster.add("a", "10.42.2.0/24", vxlan_says(2), size=10_000)
    cluster.add("unmanaged", "10.42.3.0/24")
    with following(source(cluster), offer(1)) as me:
        news = me.until(lambda news: news.published and news.leases.synced and "me" in news.leases.by_node)
        assert str(news.subnets[Family.IPV4]) == "10.42.1.0/24" and set(news.leases.by_node) == {"me", "a"}
        assert not news.trouble and not news.leases.refused
        cluster.add("b", "10.42.4.0/24", vxlan_says(4))
        assert me.until(lambda news: "b" in news.leases.by_node).changed == frozenset({"b"})
        count = me.count
        cluster.set_condition("a", "True")
        cluster.annotate("a", {"other": "thing"})
        cluster.annotate("a", {f"{PREFIX}public-ip": "192.0.2.99"})
        me.until(lambda news: "192.0.2.99" in str(news.leases.by_node["a"]))
        assert me.count == count + 1
        cluster.remove("b")
        me.until(lambda news: "b" not in news.leases.by_node)


def test_our_annotations_are_flannels_and_the_condition_is_set_once(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    with following(source(cluster), offer(1)) as me:
        me.until(lambda news: news.published and news.leases.synced)
        assert cluster.said("me") == {key.removeprefix(PREFIX): text for key, text in vxlan_says(1).items()}
        conditions = {one["type"]: one for one in cluster.node("me")["status"]["conditions"]}
        held = conditions["NetworkUnavailable"]
        assert (held["status"], held["reason"]) == ("False", "FlannelIsUp")
    before = cluster.node("me")["metadata"]["resourceVersion"]
    with following(source(cluster)) as again:
        assert again.until(lambda news: news.own is not None).subnets
        again.source.publish(offer(1))
        again.until(lambda news: news.published and news.leases.synced)
    assert cluster.node("me")["metadata"]["resourceVersion"] == before  # nothing was written


@pytest.mark.parametrize(
    "harm",
    [{"kube-subnet-manager": None}, {"public-ip": "203.0.113.5"}, dict.fromkeys(
        ("kube-subnet-manager", "backend-type", "backend-data", "public-ip"))],
    ids=["one removed", "one changed", "all removed"],
)  # fmt: skip
def test_what_somebody_removes_or_changes_is_put_right(cluster: Cluster, harm: dict[str, str | None]) -> None:
    cluster.add("me", "10.42.1.0/24")
    with following(source(cluster), offer(1)) as me, following(source(cluster, "other")) as other:
        me.until(lambda news: news.published and news.leases.synced)
        other.until(lambda news: "me" in news.leases.by_node)
        whole = cluster.said("me")
        cluster.annotate("me", {PREFIX + key: text for key, text in harm.items()})
        wait(lambda: cluster.said("me") == whole)
        cluster.set_condition("me", "True")
        wait(lambda: "NoRouteCreated" not in str(cluster.node("me")["status"]["conditions"]))


def test_a_tug_of_war_is_slowed_down_and_said(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    with following(source(cluster), offer(1)) as me:
        me.until(lambda news: news.published and news.leases.synced)
        until = time.monotonic() + 30
        while "again and again" not in me.drain().trouble:
            cluster.annotate("me", {f"{PREFIX}public-ip": "203.0.113.5"})
            time.sleep(0.1)
            assert time.monotonic() < until


def test_overwrites_and_the_chosen_address(cluster: Cluster) -> None:
    chosen = {f"{PREFIX}node-public-ip": "192.0.2.77", f"{PREFIX}public-ip-overwrite": "203.0.113.7"}
    cluster.add("me", "10.42.1.0/24", chosen)
    with following(source(cluster)) as me:
        assert str(me.until(lambda news: bool(news.addresses)).addresses[Family.IPV4]) == "192.0.2.77"
        me.source.publish(offer(77))
        me.until(lambda news: news.published)
        assert cluster.said("me")["public-ip"] == "203.0.113.7"


def test_a_pod_cidr_that_cannot_be_used_is_said_and_changes_nothing(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    cluster.add("a", "10.43.2.0/24", vxlan_says(2))
    cluster.add("b", "10.42.4.0/24", vxlan_says(4) | {f"{PREFIX}backend-type": "ipip"})
    with following(source(cluster), offer(1)) as me:
        news = me.until(lambda news: news.published and len(news.leases.refused) == 2)
        assert "outside the network" in news.leases.refused["a"] and "not served" in news.leases.refused["b"]
        cluster.remove("me")
        news = me.until(lambda news: "is gone" in news.trouble)
        assert news.subnets
        cluster.add("me", "10.99.1.0/24")  # the kubelet registers again, and gets what it gets
        news = me.until(lambda news: "outside the network" in news.trouble)
        assert str(news.subnets[Family.IPV4]) == "10.42.1.0/24"
        cluster.remove("me")
        cluster.add("me", "10.42.9.0/24")
        news = me.until(lambda news: str(news.subnets[Family.IPV4]) == "10.42.9.0/24" and news.published)
        wait(lambda: cluster.said("me").get("public-ip") == "192.0.2.1")


def test_a_nodes_name_with_another_subnet_is_that_nodes_new_word(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    cluster.add("a", "10.42.2.0/24", vxlan_says(2))
    with following(source(cluster), offer(1)) as me:
        me.until(lambda news: "a" in news.leases.by_node and news.leases.synced)
        cluster.remove("a")
        cluster.add("a", "10.42.7.0/24", vxlan_says(7))
        me.until(lambda news: "10.42.7.0" in str(news.leases.by_node.get("a")))
