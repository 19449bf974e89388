"""Which interface leads to other nodes: flannel's rules, and what is said where none does."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from hitless.agent.overlay.outer import Interface, choose, still_there, worth_moving
from hitless.errors import InputError
from hitless.model.families import Address, Family
from hitless.model.overlay import Outer
from hitless.sources.options import OuterOptions

ETH0 = Interface("eth0", 1500, (ip_address("192.0.2.1"), ip_address("192.0.2.7")))
ETH1 = Interface("eth1", 9000, (ip_address("198.51.100.1"),))
BARE = Interface("eth2", 1500, ())
HOLDERS: dict[Address, str] = {one: each.name for each in (ETH0, ETH1) for one in each.addresses} | {
    ip_address("2001:db8::1"): "eth1"
}


def chosen(options: OuterOptions, public: str = "", family: Family = Family.IPV4) -> Outer:
    def leads(address: Address) -> str:
        return "eth1"

    wanted = ip_address(public) if public else None
    return choose(family, options, wanted, [BARE, ETH0, ETH1], ["eth2", "eth0", "eth1"], leads, HOLDERS)


@pytest.mark.parametrize(
    ("options", "public", "expected"),
    [
        (OuterOptions(), "", ("eth0", "192.0.2.1", "192.0.2.1")),
        (OuterOptions(), "198.51.100.1", ("eth1", "198.51.100.1", "198.51.100.1")),
        (OuterOptions(), "192.0.2.7", ("eth0", "192.0.2.7", "192.0.2.7")),
        (OuterOptions(("eth1",)), "", ("eth1", "198.51.100.1", "198.51.100.1")),
        (OuterOptions(("none", "eth1")), "203.0.113.9", ("eth1", "198.51.100.1", "203.0.113.9")),
        (OuterOptions(("192.0.2.7",)), "", ("eth0", "192.0.2.7", "192.0.2.7")),
        (OuterOptions(("2001:db8::1",)), "", ("eth1", "198.51.100.1", "198.51.100.1")),
        (OuterOptions((), (r"^198\.",)), "", ("eth1", "198.51.100.1", "198.51.100.1")),
        (OuterOptions((), ("eth[1-9]",)), "", ("eth1", "198.51.100.1", "198.51.100.1")),
        (OuterOptions(("none",), ("none",), ip_address("198.51.100.9")), "", ("eth1", "198.51.100.1", "198.51.100.1")),
    ],
)
def test_flannels_rules(options: OuterOptions, public: str, expected: tuple[str, str, str]) -> None:
    found = chosen(options, public)
    assert (found.name, str(found.address), str(found.external)) == expected
    assert found.mtu == (9000 if found.name == "eth1" else 1500)


@pytest.mark.parametrize(
    ("options", "public", "said"),
    [
        (OuterOptions(("none",)), "", "no interface with an ipv4 address is named"),
        (OuterOptions(("eth2",)), "", "no interface with an ipv4 address is named"),
        (OuterOptions(), "203.0.113.9", "is on no interface"),
    ],
)
def test_a_missing_interface_is_an_error_that_lists_the_existing_ones(
    options: OuterOptions, public: str, said: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        chosen(options, public)
    assert "eth0 (192.0.2.1)" in str(caught.value)


def test_what_was_chosen_earlier_is_kept_while_it_is_there() -> None:
    first = Outer("eth0", 1400, ip_address("192.0.2.7"), ip_address("203.0.113.9"))
    second = Outer("eth1", 9000, ip_address("198.51.100.1"), ip_address("198.51.100.1"))
    here = [BARE, ETH0, ETH1]
    # with the MTU of today, and with the address that peers were told
    assert still_there((first, second), here) == Outer("eth0", 1500, first.address, first.external)
    assert still_there((second, first), here) == second
    without = [BARE, Interface("eth0", 1500, (ip_address("192.0.2.1"),)), ETH1]
    assert still_there((first, second), without) == second
    assert still_there((first,), without) is None
    # another interface that has the address now is another place
    assert still_there((first,), [Interface("eth9", 1500, (first.address,))]) is None


def test_a_link_local_address_is_nothing_to_move_to_and_left_as_soon_as_there_is_another() -> None:
    """It is there also while the others are away, and no peer on another link reaches it."""
    far, local = ip_address("2001:db8::1"), ip_address("fe80::1")
    had, alone = Outer("eth0", 1500, far, far), Outer("eth0", 1500, local, local)
    both, bare = Interface("eth0", 1500, (far, local)), Interface("eth0", 1500, (local,))
    assert [one.addresses for one in worth_moving([bare, both], (had,))] == [(), (far,)]
    assert worth_moving([bare], (alone,)) == [bare] == worth_moving([bare], ())
    assert still_there((alone,), [bare]) == alone
    assert still_there((alone,), [both]) is None
    assert still_there((had,), [both]) == had
