"""Leases in a directory: who is there, one subnet for each, our file kept, nonsense left out."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.contract.leases.followers import following
from tests.contract.leases.invalid_leases import API_SERVER, BAD, PeerLease, check

from hitless.errors import InputError
from hitless.model.families import Family, Network
from hitless.model.leases import BackendType
from hitless.sources.cuts import Cut, Cutting, cut
from hitless.sources.lease_directory import LeaseDirectory, LeaseDirectoryOptions
from hitless.sources.lease_source import News, Offer, Reach

CUTS = {Family.IPV4: cut(ip_network("10.42.0.0/16"), Cutting(), "net-conf.json")}


class Node:
    """One node's source, and what it told."""

    def __init__(self, source: LeaseDirectory) -> None:
        self.source = source
        self._received: queue.Queue[News] = queue.Queue()
        self.last = News()
        source.start(self._received.put)

    def until(self, right: Callable[[News], bool]) -> News:
        """The first news that are right; fails after a while."""
        while not right(self.last):
            self.last = self._received.get(timeout=60)
        return self.last


@contextmanager
def node(
    directory: Path, name: str, number: int, *, cuts: dict[Family, Cut] | None = None, offered: bool = True,
    given: tuple[Network, ...] = (), previous: tuple[Network, ...] = (),
) -> Iterator[Node]:  # fmt: skip
    source = LeaseDirectory(LeaseDirectoryOptions(directory, name, cuts or CUTS, given, previous))
    one = Node(source)
    try:
        if offered:
            source.publish(offer(number))
        yield one
    finally:
        source.stop()


def offer(number: int) -> Offer:
    reach = Reach(ip_address(f"192.0.2.{number}"), mac=f"02:00:00:00:00:{number:02x}", vni=1)
    return Offer(BackendType.VXLAN, {Family.IPV4: reach})


def test_nodes_see_each_other_and_no_two_have_one_subnet(tmp_path: Path) -> None:
    with node(tmp_path, "a", 1) as a, node(tmp_path, "b", 2) as b, node(tmp_path, "c", 3) as c:
        found = [one.until(lambda news: len(news.leases.by_node) == 3) for one in (a, b, c)]
        assert all(news.leases.synced and news.published and not news.leases.refused for news in found)
        subnets = {str(news.subnets[Family.IPV4]) for news in found}
        assert subnets == {"10.42.1.0/24", "10.42.2.0/24", "10.42.3.0/24"}
        assert found[0].leases.by_node == found[1].leases.by_node == found[2].leases.by_node


