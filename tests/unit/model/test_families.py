"""Networks inside and over each other: as the standard library says, without what it leaves behind."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from hitless.model.families import Network, overlap, within

BITS = st.integers(0, 7)  # few different bits, so that many of them are inside each other
FOUR = st.builds(lambda bits, size: IPv4Network((bits << 24 | bits, size), strict=False), BITS, st.integers(0, 32))
SIX = st.builds(lambda bits, size: IPv6Network((bits << 120 | bits, size), strict=False), BITS, st.integers(0, 128))


@given(one=FOUR | SIX, other=FOUR | SIX)
def test_a_network_is_within_another_or_overlaps_it_as_the_standard_library_says(one: Network, other: Network) -> None:
    same = one.version == other.version
    assert within(one, other) == (same and one.subnet_of(other))  # type: ignore[arg-type]  # of one version
    assert overlap(one, other) == (same and one.overlaps(other))


def test_nothing_is_left_behind_in_the_networks() -> None:
    one, other = ip_network("10.42.1.0/24"), ip_network("10.42.0.0/16")
    before = [set(vars(each)) for each in (one, other)]
    assert within(one, other) and overlap(other, one)
    assert [set(vars(each)) for each in (one, other)] == before
