"""What the reader reports is what iproute2 prints, for every kind of link, address, route and neighbour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.kernel.nftables.nodes import Node, node, programs, wait_for

from hitless.kernel.rtnetlink.reader import RtnetlinkReader, confirmed, names_of, unicast
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

LINKS = """
link add d0 mtu 1400 address 02:00:00:00:00:01 type veth peer name d1
link add br0 type bridge
link set d1 master br0 group 7
link add off type veth peer name beside
link set off up
link add vx0 type vxlan id 3 local 192.0.2.2 dev d0 dstport 8472 nolearning
link set d0 up
link set d1 up
link set br0 up
link set vx0 up
"""
ADDRESSES = """
addr add 192.0.2.2/24 dev d0
addr add 192.0.2.3/24 dev d0
addr add 192.0.2.2/32 dev br0
addr add 10.9.9.9 peer 10.9.9.1 dev d0
addr add 10.9.9.10/32 scope link dev d0
addr add fd00::2/64 dev d0 nodad
addr add fd00::3/64 dev d0 preferred_lft 0 valid_lft 1000 nodad
addr add fd00:0:0:2::1 peer fd00:0:0:2::2 dev d0 nodad
addr add fd00:0:0:3::1/64 dev d0 mngtmpaddr nodad
addr add fd00:0:0:4::1/64 dev beside
"""
ROUTES = """
route add default via 192.0.2.1 metric 5
route add 10.50.0.0/16 nexthop via 192.0.2.10 weight 1 nexthop via 192.0.2.11 weight 2
route add 10.51.0.0/16 via inet6 fd00::9 dev d0
nexthop add id 5 via 192.0.2.12 dev d0
nexthop add id 6 via 192.0.2.13 dev d0
nexthop add id 7 group 5/6
nexthop add id 8 via fd00::8 dev d0
route add 10.52.0.0/16 nhid 5
route add 10.52.1.0/24 nhid 5 table 1000
route add 10.53.0.0/16 nhid 7
route add blackhole 10.60.0.0/24
route add unreachable 10.61.0.0/24 metric 9
route add prohibit 10.62.0.0/24
route add throw 10.63.0.0/24
route add 10.64.0.0/24 dev d0 table 300 metric 7
route add 10.65.0.0/24 via 198.51.100.1 dev vx0 onlink
route add 10.66.0.5/32 dev d0
route add 10.66.0.0/24 via 192.0.2.1 mtu 1300
route add fd53::/64 nhid 8
route add fd54::/64 nexthop via fd00::10 nexthop via fd00::11
route add fd55::/64 via fd00::10 metric 3
route add blackhole fd60::/64
route add unreachable fd61::/64
route add fd66::5/128 dev d0
"""
NEIGHBOURS = """
neigh add 192.0.2.20 lladdr 02:00:00:00:00:20 dev d0 nud permanent
neigh add 192.0.2.21 lladdr 02:00:00:00:00:21 dev d0 nud stale
neigh add 192.0.2.22 lladdr 02:00:00:00:00:22 dev d0 nud reachable
neigh add 192.0.2.23 lladdr 02:00:00:00:00:23 dev d0 nud noarp
neigh add 192.0.2.24 dev d0 nud failed
neigh add 192.0.2.25 dev d0 nud incomplete
neigh add proxy 192.0.2.26 dev d0
neigh add fd00::20 lladdr 02:00:00:00:00:20 dev d0 nud permanent
neigh add fd00::24 dev d0 nud failed
neigh add proxy fd00::26 dev d0
"""
NAMES = {"kernel": 2, "boot": 3, "static": 4}


@pytest.fixture(scope="module")
def place() -> Iterator[Node]:
    programs("ip", "bridge")
    with node() as found:
        for sysctl in ("net.ipv6.conf.default.use_tempaddr=2", "net.ipv6.conf.default.dad_transmits=300"):
            found.run("sysctl", "-qw", sysctl)
        for text in (LINKS, ADDRESSES, ROUTES, NEIGHBOURS):
            found.run("ip", "-batch", "-", stdin=text)
        found.run("bridge", "fdb", "append", "02:00:00:00:00:31", "dst", "192.0.2.31", "dev", "vx0")
        for kind in ("dummy", "vrf"):  # where the kernel has them
            extra = ["table", "10"] if kind == "vrf" else []
            found.run("ip", "link", "add", f"a-{kind}", "type", kind, *extra, check=False)
        found.run("ip", "link", "set", "off", "master", "a-vrf", check=False)
        yield found


@pytest.fixture
def reader(place: Node) -> Iterator[RtnetlinkReader]:
    with RtnetlinkReader(place.namespace) as found:
        yield found


def printed(place: Node, *command: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(place.run(*command) or "[]")
    return found


def same(ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Both read the same. New links still change (carrier, addresses) while they are read: then both read again."""
    wait_for(lambda: ours() == theirs(), "both to report the same")


