"""Who may be served together: collisions, this node first, and everybody again when an obstacle goes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.sources.roster import Roster

NETWORKS = {Family.IPV4: ip_network("10.42.0.0/16"), Family.IPV6: ip_network("fd42::/48")}


def lease(name: str, number: int, *, length: int = 24, public: str = "", mac: str = "") -> Lease:
    subnet = ip_network(f"10.42.{number}.0/{length}")
    mac = mac or f"02:00:00:00:00:{number:02x}"
    return Lease(
        name, BackendType.VXLAN, {Family.IPV4: Endpoint(subnet, ip_address(public or f"192.0.2.{number}"), mac, 1)}
    )


def test_everybody_is_served_and_changes_are_named() -> None:
    roster = Roster(NETWORKS, "me")
    roster.put("me", lease("me", 1))
    roster.put("a", lease("a", 2))
    leases, changed = roster.leases()
    assert set(leases.by_node) == {"me", "a"} and changed == {"me", "a"} and not leases.refused
    roster.put("a", lease("a", 2))
    assert roster.leases()[1] == frozenset()
    roster.put("a", lease("a", 3))
    assert roster.leases()[1] == {"a"}
    roster.keep_only(["me"])
    leases, changed = roster.leases()
    assert set(leases.by_node) == {"me"} and changed == {"a"}


@pytest.mark.parametrize(
    ("rival", "said"),
    [
        (lease("b", 2), "overlaps that of a"),
        (lease("b", 0, length=20), "overlaps that of a"),
        (lease("b", 3, mac="02:00:00:00:00:02"), "MAC 02:00:00:00:00:02 is that of a"),
    ],
)
def test_who_was_there_first_stays_and_the_other_comes_when_it_goes(rival: Lease, said: str) -> None:
    roster = Roster(NETWORKS)
    roster.put("a", lease("a", 2))
    roster.put("b", rival)
    leases, _ = roster.leases()
    assert set(leases.by_node) == {"a"} and said in leases.refused["b"]
    roster.remove("a")
    leases, changed = roster.leases()
    assert set(leases.by_node) == {"b"} and not leases.refused and changed == {"a", "b"}


def test_this_nodes_own_lease_comes_before_everybodys() -> None:
    roster = Roster(NETWORKS, "me")
    roster.put("a", lease("a", 1))
    roster.put("b", lease("b", 2, public="192.0.2.1"))
    roster.put("me", lease("me", 1))
    leases, _ = roster.leases()
    assert set(leases.by_node) == {"me"}
    assert "overlaps that of me" in leases.refused["a"] or "this node's" in leases.refused["a"]
    assert "is this node's" in leases.refused["b"]


@pytest.mark.parametrize(
    ("peer", "said"),
    [
        (Lease("a", BackendType.HOST_GW, {Family.IPV4: Endpoint(ip_network("10.43.0.0/24"), ip_address("192.0.2.1"))}),
         "outside the network"),
        (lease("a", 9), "covers 10.42.9.7"),
        (lease("a", 3, public="10.42.5.5"), "inside the pods' network"),
    ],
)  # fmt: skip
def test_what_no_peer_may_say_is_refused(peer: Lease, said: str) -> None:
    roster = Roster(NETWORKS, "me", [ip_address("10.42.9.7")])
    roster.put("a", peer)
    leases, _ = roster.leases()
    assert not leases.by_node and said in leases.refused["a"]


def test_one_bad_family_leaves_the_other() -> None:
    good = lease("a", 2)
    both = Lease(
        "a",
        BackendType.VXLAN,
        dict(good.endpoints)
        | {Family.IPV6: Endpoint(ip_network("fd43::/64"), ip_address("2001:db8::1"), "02:00:00:00:00:99", 1)},
    )
    roster = Roster(NETWORKS)
    roster.put("a", both)
    leases, _ = roster.leases()
    assert leases.by_node["a"] == good and "ipv6: the subnet fd43::/64 is outside" in leases.refused["a"]


def rivals(one: Endpoint, other: Endpoint) -> bool:
    return one.subnet.overlaps(other.subnet) or one.mac == other.mac


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.integers(0, 7), st.sampled_from([22, 23, 24]), st.integers(0, 3), st.booleans()
    ),
    max_size=25,
)


@given(STEPS)
def test_what_is_served_never_overlaps_and_nobody_waits_without_an_obstacle(
    steps: list[tuple[str, int, int, int, bool]],
) -> None:
    roster = Roster(NETWORKS, "a")
    said: dict[str, Lease] = {}
    shown: dict[str, Lease] = {}
    for name, number, length, mac, gone in steps:
        if gone:
            roster.remove(name)
            said.pop(name, None)
        else:
            base = number & ~((1 << (24 - length)) - 1)
            said[name] = lease(
                name, base, length=length, public=f"192.0.2.{ord(name)}", mac=f"02:00:00:00:01:{mac:02x}"
            )
            roster.put(name, said[name])
        leases, changed = roster.leases()
        for node in changed:  # whoever follows the names alone knows everything
            if node in leases.by_node:
                shown[node] = leases.by_node[node]
            else:
                shown.pop(node, None)
        assert shown == dict(leases.by_node)
        assert set(leases.by_node) | set(leases.refused) == set(said)
        assert "a" not in said or "a" in leases.by_node
        served = [one.endpoints[Family.IPV4] for one in leases.by_node.values()]
        for at, one in enumerate(served):
            assert not any(rivals(one, other) for other in served[at + 1 :])
        for name_ in leases.refused:
            mine = said[name_].endpoints[Family.IPV4]
            assert any(rivals(mine, other) for other in served)
