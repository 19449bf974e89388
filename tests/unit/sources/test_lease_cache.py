"""The state file: told at once, replaced node by node, written whole, refused whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease, Leases
from hitless.sources.lease_cache import CachedSource, CachedState, read_state, write_state
from hitless.sources.lease_source import News, Offer

KEY = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="


def lease(name: str, number: int) -> Lease:
    mac = f"02:00:00:00:00:{number:02x}"
    four = Endpoint(ip_network(f"10.42.{number}.0/24"), ip_address(f"192.0.2.{number}"), mac, 1)
    return Lease(name, BackendType.VXLAN, {Family.IPV4: four})


def state(*leases: Lease, source: str = "a test") -> CachedState:
    addresses = {Family.IPV4: ip_address("192.0.2.77")}
    named = {one.node: one for one in leases}
    return CachedState(
        source, "me", {Family.IPV4: ip_network("10.42.1.0/24")}, addresses, named, '{"Network": "10.42.0.0/16"}'
    )


class Source:
    """A source that a test speaks for."""

    def __init__(self) -> None:
        self.tell: Callable[[News], None] = lambda news: None
        self.stopped = False

    def __str__(self) -> str:
        return "a test"

    def start(self, tell: Callable[[News], None]) -> None:
        self.tell = tell

    def publish(self, offer: Offer) -> None:
        return

    def stop(self) -> None:
        self.stopped = True


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "run" / "state.json"
    behind = ip_address("192.0.2.9")
    four = Endpoint(ip_network("10.42.9.0/24"), behind, public_key=KEY, port=51820)
    six = Endpoint(ip_network("fd42::/64"), behind, public_key=KEY, port=51820)
    mixed = Lease("wg", BackendType.WIREGUARD, {Family.IPV4: four, Family.IPV6: six})
    whole = state(lease("me", 1), lease("a", 2), mixed)
    write_state(path, whole)
    assert read_state(path) == whole and path.stat().st_mode & 0o777 == 0o600
    assert read_state(tmp_path / "none") is None


WHOLE = state(lease("me", 1), lease("a", 2))


@given(st.data())
def test_a_file_that_is_not_whole_is_refused_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    write_state(path, WHOLE)
    text = path.read_bytes()
    cut = data.draw(st.integers(0, len(text) - 1))
    junk = data.draw(st.binary(max_size=3))
    path.write_bytes(text[:cut] + junk + text[cut + data.draw(st.integers(0, 3)) :])
    try:
        found = read_state(path)
    except InputError:
        return
    assert found is not None and found.leases.keys() <= {str(name) for name in json.loads(path.read_text())["leases"]}


def test_the_file_comes_first_and_goes_when_the_source_has_told_everything(tmp_path: Path) -> None:
    told: list[News] = []
    source, path = Source(), tmp_path / "state.json"
    kept = CachedSource(
        source, path, state(lease("me", 1), lease("a", 2), lease("gone", 3)), lambda words: None, every=0
    )
    kept.start(told.append)
    first = told[-1]
    assert set(first.leases.by_node) == {"me", "a", "gone"} and not first.leases.synced
    assert first.own == lease("me", 1) and first.subnets and first.addresses and "has not answered" in first.trouble
    source.tell(News(Leases({"a": lease("a", 22)}), frozenset({"a"}), "me", trouble="away"))
    part = told[-1]
    assert part.leases.by_node["a"] == lease("a", 22) and "gone" in part.leases.by_node and not part.leases.synced
    synced = Leases({"me": lease("me", 1), "a": lease("a", 22)}, synced=True)
    subnets = {Family.IPV4: ip_network("10.42.1.0/24")}
    source.tell(News(synced, frozenset(), "me", subnets, lease("me", 1), published=True))
    assert told[-1].leases == synced and told[-1].changed is None and not told[-1].trouble
    kept.stop()
    held = read_state(path)
    assert source.stopped and held is not None and set(held.leases) == {"me", "a"} and held.addresses == {}


def test_the_state_of_another_source_is_not_used_and_a_full_disk_is_said(tmp_path: Path) -> None:
    told: list[News] = []
    said: list[str] = []
    source = Source()
    (tmp_path / "file").write_text("")
    kept = CachedSource(source, tmp_path / "file" / "x", state(lease("me", 1), source="other"), said.append, every=0)
    kept.start(told.append)
    assert told == []
    subnets = {Family.IPV4: ip_network("10.42.1.0/24")}
    source.tell(News(Leases({"me": lease("me", 1)}, synced=True), None, "me", subnets))
    kept.stop()
    assert said and "cannot be written" in said[0]
