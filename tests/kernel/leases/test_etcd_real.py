"""Leases in a real etcd: everybody's known, one subnet for each, ours kept, whatever etcd and others do."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.contract.leases.followers import CUTS, Follower, following, offer
from tests.contract.leases.invalid_leases import API_SERVER, BAD, PeerLease, check
from tests.kernel.leases.etcd_server import Server, serving

from hitless.model.families import Family
from hitless.sources.attributes import encoded
from hitless.sources.cuts import Cutting, cut
from hitless.sources.etcd.source import EtcdLeases, EtcdLeasesOptions
from hitless.sources.options import EtcdOptions
from hitless.testing.ports import reserved_ports

pytestmark = pytest.mark.kernel
PREFIX = "/coreos.com/network"
SUBNETS = f"{PREFIX}/subnets/"


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def etcd(shared: Server) -> Iterator[Server]:
    yield shared
    end = {"key": "L2M=", "range_end": "L2Q="}  # /c to /d
    shared.ask("kv/deleterange", end)


def source(server: Server, **more: Any) -> EtcdLeases:
    etcd = more.pop("etcd", EtcdOptions((server.url,)))
    return EtcdLeases(EtcdLeasesOptions(etcd, more.pop("cuts", CUTS), **more))


def wait(right: Any, patience: float = 30) -> None:
    until = time.monotonic() + patience
    while not right():
        assert time.monotonic() < until, "never came"
        time.sleep(0.05)


def test_nodes_see_each_other_and_each_takes_a_subnet(etcd: Server) -> None:
    with following(source(etcd), offer(1)) as a, following(source(etcd), offer(2)) as b:
        one = a.until(lambda news: news.published and len(news.leases.by_node) == 2)
        other = b.until(lambda news: news.published and len(news.leases.by_node) == 2)
        assert one.leases.by_node == other.leases.by_node and one.leases.synced and not one.leases.refused
        assert one.subnets != other.subnets and CUTS[Family.IPV4].fits(one.subnets[Family.IPV4])
        stored = etcd.all(SUBNETS)
        assert {kv["value"] for kv in stored.values()} == {encoded(offer(1)), encoded(offer(2))}
        assert all(int(kv["lease"]) for kv in stored.values())
        left = int(etcd.ask("lease/timetolive", {"ID": stored[SUBNETS + one.node]["lease"]})["TTL"])
        assert 86_000 < left <= 86_400


def test_both_families_in_one_key(etcd: Server) -> None:
    cuts = {**CUTS, Family.IPV6: cut(ip_network("fd42::/48"), Cutting(), "net-conf.json")}
    with following(source(etcd, cuts=cuts), offer(1, six=True)) as a:
        news = a.until(lambda news: news.published)
        assert set(news.subnets) == set(Family) and "&fd42:" in news.node
        assert set(news.leases.by_node[news.node].endpoints) == set(Family)


def test_a_restart_writes_nothing_and_asks_little(etcd: Server) -> None:
    with following(source(etcd), offer(1)) as a:
        before = a.until(lambda news: news.published)
    for number in range(40):  # peers, of whom nothing has to be asked
        etcd.put(f"{SUBNETS}10.42.{number + 100}.0-24", encoded(offer(number + 100)))
    at, again = etcd.revision(), source(etcd, public=(next(iter(offer(1).reach.values())).public_ip,))
    with following(again) as follower:
        news = follower.until(lambda news: news.leases.synced)
        assert news.own is not None and news.own.endpoints[Family.IPV4].mac == "02:00:00:00:00:01"
        again.publish(offer(1))
        after = follower.until(lambda news: news.published)
    assert after.subnets == before.subnets and etcd.revision() == at
    assert again.etcd.calls <= 3  # the list and the time of our own lease; the watch is a stream


def test_many_at_once_take_a_subnet_each_from_just_enough(etcd: Server) -> None:
    """Lost races are tried again: eleven nodes want eleven subnets at the same time."""
    cuts = {Family.IPV4: cut(ip_network("10.42.0.0/26"), Cutting(30), "net-conf.json")}  # 15 subnets
    sources = [source(etcd, cuts=cuts) for _ in range(15)]
    followers = [Follower(one) for one in sources]
    try:
        for number, one in enumerate(sources):
            one.publish(offer(number + 1))
        for follower in followers:
            follower.until(lambda news: news.published and len(news.leases.by_node) == 15, 60)
        assert len({str(follower.last.subnets[Family.IPV4]) for follower in followers}) == 15
        assert len(etcd.all(SUBNETS)) == 15
        with following(source(etcd, cuts=cuts), offer(99)) as late:
            late.until(lambda news: "is free" in news.trouble)
            assert len(etcd.all(SUBNETS)) == 15
    finally:
        for one in sources:
            one.stop()


def test_a_subnet_that_overlaps_an_earlier_one_of_another_size_is_given_up(etcd: Server) -> None:
    with following(source(etcd, given=(ip_network("10.42.8.0/24"),)), offer(1)) as a:
        a.until(lambda news: news.published)
        with following(source(etcd, given=(ip_network("10.42.8.0/22"),)), offer(2)) as b:
            b.until(lambda news: "is held by another node" in news.trouble)
            assert list(etcd.all(SUBNETS)) == [f"{SUBNETS}10.42.8.0-24"]


def test_the_previous_subnet_is_taken_up_again_and_what_fits_no_more_goes(etcd: Server) -> None:
    etcd.put(f"{SUBNETS}10.99.1.0-24", encoded(offer(1)))  # ours, of another network
    with following(source(etcd, previous=(ip_network("10.42.77.0/24"),)), offer(1)) as a:
        assert a.until(lambda news: news.published).node == "10.42.77.0-24"
    assert list(etcd.all(SUBNETS)) == [f"{SUBNETS}10.42.77.0-24"]


def test_a_reservation_stays_a_reservation(etcd: Server) -> None:
    """flannel gives it a lease of a day, with which it ends."""
    etcd.put(f"{SUBNETS}10.42.50.0-24", '{"PublicIP":"192.0.2.1"}')
    with following(source(etcd), offer(1)) as a:
        assert a.until(lambda news: news.published).node == "10.42.50.0-24"
        kv = etcd.get(f"{SUBNETS}10.42.50.0-24")
        assert kv is not None and "lease" not in kv and kv["value"] == encoded(offer(1))


@pytest.mark.parametrize("harm", ["deleted", "changed", "its lease revoked"])
def test_our_key_comes_back_and_the_subnet_with_it(etcd: Server, harm: str) -> None:
    with following(source(etcd), offer(1)) as a:
        before = a.until(lambda news: news.published)
        key = SUBNETS + before.node
        kv = etcd.get(key)
        assert kv is not None
        if harm == "deleted":
            etcd.delete(key)
        elif harm == "changed":
            etcd.put(key, "nonsense", int(kv["lease"]))
        else:
            etcd.ask("lease/revoke", {"ID": kv["lease"]})
        a.until(lambda news: not news.published)
        assert a.until(lambda news: news.published).subnets == before.subnets
        stored = etcd.get(key)
        assert stored is not None and stored["value"] == encoded(offer(1))


def test_another_offer_is_published_and_peers_are_told(etcd: Server) -> None:
    with following(source(etcd), offer(1)) as a, following(source(etcd)) as b:
        a.until(lambda news: news.published)
        name = a.last.node
        b.until(lambda news: name in news.leases.by_node)
        a.source.publish(offer(200))
        b.until(lambda news: str(news.leases.by_node[name].endpoints[Family.IPV4].public_ip) == "192.0.2.200")
        assert b.last.changed == frozenset({name})


def test_the_lease_is_renewed_before_its_end_and_nobody_is_told(etcd: Server) -> None:
    options = EtcdOptions((etcd.url,), margin=3600)
    with following(source(etcd, etcd=options, ttl=8), offer(1)) as a, following(source(etcd)) as b:
        node = a.until(lambda news: news.published).node
        b.until(lambda news: node in news.leases.by_node)
        at, key = etcd.revision(), etcd.get(SUBNETS + node)
        assert key is not None

        def left() -> int:
            return int(etcd.ask("lease/timetolive", {"ID": key["lease"]})["TTL"])

        wait(lambda: left() < 7)
        wait(lambda: left() >= 7)  # at half of its life, so that we may be stopped for the other half
        assert etcd.revision() == at and etcd.get(SUBNETS + node) == key
        a.source.stop()
        etcd.ask("lease/revoke", {"ID": key["lease"]})  # as at its end
        b.until(lambda news: node not in news.leases.by_node)


def test_nonsense_is_named_and_the_others_are_served(etcd: Server) -> None:
    values = {
        "10.42.20.0-24": "no json", "10.42.21.0-24": '{"PublicIP":"192.0.2.21","BackendType":"udp"}',
        "10.43.22.0-24": encoded(offer(22)), "no-subnet": "{}", "10.42.24.0-99": "{}", "10.42.25.0-24": "[" * 3000,
    }  # fmt: skip
    for key, value in values.items():
        etcd.put(SUBNETS + key, value)
    with following(source(etcd), offer(1)) as a:
        news = a.until(lambda news: news.published and len(news.leases.refused) == 6)
        assert set(news.leases.by_node) == {news.node} and set(news.leases.refused) == set(values)


# of two with one subnet there is one key, which is the one node's or the other's
@pytest.mark.parametrize("kind", [kind for kind in BAD if kind not in ("our subnet", "a peer's subnet")])
def test_a_peer_whose_word_cannot_be_followed_is_named_and_the_others_are_served(etcd: Server, kind: str) -> None:
    said: dict[str, str] = {}

    def publish(name: str, lease: PeerLease) -> str:
        if name in said:
            etcd.delete(SUBNETS + said[name])
        said[name] = lease.subnet.replace("/", "-")
        etcd.put(SUBNETS + said[name], lease.attributes())
        return said[name]

    given = (ip_network("10.42.1.0/24"),)
    with following(source(etcd, given=given, reserved=frozenset({ip_address(API_SERVER)})), offer(1)) as me:
        check(me, BAD[kind], publish)


def test_changes_while_we_were_cut_off_are_known_afterwards() -> None:
    """etcd stops, and comes back; then it comes back compacted: the list is read again."""
    with reserved_ports(1) as (elsewhere,), serving() as etcd, following(source(etcd), offer(1)) as a:
        a.until(lambda news: news.published)
        etcd.put(f"{SUBNETS}10.42.210.0-24", encoded(offer(10)))
        a.until(lambda news: len(news.leases.by_node) == 2)
        etcd.stop()
        news = a.until(lambda news: bool(news.trouble))
        assert len(news.leases.by_node) == 2 and news.published
        etcd.start()
        a.until(lambda news: not news.trouble)
        etcd.put(f"{SUBNETS}10.42.211.0-24", encoded(offer(11)))
        a.until(lambda news: len(news.leases.by_node) == 3)
        etcd.stop()
        a.until(lambda news: bool(news.trouble))
        following_port, etcd.port = etcd.port, elsewhere
        etcd.start()  # where we do not find it, until all that happened meanwhile was compacted away
        etcd.delete(f"{SUBNETS}10.42.210.0-24")
        for _ in range(3):
            etcd.put("/other", "x")
        etcd.compact()
        etcd.stop()
        etcd.port = following_port
        etcd.start()
        a.until(lambda news: len(news.leases.by_node) == 2 and not news.trouble)


def test_an_etcd_that_was_put_back_to_an_earlier_state_is_noticed(tmp_path: Path) -> None:
    """Its revisions begin again: whoever waits for the next one would wait for ever."""
    with serving() as etcd, following(source(etcd), offer(1)) as a:
        a.until(lambda news: news.published)
        for number in range(220, 230):
            etcd.put(f"{SUBNETS}10.42.{number}.0-24", encoded(offer(number)))
        a.until(lambda news: len(news.leases.by_node) == 11)
        etcd.stop()
        a.until(lambda news: bool(news.trouble))
        subprocess.run(["rm", "-rf", str(etcd.directory / "data")], check=True)
        etcd.start()
        news = a.until(lambda news: len(news.leases.by_node) == 1 and news.published and not news.trouble)
        assert etcd.all(SUBNETS).keys() == {SUBNETS + news.node}
        etcd.put(f"{SUBNETS}10.42.240.0-24", encoded(offer(40)))
        a.until(lambda news: "10.42.240.0-24" in news.leases.by_node)


def test_a_user_with_a_password_whose_tokens_end() -> None:
    with serving("--auth-token-ttl", "1") as etcd:
        etcd.ask("auth/user/add", {"name": "root", "password": "secret"})
        etcd.ask("auth/user/grant", {"user": "root", "role": "root"})
        etcd.ask("auth/enable", {})
        etcd.token = str(etcd.ask("auth/authenticate", {"name": "root", "password": "secret"})["token"])
        options = EtcdOptions((etcd.url,), username="root", password="secret")
        with following(source(etcd, etcd=options), offer(1)) as a:
            a.until(lambda news: news.published)
            time.sleep(2)
            a.source.publish(offer(2))
            a.until(lambda news: news.published and "2" in str(news.own))
        wrong = EtcdOptions((etcd.url,), username="root", password="other")
        with following(source(etcd, etcd=wrong), offer(1)) as b:
            trouble = b.until(lambda news: bool(news.trouble)).trouble
            assert "authentication failed" in trouble and "other" not in trouble


def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    def run(*command: str) -> None:
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    new = (
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    )
    run(*new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test")
    for name, san in (("server", "IP:127.0.0.1"), ("client", "DNS:client")):
        run(*new, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name}", "-addext",
            f"subjectAltName={san}", "-CA", "ca.crt", "-CAkey", "ca.key")  # fmt: skip
    import ssl

    context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    context.load_cert_chain(str(tmp_path / "client.crt"), str(tmp_path / "client.key"))
    arguments = (
        "--cert-file", str(tmp_path / "server.crt"), "--key-file", str(tmp_path / "server.key"), "--client-cert-auth",
        "--trusted-ca-file", str(tmp_path / "ca.crt"),
    )  # fmt: skip
    with serving(*arguments, scheme="https", context=context) as etcd:
        authority, certificate, key = (str(tmp_path / name) for name in ("ca.crt", "client.crt", "client.key"))
        whole = EtcdOptions((etcd.url,), cafile=authority, certfile=certificate, keyfile=key)
        with following(source(etcd, etcd=whole), offer(1)) as a:
            a.until(lambda news: news.published)
        with following(source(etcd, etcd=replace(whole, certfile="", keyfile="")), offer(1)) as b:
            assert "cannot be reached" in b.until(lambda news: bool(news.trouble)).trouble
        with following(source(etcd, etcd=replace(whole, cafile="")), offer(1)) as c:
            assert "CERTIFICATE_VERIFY_FAILED" in c.until(lambda news: bool(news.trouble)).trouble


def test_the_endpoint_that_answers_is_asked(etcd: Server) -> None:
    with following(source(etcd, etcd=EtcdOptions(("http://127.0.0.1:1", etcd.url))), offer(1)) as a:
        a.until(lambda news: news.published and not news.trouble)