def test_links(place: Node, reader: RtnetlinkReader) -> None:
    def ours() -> list[tuple[object, ...]]:
        return [
            (one.index, one.name, one.kind, one.mtu, one.mac, one.up, one.carrier, one.master, one.group)
            for one in reader.devices()
        ]

    def theirs() -> list[tuple[object, ...]]:
        return [
            (
                one["ifindex"], one["ifname"], one.get("linkinfo", {}).get("info_kind", ""), one["mtu"],
                one.get("address", ""), "UP" in one["flags"], {"UP", "LOWER_UP"} <= {*one["flags"]},
                one.get("master", ""), 0 if one["group"] == "default" else int(one["group"]),
            )
            for one in printed(place, "ip", "-j", "-d", "link", "show")
        ]  # fmt: skip

    same(ours, theirs)
    kinds = {name: (kind, carrier, master, group) for _, name, kind, _, _, _, carrier, master, group in ours()}
    assert kinds["d1"] == ("veth", True, "br0", 7) and kinds["off"][1] is False and kinds["vx0"][0] == "vxlan"


def test_addresses(place: Node, reader: RtnetlinkReader) -> None:
    scopes = {"global": 0, "link": 253, "host": 254}

    def ours() -> list[tuple[object, ...]]:
        found = reader.addresses(names_of(reader.devices()))
        return sorted((one.device, str(one.address), one.length, one.scope, one.secondary) for one in found)

    def theirs() -> list[tuple[object, ...]]:
        return sorted(
            (
                link["ifname"], one["local"], one["prefixlen"], scopes[one["scope"]],
                one.get("secondary", False) or one.get("temporary", False),
            )
            for link in printed(place, "ip", "-j", "addr", "show")
            for one in link["addr_info"]
            if one
        )  # fmt: skip

    same(ours, theirs)
    flags = {(device, address): secondary for device, address, _, _, secondary in ours()}
    assert flags["d0", "192.0.2.3"] is True and flags["d0", "192.0.2.2"] is False
    temporary = [address for (_, address), secondary in flags.items() if secondary and ":" in str(address)]
    assert [ip_address(str(one)) in ip_network("fd00:0:0:3::/64") for one in temporary] == [True]
    for family in Family:
        alone = reader.addresses(names_of(reader.devices()), family)
        assert {one.address.version for one in alone} == {4 if family is Family.IPV4 else 6}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("compat", ["1", "0"])
