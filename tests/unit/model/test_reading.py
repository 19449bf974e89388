"""What the one reader lets through is plain, bounded and prints as itself; everything else is one message."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.families import Family

ODD = [
    "",
    " ",
    "10.42.0.0/16 ",
    " 10.42.0.0/16",
    "10.42.0.0/16\n",
    "10.42.0.0 /16",
    "10.42.0.0/ 16",
    "10.42.0.0/-1",
    "10.42.0.0/+16",
    "10.42.0.0/1_6",
    "10.42.0.0/²",
    "10.42.0.0/33",
    "10.42.0.0/0016",
    "10.42.0.0/16/16",
    "٣.42.0.0/16",
    "10.042.0.0/16",
    "10.42/16",
    "10.42.0.0/255.255.0.0",
    "10.42.0.0/0.0.255.255",
    "fd42::/129",
    "fd42:::/48",
    "fd42::%/48",
    "fd42::%1/48",
    "fd42::%1 -j ACCEPT/48",
    "fd42::%1\nCOMMIT\n/48",
    "fd42::/48%1",
    "fd42::/48\n",
    "fd42::\x00/48",
    "a" * 5000 + "/1",
    "1" * 5000,
    "10.42.0.0/" + "1" * 5000,
    "::ffff:10.42.0.0%x/112",
    "-s/16",
    "/16",
    "10.42.0.0/",
]


@pytest.mark.parametrize("text", ODD)
def test_what_is_no_network_is_refused_in_one_line_of_bounded_length(text: str) -> None:
    with pytest.raises(InputError) as caught:
        reading.network(text, where="--network", host_bits=True)
    assert str(caught.value).startswith("--network: ") and len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
    assert reading.network_of(text, host_bits=True) is None


@pytest.mark.parametrize("value", [None, True, 5, 1.5, ["10.42.0.0/16"], {}, b"10.42.0.0/16"])
def test_only_text_names_a_network_or_an_address(value: object) -> None:
    assert reading.network_of(value) is None and reading.address_of(value) is None


def test_a_network_without_its_length_is_asked_for_it() -> None:
    with pytest.raises(InputError, match=r"'10\.42\.0\.0' has no prefix length \(/32 would be that one address\)"):
        reading.network("10.42.0.0", where="--network")
    with pytest.raises(InputError, match=r"'fd42::' has no prefix length \(/128"):
        reading.network("fd42::", where="--network")
    assert reading.network("10.42.0.0/32", where="--network") == ip_network("10.42.0.0/32")


def test_host_bits_are_taken_only_where_they_are_wanted() -> None:
    with pytest.raises(InputError, match=r"has host bits set \(the network is 10\.42\.3\.0/24\)"):
        reading.network("10.42.3.1/24", where="x")
    assert reading.network("10.42.3.1/24", where="x", host_bits=True) == ip_network("10.42.3.0/24")


def test_a_zone_is_taken_only_where_it_is_asked_for_and_only_as_an_interface_name() -> None:
    with pytest.raises(InputError, match="zone"):
        reading.address("fe80::1%eth0", where="x")
    assert str(reading.address("fe80::1%eth0", where="x", zone=True)) == "fe80::1%eth0"
    for text in (
        "fe80::1%",
        "fe80::1%eth0 x",
        "fe80::1%a/b",
        "fe80::1%a%b",
        "fe80::1%" + "a" * 16,
        "10.0.0.1%eth0",
        "fe80::1%eth0\n",
    ):
        assert reading.address_of(text, zone=True) is None, text


def test_the_family_is_asked_for_where_it_matters() -> None:
    with pytest.raises(InputError, match="is ipv6"):
        reading.network("fd42::/48", where="x", family=Family.IPV4)
    with pytest.raises(InputError, match="is ipv4"):
        reading.address("10.42.0.1", where="x", family=Family.IPV6)


PIECES = st.sampled_from(
    [*"0123456789abcdefF:./%_+- \n\t\0²٣x,;\"'{}", "::", "fd42", "10.42.0.0", "/16", "COMMIT", "-j"]
)
TEXTS = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)


@pytest.mark.slow
@given(TEXTS | st.from_regex(r"\A[0-9a-f:.]{2,20}(%[^/]{0,8})?/[0-9]{1,3}\Z"))
@example("fd42::%1\n/48")
@example("1.2.3.4/²")
def test_whatever_passes_is_plain_and_prints_as_itself(text: str) -> None:
    """The property that rule texts rest on."""
    for host_bits in (False, True):
        found = reading.network_of(text, host_bits=host_bits)
        if found is not None:
            assert re.fullmatch(r"[0-9a-f:.]+/[0-9]+", str(found)) and ip_network(text, strict=False) == found
            assert reading.network_of(str(found)) == found
    address = reading.address_of(text)
    if address is not None:
        assert re.fullmatch(r"[0-9a-f:.]+", str(address)) and ip_address(text) == address


@given(st.ip_addresses(), st.integers(0, 128))
def test_every_network_passes(address: object, length: int) -> None:
    written = f"{address}/{min(length, ip_address(str(address)).max_prefixlen)}"
    assert reading.network_of(written, host_bits=True) == ip_network(written, strict=False)


@given(st.text(max_size=8) | st.from_regex(r"\A[-+]?[0-9_²٣]{1,25}\n?\Z") | st.just("9" * 5000))
@example("²")
@example("٣")
def test_a_number_is_ascii_digits_and_fits(text: str) -> None:
    found = reading.whole_of(text)
    assert (found is not None) == (re.fullmatch(r"[0-9]{1,19}", text) is not None)
    assert found is None or found == int(text)
    assert reading.number(f"-{text}") == (None if found is None else -found)


@pytest.mark.parametrize("text", ["", " 7", "7 ", "+7", "-7", "07", "0x7", "1_0", "²", "7\n", "9" * 5000, "101", True])
def test_a_number_in_a_range_is_read_strictly(text: object) -> None:
    with pytest.raises(InputError) as caught:
        reading.whole(text, where="--v", most=100)
    assert "a whole number from 0 to 100" in str(caught.value) and len(str(caught.value)) < 200
    assert reading.whole("7", where="--v", most=100) == reading.whole(7, where="--v", most=100) == 7