@pytest.mark.slow
def test_many_at_once_take_a_subnet_each(tmp_path: Path) -> None:
    """The lock decides; there are as many subnets as nodes."""
    few = {Family.IPV4: cut(ip_network("10.42.0.0/24"), Cutting(28), "net-conf.json")}
    sources = [LeaseDirectory(LeaseDirectoryOptions(tmp_path, f"n{at}", few)) for at in range(15)]
    gate = threading.Barrier(15)

    def begin(at: int) -> None:
        gate.wait(20)
        sources[at].publish(offer(at + 1))
        nodes[at] = Node(sources[at])

    nodes: dict[int, Node] = {}
    threads = [threading.Thread(target=begin, args=(at,)) for at in range(15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    try:
        found = [one.until(lambda news: len(news.leases.by_node) == 15) for one in nodes.values()]
        assert len({news.subnets[Family.IPV4] for news in found}) == 15
        with node(tmp_path, "late", 99, cuts=few) as late:
            late.until(lambda news: "is free" in news.trouble)
            nodes[3].source.stop()  # first: it would write its file again
            (tmp_path / "n3.json").unlink()
            late.until(lambda news: news.published)
    finally:
        for source in sources:
            source.stop()


def test_a_restart_keeps_the_subnet_and_writes_nothing(tmp_path: Path) -> None:
    with node(tmp_path, "a", 1) as a:
        first = a.until(lambda news: news.published)
    before = (tmp_path / "a.json").stat()
    with node(tmp_path, "a", 1, offered=False) as again:
        news = again.until(lambda news: news.own is not None)
        assert news.own == first.own and news.subnets == first.subnets and not news.published
        again.source.publish(offer(1))
        again.until(lambda news: news.published)
    after = (tmp_path / "a.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_the_subnet_of_an_earlier_run_is_taken_up_again_if_it_is_free(tmp_path: Path) -> None:
    before = (ip_network("10.42.77.0/24"),)
    with node(tmp_path, "a", 1, previous=before) as a, node(tmp_path, "b", 2) as b:
        assert a.until(lambda news: news.published).subnets[Family.IPV4] == before[0]
        b.until(lambda news: news.published)
        with node(tmp_path, "c", 3, previous=before) as c:
            assert c.until(lambda news: news.published).subnets[Family.IPV4] != before[0]


def test_a_given_subnet_that_somebody_holds_is_said_and_not_taken(tmp_path: Path) -> None:
    with node(tmp_path, "a", 1) as a:
        held = a.until(lambda news: news.published).subnets[Family.IPV4]
        with node(tmp_path, "b", 2, given=(held,)) as b:
            news = b.until(lambda news: bool(news.trouble))
            assert f"{held} is held by node a" in news.trouble and not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("harm", ["removed", "changed", "replaced"])
def test_our_file_comes_back_as_it_was(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "a.json"
    with node(tmp_path, "a", 1) as a, node(tmp_path, "b", 2) as b:
        a.until(lambda news: news.published)
        # a node that takes its subnet while our file is gone may take ours: b has taken one
        b.until(lambda news: "a" in news.leases.by_node and news.published)
        text = path.read_text()
        (tmp_path / "x").write_text("{}")
        if harm == "removed":
            path.unlink()
        elif harm == "changed":
            path.write_text("{}")
            (tmp_path / "y.json").write_text("{}")  # so that it is looked at now and not after five seconds
        else:
            (tmp_path / "x").replace(path)
        b.until(lambda news: "a" in news.leases.by_node)
        waited = threading.Event()
        for _ in range(1200):
            if path.exists() and path.read_text() == text:
                break
            waited.wait(0.05)
        assert path.read_text() == text


def test_nonsense_is_named_and_the_others_are_served(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("no json")
    (tmp_path / "udp.json").write_text(json.dumps({"Subnet": "10.42.9.0/24", "BackendType": "udp"}))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "none.json").write_text(json.dumps({"BackendType": "vxlan"}))
    (tmp_path / "big.json").write_text("[" * 100_000)
    (tmp_path / "dir.json").mkdir()
    (tmp_path / "notes.txt").write_text("not ours")
    with node(tmp_path, "a", 1) as a:
        news = a.until(lambda news: news.published)
        assert set(news.leases.by_node) == {"a"}
        assert set(news.leases.refused) == {"text", "udp", "list", "none", "big", "dir"}
        assert "is not served" in news.leases.refused["udp"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_a_peer_whose_word_cannot_be_followed_is_named_and_the_others_are_served(tmp_path: Path, kind: str) -> None:
    def publish(name: str, lease: PeerLease) -> str:
        draft = tmp_path / f".{name}"
        draft.write_text(lease.file())
        draft.rename(tmp_path / f"{name}.json")
        return name

    reserved = frozenset({ip_address(API_SERVER)})
    given = (ip_network("10.42.1.0/24"),)
    source = LeaseDirectory(LeaseDirectoryOptions(tmp_path, "me", CUTS, given, reserved=reserved))
    with following(source, offer(1)) as me:
        check(me, BAD[kind], publish)


def test_a_node_that_goes_is_gone_and_a_directory_that_goes_is_trouble_and_no_loss(tmp_path: Path) -> None:
    directory = tmp_path / "leases"
    with node(directory, "a", 1) as a, node(directory, "b", 2) as b:
        a.until(lambda news: len(news.leases.by_node) == 2)
        b.source.stop()
        (directory / "b.json").unlink()
        a.until(lambda news: len(news.leases.by_node) == 1)
        a.source.stop()
    (tmp_path / "file").write_text("")
    with node(tmp_path / "file" / "x", "a", 1) as lost:
        assert "file" in lost.until(lambda news: bool(news.trouble)).trouble


def test_a_name_that_is_no_files_is_refused(tmp_path: Path) -> None:
    for name in ("", "../x", ".hidden", "a/b", "x" * 300):
        with pytest.raises(InputError, match="not a file name"):
            LeaseDirectory(LeaseDirectoryOptions(tmp_path, name, CUTS))
