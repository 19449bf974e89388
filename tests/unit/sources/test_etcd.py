"""What etcd's answers change: pages, watches, compaction, another cluster; keys; and which key a node takes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family, Network
from hitless.sources.cuts import Cutting, cut
from hitless.sources.etcd.key_choice import HeldKey, choose, held_by, mine
from hitless.sources.etcd.keys import key_of, subnets_of
from hitless.sources.etcd.watching import Following, KeyDeleted, KeyPut, KeysSynced

PREFIX = "/net/subnets/"
CLUSTER = "10144879847569953045"


class Store:
    """A few keys with etcd's revisions, answering lists and watches as etcd's gateway does."""

    def __init__(self, revision: int = 2000) -> None:
        self.revision, self.compacted = revision, 0
        self.cluster = CLUSTER
        self.now: dict[str, tuple[bytes, int, int]] = {}
        self.history: list[tuple[int, dict[str, Any]]] = []

    def change(self, key: str, value: bytes | None) -> None:
        self.revision += 1
        if value is None:
            if self.now.pop(key, None) is None:
                self.revision -= 1
                return
            event = {"type": "DELETE", "kv": {"key": text(key), "mod_revision": str(self.revision)}}
        else:
            created = self.now[key][1] if key in self.now else self.revision
            self.now[key] = (value, created, self.revision)
            event = {"kv": self.kv(key)}
        self.history.append((self.revision, event))

    def kv(self, key: str) -> dict[str, str]:
        value, created, modified = self.now[key]
        found = {"key": text(key), "create_revision": str(created), "mod_revision": str(modified)}
        return found | ({"value": base64.b64encode(value).decode()} if value else {})  # empty ones are left out

    def header(self) -> dict[str, str]:
        return {"cluster_id": self.cluster, "revision": str(self.revision)}

    def range(self, body: Mapping[str, Any]) -> dict[str, Any]:
        start, limit = base64.b64decode(body["key"]).decode(), int(body.get("limit", "0"))
        if not limit:
            return {"header": self.header(), "kvs": [self.kv(start)] if start in self.now else []}
        keys = sorted(key for key in self.now if key >= start and key.startswith(PREFIX))
        kvs = [self.kv(key) for key in keys[:limit]]
        return {"header": self.header(), "kvs": kvs, "more": len(keys) > limit, "count": str(len(keys))}

    def watch(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        start = int(body["create_request"]["start_revision"])
        created = {"header": self.header(), "created": True}
        if start <= self.compacted:
            return [created, {"header": self.header(), "canceled": True, "compact_revision": str(self.compacted)}]
        events = [event for at, event in self.history if at >= start]
        return [created] + ([{"header": self.header(), "events": events}] if events else [])


def text(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def turn(following: Following, store: Store, known: dict[str, bytes]) -> str:
    """One question and its answer; returns the question's path."""
    path, body = following.request()
    changes = (
        list(following.page(store.range(body)))
        if path == "kv/range"
        else [one for result in store.watch(body) for one in following.result(result)]
    )
    for change in changes:
        if isinstance(change, KeyPut):
            known[change.key] = change.value
        elif isinstance(change, KeyDeleted):
            known.pop(change.key, None)
        else:
            for key in known.keys() - change.keys:
                del known[key]
    return path


STEPS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.none() | st.binary(max_size=3))
    | st.sampled_from(["ask", "compact", "restore", "foreign"]),
    max_size=30,
)


