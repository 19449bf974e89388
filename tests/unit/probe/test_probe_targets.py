"""URLs are accepted, or refused with what was expected."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Family
from hitless.probe import BASE_PORT, parse, ports, resolve
from hitless.probe.targets import Target, is_far_end

BOTH = (Family.IPV4, Family.IPV6)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("farend://198.51.100.1", Target("farend", "198.51.100.1", BASE_PORT)),
        ("FarEnd://far.example:9000/", Target("farend", "far.example", 9000)),
        ("farend://[2001:db8::1]", Target("farend", "2001:db8::1", BASE_PORT)),
        ("tcp://example.org:443", Target("tcp", "example.org", 443)),
        ("TCP://example.org:443", Target("tcp", "example.org", 443)),
        ("udp://[::1]:53", Target("udp", "::1", 53)),
        ("icmp://192.0.2.1", Target("icmp", "192.0.2.1", 0)),
        ("http://example.org", Target("http", "example.org", 80, "/")),
        ("https://example.org:8443/a?b=c#d", Target("https", "example.org", 8443, "/a?b=c")),
        ("https://example.org?b=c", Target("https", "example.org", 443, "/?b=c")),
    ],
)
def test_a_url_becomes_a_target(text: str, target: Target) -> None:
    assert parse(text) == target


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("farend://198.51.100.1", True),
        ("FARENDs://198.51.100.1", False),
        (" FarEnd://far.example:9000/", True),
        ("https://farend://x/", False),
        ("node", False),
        ("", False),
    ],
)
def test_far_ends_are_distinguished_from_other_targets(text: str, ours: bool) -> None:
    assert is_far_end(text) == ours


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("198.51.100.1", "not a URL"),
        ("ftp://example.org", "unknown scheme ftp"),
        ("tcp://example.org", "names no port"),
        ("tcp://example.org:0", "port 0 does not exist"),
        ("tcp://example.org:65536", "port 65536 does not exist"),
        ("tcp://example.org:443/path", "has no path"),
        ("icmp://example.org:7", "no ports"),
        ("icmp://", "names no host"),
        ("icmp://2001:db8::1", "brackets"),
        ("icmp://[2001:db8::zz]", "is not an IPv6 address"),
        ("icmp://300.1.2.3", "is not an IPv4 address"),
        ("icmp://exa mple.org", "names no host"),
        ("icmp://-example.org", "is not a host name"),
        ("farend://example.org:80", "cannot have its ports at 80"),
        ("farend://example.org:65500", "cannot have its ports at 65500"),
        ("http://user@example.org/", "a URL with a user's name"),
        ("http://example.org/a b", "%-encoded"),
        ("http://example.org/\r\nX: y", "%-encoded"),
    ],
)
def test_a_wrong_url_is_refused_with_the_flag_and_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse(text, flag="--control")
    assert caught.value.where == "--control"
    assert caught.value.expected


@given(st.one_of(st.text(), st.from_regex(r"(tcp|udp|icmp|https?|farend)://.*", fullmatch=True)))
def test_any_text_is_accepted_or_refused_and_a_target_has_the_same_url_again(text: str) -> None:
    try:
        target = parse(text)
    except InputError:
        return
    assert parse(str(target)) == target
    assert 0 <= target.port <= 65535


@given(
    st.sampled_from(["tcp", "udp", "farend", "http", "https"]),
    st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
        st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True),
    ),
    st.integers(1024, 65455),
)
def test_every_host_and_port_is_kept(scheme: str, host: str, port: int) -> None:
    target = parse(f"{scheme}://{host}:{port}")
    assert (target.host, target.port) == (host.strip("[]"), port)


def answer(*addresses: str) -> Any:
    def resolver(host: str, *_: Any) -> list[tuple[Any, ...]]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in addresses
        ]

    return resolver


def test_a_far_end_offers_every_kind_at_every_address() -> None:
    found = resolve(parse("farend://far.example"), BOTH, resolver=answer("192.0.2.1", "192.0.2.2", "2001:db8::1"))
    assert len(found) == 5 * 3
    assert {end.kind for end in found} == {"tcp", "udp", "icmp", "http", "stream"}
    assert {end.ports for end in found if end.kind == "udp"} == {ports().flow}
    assert all(end.answers for end in found)


def test_of_other_targets_the_first_address_of_each_family_is_used() -> None:
    found = resolve(parse("https://example.org"), BOTH, resolver=answer("2001:db8::1", "192.0.2.1", "192.0.2.2"))
    assert [(end.kind, end.address, end.ports) for end in found] == [
        ("http", "192.0.2.1", (443,)),
        ("http", "2001:db8::1", (443,)),
    ]
    assert not any(end.answers for end in found)


def test_a_name_that_does_not_resolve_is_named_in_the_error() -> None:
    with pytest.raises(InputError, match=r"far\.example does not resolve: Name or service not known"):
        resolve(parse("tcp://far.example:1"), resolver=answer())
    with pytest.raises(InputError, match="no address of family ipv6"):
        resolve(parse("tcp://far.example:1"), (Family.IPV6,), resolver=answer("192.0.2.1"))


def test_an_address_of_the_other_family_is_refused() -> None:
    with pytest.raises(InputError, match="is ipv6"):
        resolve(parse("tcp://[::1]:1"), (Family.IPV4,))


@given(st.ip_addresses())
def test_an_address_needs_no_resolver(address: IPv4Address | IPv6Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    (end,) = resolve(parse(f"icmp://{host}"), BOTH, resolver=answer())
    assert end.address == str(address)
    assert end.family is (Family.IPV4 if address.version == 4 else Family.IPV6)
