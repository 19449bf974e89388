"""Each reader reads a dump again that a change interrupted."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from tests.kernel.nftables.nodes import Node, node, programs

from hitless.agent.overlay.outer import outer_interfaces
from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.addresses import NodeFacts
from hitless.kernel.links import Links
from hitless.kernel.links.scope import Scope
from hitless.kernel.namespaces import Namespace
from hitless.kernel.netlink import Message, Socket, TornError
from hitless.kernel.rtnetlink import formats
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.families import Address, Family
from hitless.observe.nodes import Viewer
from hitless.sources.options import OuterOptions

pytestmark = pytest.mark.kernel

PAIRS, ADDRESSES = 120, 1200
"""So many that a dump takes at least three datagrams: the kernel makes the second one before the first is received."""


KEPT = {f"k{one}" for one in range(PAIRS)}
FOUR = {IPv4Address(f"10.{9 + one // 250}.{one % 250}.1") for one in range(ADDRESSES)}
SIX = {IPv6Address(f"fd00:0:9:{one:x}::1") for one in range(ADDRESSES)}
HELD: Mapping[Family | None, set[Address]] = {Family.IPV4: {*FOUR}, Family.IPV6: {*SIX}, None: {*FOUR, *SIX}}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def place() -> Iterator[Node]:
    programs("ip")
    with node() as found:
        lines = ["link add d0 group 5 type veth peer name d1", "link set d0 up", "link set d1 up"]
        lines += [f"link add k{one} type veth peer name q{one}" for one in range(PAIRS)]
        lines += [f"addr add {one}/32 dev d0" for one in FOUR]
        lines += [f"addr add {one}/128 dev d0 nodad" for one in SIX]
        lines += ["route add 10.77.0.0/16 dev d0"]
        found.run("ip", "-batch", "-", stdin="\n".join(lines))
        yield found


@pytest.fixture
def interrupted(place: Node, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bytes]]:
    """A link comes in the middle of the first dump of each kind; the dumps that the kernel called interrupted."""
    stream, disturbed, found = Socket.stream, set[tuple[int, bytes]](), list[tuple[int, bytes]]()

    def disturbing(self: Socket, kind: int, payload: bytes, **more: Any) -> Iterator[Message]:
        dump = kind, payload
        try:
            for one in stream(self, kind, payload, **more):
                if dump not in disturbed:
                    disturbed.add(dump)
                    place.run("ip", "link", "add", f"x{next(NUMBERS)}", "type", "bridge")
                yield one
        except TornError:
            found.append(dump)
            raise

    monkeypatch.setattr(Socket, "stream", disturbing)
    return found


def _reader(where: Namespace) -> None:
    with RtnetlinkReader(where) as reader:
        names = names_of(reader.devices())
        assert {*names.values()} >= KEPT
        for family in (None, *Family):
            found = [one.address for one in reader.addresses(names, family)]
            assert HELD[family] <= {*found} and len(found) == len({*found})


def _node_facts(where: Namespace) -> None:
    with closing(NodeFacts(where)) as facts:
        for family in Family:
            assert HELD[family] <= facts.addresses(family)
        assert facts.paths(Family.IPV4).interface(IPv4Address("10.77.0.1")) == "d0"


def _surroundings(where: Namespace) -> None:
    with closing(NodeSurroundings(where)) as surroundings:
        assert surroundings.group("d0") == 5 and surroundings.kind("k7") == "veth"
        assert surroundings.address("d0", Family.IPV4) is None  # it has many


def _overlay(where: Namespace) -> None:
    with Links(where) as links:
        found = links.observe(Scope((ip_network("10.42.0.0/16"), ip_network("fd42::/48"))))
    assert {one.name for one in found.devices()} >= KEPT


def _outer(where: Namespace) -> None:
    found = outer_interfaces([Family.IPV4], OuterOptions(names=("10.9.7.1",)), {}, namespace=where)
    assert found.outer[Family.IPV4].name == "d0"


def _viewer(where: Namespace) -> None:
    with closing(Viewer(where)) as viewer:
        view = viewer.look()
    assert {*view.links} >= KEPT and all(HELD[family] <= {*view.addresses[family]} for family in Family)


@pytest.mark.parametrize("read", [_reader, _node_facts, _surroundings, _overlay, _outer, _viewer])
def test_every_reader_reads_an_interrupted_dump_again(
    place: Node, interrupted: list[tuple[int, bytes]], read: Callable[[Namespace], None]
) -> None:
    read(place.namespace)
    kinds = [kind for kind, _ in interrupted]
    assert formats.GETLINK in kinds and (formats.GETADDR in kinds or read is _overlay)  # it has no device of flannel's


def test_a_dump_that_is_interrupted_each_time_is_an_error(place: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "TRIES", 3)
    stream, tries = Socket.stream, [0]

    def disturbing(self: Socket, *what: Any, **more: Any) -> Iterator[Message]:
        tries[0] += 1
        for at, one in enumerate(stream(self, *what, **more)):
            if not at:
                place.run("ip", "link", "add", f"x{next(NUMBERS)}", "type", "bridge")
            yield one

    monkeypatch.setattr(Socket, "stream", disturbing)
    with RtnetlinkReader(place.namespace) as reader:
        with pytest.raises(KernelError, match="list the interfaces: changed during each of 3 reads"):
            reader.devices()
        assert tries == [3]
        monkeypatch.undo()
        assert {one.name for one in reader.devices()} >= KEPT  # the next one is whole
