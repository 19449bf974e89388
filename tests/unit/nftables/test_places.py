"""Rules for one destination are found in their packed messages."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.places import _NEEDLES, by_destination


@pytest.mark.parametrize(
    ("family", "one", "other"), [("ip", "10.43.0.1", "8.8.8.8"), ("ip6", "fd43::1", "2001:db8::1")]
)
def test_a_packed_rule_for_one_destination_is_no_rule_for_another(family: str, one: str, other: str) -> None:
    needle, _ = _NEEDLES[family]
    head = bytes(range(4, 40)) * 4
    rules = {7: pack(head + needle + ip_address(one).packed), 8: pack(head), 9: pack(head + needle[4:])}
    places = by_destination(rules, family)
    assert places.towards(ip_address(one).packed) == [(1, 7), (2, 8), (3, 9)]
    assert places.towards(ip_address(other).packed) == [(2, 8), (3, 9)]
