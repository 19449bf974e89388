"""Profiles: the shipped ones are good, and a bad one is refused with its place."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.model.families import Backend, Family
from hitless.model.packets import ICMP, TCP, UDP
from hitless.watch import DEFAULT, load, parse, shipped

GOOD = """
name = "mine"
backends = ["nft"]
families = ["ipv4"]
networks = ["10.42.0.0/16"]
cluster_networks = ["10.43.0.0/16"]
protocols = ["udp"]
destinations = 1
pod_interfaces = ["veth+"]
uplink = "eth1"
marks = [0, 0x10]

[[tables]]
name = "nat"
chains = ["POSTROUTING", "MINE"]
networks_from = ["MINE"]
"""


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_profile_is_called_as_its_file_and_says_what_it_is_for(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert profile.description
    assert profile.pod_interfaces
    assert any(table.networks_from for table in profile.tables)


def test_the_default_profile_is_shipped() -> None:
    assert DEFAULT in shipped()
    assert {"canal", "flannel", "flannel-nftables"} <= set(shipped())


def test_every_field_of_a_profile_is_read() -> None:
    profile = parse(GOOD, "mine.toml")
    assert (profile.name, profile.backends, profile.families) == ("mine", frozenset({Backend.NFT}), (Family.IPV4,))
    assert (profile.networks, profile.inside) == ((ip_network("10.42.0.0/16"),), (ip_network("10.43.0.0/16"),))
    assert (profile.protocols, profile.destinations, profile.marks) == ((UDP,), 1, (0, 16))
    assert (profile.pod_interfaces, profile.uplink) == (("veth+",), "eth1")
    assert profile.of_interest("nat") == {"POSTROUTING", "MINE"}
    assert profile.of_interest("filter") == frozenset()


def test_the_least_profile_has_sensible_defaults() -> None:
    profile = parse('name = "x"\n[[tables]]\nname = "nat"\n', "x.toml")
    assert profile.backends == frozenset(Backend)
    assert profile.families == (Family.IPV4, Family.IPV6)
    assert profile.protocols == (TCP, UDP, ICMP)
    assert profile.marks == (0,)


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (('name = "mine"', "name = "), "line 2", "TOML"),
        (('name = "mine"', "name = 5"), "line 2: name: this is a number", "expected a text"),
        (('backends = ["nft"]', 'backends = ["iptables"]'), "line 3: backends", '"nft", "legacy", "nftables"'),
        (('backends = ["nft"]', "backends = []"), "line 3: backends", "empty"),
        (('families = ["ipv4"]', 'families = ["ip"]'), "line 4: families", '"ipv4", "ipv6"'),
        (('["10.42.0.0/16"]', '["10.42.0.1/16"]'), "line 5: networks", "host bits"),
        (('["10.42.0.0/16"]', '["fd42::/48"]'), "line 5: networks", "does not watch"),
        (('["10.43.0.0/16"]', '["services"]'), "line 6: cluster_networks", "10.43.0.0/16"),
        (('protocols = ["udp"]', 'protocols = ["sctp"]'), "line 7: protocols", '"tcp", "udp", "icmp"'),
        (('["udp"]', '"udp"'), "line 7: protocols: this is a text", "a list of"),
        (("destinations = 1", 'far_ends = ["there"]'), "line 8: far_ends", "'there' is not an address"),
        (("destinations = 1", 'far_ends = ["10.42.3.4"]'), "line 8: far_ends", "inside the cluster, in 10.42.0.0/16"),
        (("destinations = 1", "destinations = 9"), "line 8: destinations", "1, 2 or 3"),
        (('pod_interfaces = ["veth+"]', 'pod_interfaces = ["a b"]'), "line 9: pod_interfaces", "interface name"),
        (('pod_interfaces = ["veth+"]', 'pod_interfaces = ["+"]'), "line 9: pod_interfaces", "interface name"),
        (('uplink = "eth1"', 'uplink = "more-than-fifteen-characters"'), "line 10: uplink", "15 characters"),
        (("marks = [0, 0x10]", "marks = [0x1_0000_0000]"), "line 11: marks", "32 bits"),
        (
            ("[[tables]]", "[[tables]]\ncolour = 5"),
            "colour",
            "there is no field colour (expected one of name, chains, networks_from)",
        ),
        (('name = "nat"', ""), "tables", "missing"),
        (('chains = ["POSTROUTING", "MINE"]', 'chains = [""]'), "tables", "no name"),
    ],
)
def test_a_bad_profile_is_refused_with_file_line_field_and_what_was_expected(
    change: tuple[str, str], place: str, words: str
) -> None:
    text = GOOD.replace(change[0], change[1], 1)
    assert text != GOOD
    with pytest.raises(InputError) as caught:
        parse(text, "mine.toml")
    assert str(caught.value).startswith("mine.toml: ")
    assert place in str(caught.value)
    assert words in str(caught.value)


def test_a_profile_that_is_not_there_is_refused_with_the_names_of_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="canal, flannel"):
        load(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match="no profile can be read"):
        load(str(tmp_path))
    with pytest.raises(InputError, match="no profile can be read"):
        load("nul\0byte")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load(str(binary))


def test_a_profile_is_loaded_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    assert load(str(tmp_path / "mine.toml")) == parse(GOOD, "mine.toml")


VALUES = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.text(max_size=8).map(repr), st.just('"nat"'), st.just('"ipv4"')),
    lambda inner: st.lists(inner, max_size=3).map(lambda found: f"[{', '.join(map(str, found))}]"),
    max_leaves=6,
)
LINES = st.lists(st.tuples(st.sampled_from([*"abc", "name", "tables", "backends", "networks", "marks"]), VALUES))


@pytest.mark.slow
@given(st.one_of(st.text(), LINES.map(lambda found: "\n".join(f"{key} = {value}" for key, value in found))))
def test_any_text_is_a_profile_or_an_input_error_that_names_the_file(text: str) -> None:
    try:
        parse(text, "some.toml")
    except InputError as error:
        assert str(error).startswith("some.toml")