@given(STEPS, st.integers(1, 3))
def test_whatever_happens_in_between_all_is_known_in_the_end(steps: list[Any], page: int) -> None:
    store, following, known = Store(), Following(PREFIX, page=page), dict[str, bytes]()
    for number, step in enumerate(steps):
        if step == "ask":
            # to a watch: nobody puts an etcd back between a list, or a look at the key that is known, and its watch
            paths = [turn(following, store, known) for _ in range(8)]
            while paths[-1] != "watch":
                paths.append(turn(following, store, known))
        elif step == "compact":
            store.compacted = store.revision
        elif step == "restore":
            store.__init__(1 + 50 * number)  # type: ignore[misc] # no two histories make one key at one revision
            store.change(PREFIX + "restored", b"x")
        elif step == "foreign":
            store.cluster = str(int(store.cluster) - 1)
        else:
            store.change(PREFIX + step[0], step[1])
    store.change("/net/subnets0", b"behind")
    for _ in range(16):  # at most: a watch that is refused, all pages, a watch
        turn(following, store, known)
    assert known == {key.removeprefix(PREFIX): value[0] for key, value in store.now.items() if key.startswith(PREFIX)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["AA==", "1", "-7", "x" * 30]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["header", "revision", "cluster_id", "kvs", "kv", "key", "value", "events", "more", "created",
                         "canceled", "mod_revision", "type", "lease", "compact_revision"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.slow
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["header", "kvs", "events", "more", "created", "canceled"]), JSON), max_size=4
    )
)
def test_an_answer_that_is_none_is_a_value_error(answers: list[dict[str, Any]]) -> None:
    following = Following(PREFIX)
    for answer in answers:
        try:
            watch = following.request()[0] == "watch"
            changes = list(following.result(answer) if watch else following.page(answer))
        except ValueError:
            following.again()
            continue
        assert all(isinstance(one, KeyPut | KeyDeleted | KeysSynced) for one in changes)
        json.dumps(following.request())


@pytest.mark.parametrize(
    "subnets",
    [{Family.IPV4: ip_network("10.5.52.0/24")}, {Family.IPV6: ip_network("fc00::/64")},
     {Family.IPV4: ip_network("10.5.52.0/24"), Family.IPV6: ip_network("fc00:0:0:1::/64")}],
)  # fmt: skip
def test_keys(subnets: dict[Family, Network]) -> None:
    assert subnets_of(key_of(subnets)) == subnets


def test_flannels_keys() -> None:
    assert key_of(subnets_of("10.5.52.0-24&fc00::-64")) == "10.5.52.0-24&fc00::-64"
    assert key_of({Family.IPV6: ip_network("fc00::/64")}) == "0.0.0.0-0&fc00::-64"
    for nonsense in (
        "",
        "config",
        "10.5.52.0-33",
        "10.5.52.1-24",
        "999.5.52.0-24",
        "10.5.52.0-24&fc00::-129",
        "1.2.3.4-24\n",
    ):
        assert subnets_of(nonsense) == {}


CUTS = {Family.IPV4: cut(ip_network("10.42.0.0/16"), Cutting(), "net-conf.json")}


def test_the_choice() -> None:
    before, given_ = (ip_network("10.42.9.0/24"),), (ip_network("10.42.200.0/22"),)
    assert choose([], CUTS, (), before, (), lambda free: free[0]) == "10.42.9.0-24"
    assert choose(["10.42.9.0-24"], CUTS, (), before, (), lambda free: free[0]) == "10.42.1.0-24"
    assert choose(["10.42.8.0-22"], CUTS, (), before, ["10.42.1.0-24"], lambda free: free[0]) == "10.42.2.0-24"
    assert choose([], CUTS, (), (ip_network("10.99.1.0/24"),), (), lambda free: free[-1]) == "10.42.100.0-24"
    assert choose([], CUTS, given_, before, (), lambda free: free[0]) == "10.42.200.0-22"
    with pytest.raises(InputError, match="held by another node"):
        choose(["10.42.201.0-24"], CUTS, given_, before, (), lambda free: free[0])


def test_our_keys_are_known_by_their_address_whatever_else_they_say() -> None:
    held = {
        "a": held_by(b'{"PublicIP":"192.0.2.1","BackendType":"udp"}', 7, 5, 6),
        "b": held_by(b'{"publicip":"192.0.2.1"}', 0, 3, 9),
        "c": held_by(b'{"PublicIP":7}', 0, 1, 1),
        "d": held_by(b"[]", 0, 1, 1),
    }
    assert mine(held, ip_address("192.0.2.1")) == ["b", "a"] and mine(held, ip_address("192.0.2.2")) == []
    assert held["a"] == HeldKey(("192.0.2.1", ""), hash(b'{"PublicIP":"192.0.2.1","BackendType":"udp"}'), 7, 5, 6)