def test_routes(place: Node, reader: RtnetlinkReader, family: Family, compat: str) -> None:
    place.run("sysctl", "-qw", f"net.ipv4.nexthop_compat_mode={compat}")
    version = "-4" if family is Family.IPV4 else "-6"
    tables = {"main": 254, "local": 255, "default": 253}
    everything = "0.0.0.0/0" if family is Family.IPV4 else "::/0"

    def ours() -> list[tuple[object, ...]]:
        found = reader.routes(names_of(reader.devices()), family, lambda _: True)
        return sorted(
            (
                str(one.to), one.kind, one.device, str(one.gateway or ""), one.table, one.metric, one.onlink,
                one.hidden_gateway,
            )
            for one in found
        )  # fmt: skip

    def theirs() -> list[tuple[object, ...]]:
        found = printed(place, "ip", version, "-j", "-d", "route", "show", "table", "all")
        return sorted(
            (
                str(ip_network(everything if one["dst"] == "default" else one["dst"])),
                one["type"], one.get("dev", ""), one.get("gateway", ""),
                tables[name] if (name := one.get("table", "main")) in tables else int(name),
                one.get("metric", 0), "onlink" in one["flags"],
                "nexthops" in one or "via" in one or ("nhid" in one and "dev" not in one),
            )
            for one in found
        )  # fmt: skip

    same(ours, theirs)
    found = reader.routes(names_of(reader.devices()), family, partial(unicast, table=254))
    direct = {str(one.to): one.direct for one in found}
    if family is Family.IPV4:
        assert direct["10.66.0.5/32"] is True
        assert not any(direct[f"10.{number}.0.0/16"] for number in (50, 51, 52, 53)) and "10.60.0.0/24" not in direct
    else:
        assert direct["fd66::5/128"] is True and not any(direct[f"fd{number}::/64"] for number in (53, 54, 55))
        assert "fd61::/64" not in direct


@pytest.mark.parametrize("family", Family)
def test_neighbours(place: Node, reader: RtnetlinkReader, family: Family) -> None:
    version = "-4" if family is Family.IPV4 else "-6"

    def theirs(*states: str) -> list[tuple[object, ...]]:
        found = printed(place, "ip", version, "-j", "neigh", "show", "nud", "all")
        return sorted(
            (one["dev"], one["dst"], one.get("lladdr", ""), "PERMANENT" in one["state"])
            for one in found
            if not states or set(states) & {*one["state"]}
        )

    def ours(wanted: Callable[[int, int], bool]) -> list[tuple[object, ...]]:
        found = reader.neighbours(names_of(reader.devices()), family, wanted)
        return sorted((one.device, str(one.address), one.mac, one.permanent) for one in found)

    same(lambda: ours(lambda *_: True), theirs)
    same(lambda: ours(confirmed), lambda: theirs("REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"))
    assert not any("26" in str(address) for _, address, _, _ in ours(confirmed))  # no proxy entry


def test_forwarding_entries(place: Node, reader: RtnetlinkReader) -> None:
    names = names_of(reader.devices())
    index = next(number for number, name in names.items() if name == "vx0")

    def ours() -> list[tuple[object, ...]]:
        found = reader.forwarding(names, index, lambda *_: True)
        return sorted((one.device, one.mac, str(one.to or ""), one.permanent) for one in found)

    def theirs() -> list[tuple[object, ...]]:
        found = printed(place, "bridge", "-j", "fdb", "show", "dev", "vx0")
        return sorted(
            ("vx0", one["mac"], one.get("dst", ""), one.get("state") == "permanent")
            for one in found
            if "self" in one["flags"]
        )

    same(ours, theirs)
    assert ("vx0", "02:00:00:00:00:31", "192.0.2.31", True) in ours()


@pytest.mark.parametrize("to", ["192.0.2.77", "10.66.0.5", "10.66.0.9", "10.51.0.1", "10.52.0.1", "fd55::1", "fd66::5"])
def test_lookups(place: Node, reader: RtnetlinkReader, to: str) -> None:
    found = reader.lookup(names_of(reader.devices()), ip_address(to))
    (one,) = printed(place, "ip", "-j", "route", "get", to)
    assert found is not None
    assert (found.device, str(found.gateway or "")) == (one["dev"], one.get("gateway", ""))
    assert found.direct is not ("gateway" in one or "via" in one)


@pytest.mark.parametrize("to", ["10.60.0.1", "10.61.0.1", "10.62.0.1", "192.0.2.2", "fd60::1", "fd61::1"])
def test_no_route_is_found_for_what_is_not_sent(reader: RtnetlinkReader, to: str) -> None:
    assert reader.lookup(names_of(reader.devices()), ip_address(to)) is None
