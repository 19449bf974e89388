"""Leases from Kubernetes, against the fake API server: the stories of the contract, and what only a fake can do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from urllib.error import HTTPError

import pytest
from tests.contract.leases.clusters import Cluster, fake, vxlan_says
from tests.contract.leases.followers import following, offer
from tests.contract.leases.invalid_leases import API_SERVER, BAD, PeerLease, check
from tests.contract.leases.node_stories import *  # noqa: F403 - the contract's tests
from tests.contract.leases.node_stories import source

from hitless.testing.api_server import FakeApi


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Cluster, FakeApi, asyncio.AbstractEventLoop]]:
    with fake() as made:
        yield made


@pytest.fixture
def cluster(shared: tuple[Cluster, FakeApi, asyncio.AbstractEventLoop]) -> Iterator[Cluster]:
    yield shared[0]
    shared[0].clear()


def test_thousands_come_in_pages_and_all_are_known(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    for number in range(2, 240):
        cluster.add(f"n{number}", f"10.42.{number}.0/24", vxlan_says(number))
    with following(source(cluster), offer(1)) as me:
        news = me.until(lambda news: news.leases.synced and news.published)
        assert len(news.leases.by_node) == 239


@pytest.mark.parametrize("kind", BAD)
def test_a_peer_whose_word_cannot_be_followed_is_named_and_the_others_are_served(cluster: Cluster, kind: str) -> None:
    def publish(name: str, lease: PeerLease) -> str:
        with suppress(HTTPError):
            cluster.remove(name)
        cluster.add(name, lease.subnet, lease.annotations())
        return name

    cluster.add("me", "10.42.1.0/24")
    reserved = frozenset({ip_address(API_SERVER)})
    with following(source(cluster, reserved=reserved), offer(1)) as me:
        check(me, BAD[kind], publish)


def test_what_the_pod_says_is_this_nodes_name(cluster: Cluster) -> None:
    cluster.add("me", "10.42.1.0/24")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "kube-system"}}
    spec = {"nodeName": "me", "containers": [{"name": "c", "image": "i"}]}
    cluster.ask("POST", "/api/v1/namespaces/kube-system/pods", pod | {"spec": spec})
    with following(source(cluster, "", pod=("kube-system", "p")), offer(1)) as me:
        assert me.until(lambda news: news.published and news.leases.synced).node == "me"


@pytest.mark.slow
def test_an_api_that_is_away_takes_nothing_from_us_and_what_it_missed_is_read_again() -> None:
    with fake() as (cluster, api, loop):
        cluster.add("me", "10.42.1.0/24")
        cluster.add("a", "10.42.2.0/24", vxlan_says(2))
        cluster.add("b", "10.42.3.0/24", vxlan_says(3))
        with following(source(cluster), offer(1)) as me:
            me.until(lambda news: news.published and len(news.leases.by_node) == 3)

            def away() -> None:  # and meanwhile a node goes, and the past is forgotten
                api.faults.cut(60.0)
                api.store.remove("nodes", "", "b")
                api.store.compact()

            loop.call_soon_threadsafe(away)
            news = me.until(lambda news: bool(news.trouble))
            assert len(news.leases.by_node) == 3 and news.leases.synced
            loop.call_soon_threadsafe(api.faults.cut, 0.0)
            me.until(lambda news: set(news.leases.by_node) == {"me", "a"} and not news.trouble)
