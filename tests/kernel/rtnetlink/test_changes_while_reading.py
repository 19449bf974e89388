"""Entries that were there all the time are reported, also where others are removed while a dump is read. The kernel
skips some then without reporting it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.kernel.nftables.nodes import Node, node, programs

from hitless.kernel.netlink import Message, Socket
from hitless.kernel.rtnetlink import decoding, formats
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.families import Family
from hitless.model.links import ForwardingEntry

pytestmark = pytest.mark.kernel

ENTRIES = 1500
"""So many that a dump takes at least three datagrams: the kernel makes the second one before the first is received."""
MACS = {f"02:00:00:01:{one // 256:02x}:{one % 256:02x}" for one in range(ENTRIES)}
LINES = """
link add d0 type veth peer name d1
link set d0 up
link add flannel.1 type vxlan id 1 dev d0 dstport 8472 nolearning
link set flannel.1 up
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Node]:
    programs("ip", "bridge")
    with node() as found:
        routes = "".join(f"route add fd42:0:0:{one:x}::/64 dev flannel.1\n" for one in range(ENTRIES))
        found.run("ip", "-batch", "-", stdin=LINES + routes)
        entries = "".join(f"fdb append {mac} dst 192.0.2.1 dev flannel.1\n" for mac in MACS)
        found.run("bridge", "-batch", "-", stdin=entries)
        yield found


def _forwarding(reader: RtnetlinkReader) -> set[str]:
    names = names_of(reader.devices())
    (index,) = (number for number, name in names.items() if name == "flannel.1")
    return {one.mac for one in reader.forwarding(names, index, lambda *_: True)}


def _routes(reader: RtnetlinkReader) -> set[str]:
    found = reader.routes(names_of(reader.devices()), Family.IPV6, unicast)
    return {str(one.to) for one in found if one.device == "flannel.1" and one.to.prefixlen == 64}


CASES = {
    formats.GETNEIGH: (_forwarding, "bridge", "fdb {} {} dst 192.0.2.1 dev flannel.1", "append"),
    formats.GETROUTE: (_routes, "ip", "route {} {} dev flannel.1", "add"),
}


def _first(message: Message) -> str:
    """The entry that a message is about; empty: the end of the dump, or another link's."""
    if message.type == formats.NEWROUTE:
        read = decoding.route_message(message.payload)
        assert read is not None
        found = decoding.route(read, {})
        return str(found.to) if found.to.prefixlen == 64 and found.to.network_address.packed[0] == 0xFD else ""
    entry = decoding.neighbour(message.payload, {}, lambda *_: True)
    return entry.mac if isinstance(entry, ForwardingEntry) else ""


@pytest.mark.parametrize("kind", CASES, ids=["forwarding", "routes"])
@pytest.mark.parametrize("disturbed", [1, 100], ids=["the first dump", "every dump"])
def test_what_was_there_all_the_time_is_reported(
    place: Node, monkeypatch: pytest.MonkeyPatch, kind: int, disturbed: int
) -> None:
    """While a dump is read, an entry that it has already reported is removed."""
    read, program, command, add = CASES[kind]
    stream, removed, dumps = Socket.stream, list[str](), [0]

    def removing(self: Socket, asked: int, payload: bytes, **more: Any) -> Iterator[Message]:
        dumps[0] += asked == kind
        once = asked == kind and dumps[0] <= disturbed
        for one in stream(self, asked, payload, **more):
            victim = _first(one) if once else ""
            if victim and victim not in removed:
                place.run(program, *command.format("del", victim).split())
                removed.append(victim)
                once = False
            yield one

    with RtnetlinkReader(place.namespace) as reader:
        every = read(reader)
        assert len(every) >= ENTRIES
        monkeypatch.setattr(Socket, "stream", removing)
        found = read(reader)
        monkeypatch.undo()
        for victim in removed:
            place.run(program, *command.format(add, victim).split())
        assert removed and every - {*removed} <= found
        assert dumps[0] == 2 if disturbed == 1 else dumps[0] > 2
        assert every == read(reader)
