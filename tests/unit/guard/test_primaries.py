"""Profiles: built in, from files, and wrong ones."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from hitless.errors import InputError
from hitless.guard import primaries


def test_flannel_is_known_in_both_of_its_modes() -> None:
    assert ("nat", "FLANNEL-POSTRTG") in primaries.load("canal").chains
    assert ("flannel-ipv6", "postrtg") in primaries.load("flannel").chains


def test_a_mode_of_a_plugin_is_the_plugin() -> None:
    """The watch has profiles for modes; the guard finds out by the rules in which one the plugin is."""
    assert primaries.load("flannel-nftables") == primaries.load("flannel")


def test_a_file_names_chains_networks_and_where_the_agent_speaks(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('chains = ["nat/MY-MASQ"]\nnetworks = ["10.9.0.0/16"]\nprocesses = ["myd"]\n')
    found = primaries.load(str(path))
    assert (found.name, found.chains) == ("mine", (("nat", "MY-MASQ"),))
    assert (found.networks, found.processes) == ((ip_network("10.9.0.0/16"),), ("myd",))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("chains = [", "TOML"),
        ("", "chain"),
        ('chains = ["MY-MASQ"]', "TABLE/CHAIN"),
        ('chains = "nat/X"', "list of texts"),
        ('chains = ["nat/X"]\nnetworks = ["10.9.0.1/16"]', "host bits"),
        ('chains = ["nat/X"]\nchian = ["nat/Y"]', "chian"),
        ('chains = ["nat/X"]\nname = 7', "name"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_field(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as refused:
        primaries.load(str(path))
    assert "wrong.toml" in str(refused.value)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="flannel"):
        primaries.load("weave")
