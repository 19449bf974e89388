"""The walk over what leads to what, and the test for networks inside networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from hitless.model.families import in_any, within
from hitless.model.reachability import reachable
from hitless.model.rules import Chain, Goto, Jump, OneOf, Rule, Table, jump_targets


def test_it_goes_everywhere_once_the_nearest_first() -> None:
    asked: list[str] = []
    leads = {"a": ["c", "b"], "b": ["d", "a"], "c": ["d", "e"], "d": ["d"], "e": ["a"]}

    def lead(name: str) -> list[str]:
        asked.append(name)
        return leads[name]

    assert list(reachable(("a",), lead)) == ["a", "c", "b", "d", "e"]
    assert sorted(asked) == ["a", "b", "c", "d", "e"]
    assert list(reachable(("d", "e", "d"), lead)) == ["d", "e", "a", "c", "b"]
    assert not reachable((), lead)


def test_chains_that_are_only_named_are_not_reached() -> None:
    rules = (Rule((Jump("b"),)), Rule((Goto("gone"),)), Rule((OneOf(((Jump("c"),), (Goto("b"),)), text="map"),)))
    table = Table("ip", "t", {"a": Chain("a", rules), "b": Chain("b"), "c": Chain("c", (Rule((Jump("a"),)),))})
    assert jump_targets(table.chains["a"]) == ("b", "gone", "c")
    assert table.reachable("a") == {"a", "b", "c"}
    assert table.reachable("b") == {"b"}
    assert table.reachable("gone") == set()


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        ("10.42.1.0/24", "10.42.0.0/16", True),
        ("10.42.0.0/16", "10.42.0.0/16", True),
        ("10.42.0.0/16", "10.42.0.0/24", False),
        ("10.43.0.0/24", "10.42.0.0/16", False),
        ("fd42::/64", "::/0", True),
        ("fd42::/64", "0.0.0.0/0", False),
        ("10.42.0.0/16", "::/0", False),
    ],
)
def test_a_network_inside_another(part: str, whole: str, expected: bool) -> None:
    assert within(ip_network(part), ip_network(whole)) is expected


def test_an_address_in_one_of_several_networks_of_both_families() -> None:
    networks = [ip_network("10.42.0.0/16"), ip_network("fd42::/48")]
    assert in_any(ip_address("10.42.255.255"), networks)
    assert in_any(ip_address("fd42::1"), networks)
    assert not in_any(ip_address("10.43.0.0"), networks)
    assert not in_any(ip_address("fd43::1"), networks)
    assert not in_any(ip_address("fd42::1"), [ip_network("0.0.0.0/0")])
