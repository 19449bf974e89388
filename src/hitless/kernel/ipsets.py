"""ipsets: their names and members. Rules refer to a set by its number.

Problem: a rule with ``-m set`` has the set's index in the kernel's list; only the kernel knows which set that is, and
whether a packet is in it. Promise: ``name`` gives the name (IPSET_CMD_GET_BYINDEX, Linux 4.20 and later), and ``holds``
whether a set of any type contains a packet's addresses and ports (IPSET_CMD_TEST: the kernel itself decides about
timeouts, networks and "nomatch", and a set of any size costs one request). What is not known is ``None``. ``named``
replaces numbers by names in a text. It never changes members. Next stages: ``surroundings``, ``hitless.guard``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hitless.errors import KernelError, MissingError
from hitless.kernel import netlink
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.ports import only_ours
from hitless.model.families import Family
from hitless.model.packets import ICMP, ICMPV6, Packet

__all__ = ["Ipsets", "named", "names"]

# <linux/netfilter/nfnetlink.h>, <linux/netfilter/ipset/ip_set.h>
_SUBSYSTEM, _LIST, _TEST, _HEADER, _GET_BYINDEX = 6, 7, 11, 12, 15
_PROTOCOL, _SETNAME, _TYPENAME, _FAMILY, _DATA, _ADT, _INDEX = 1, 2, 3, 5, 7, 8, 11
_IP, _PORT, _PROTO, _NAME, _IP2, _IFACE = 1, 4, 7, 18, 20, 23
_VERSION = 7
_NET_ORDER = 0x4000  # NLA_F_NET_BYTEORDER
_NOT_IN = 4103  # IPSET_ERR_EXIST
_OF_TYPES = 4352  # from here on the numbers are the types' own: such a key can be in no set of the type
_WITH_PORTS = frozenset({6, 17, 132, 136})
_FAMILIES = {2: Family.IPV4, 10: Family.IPV6}
_NUMBERED = re.compile(r"(?<![\w#])#(\d+)\b")
_MOST_MEMBERS = 256  # sets in a list; "ipset create" gives a list room for 8
_DEEPEST = 2  # lists of sets contain sets, not lists


class Ipsets:
    """The sets of one namespace, over one socket that is opened at the first use."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._namespace = namespace
        self._socket: netlink.Socket | None = None

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @only_ours("read", "the name of a set")
    def name(self, number: int) -> str | None:
        """The set's name; ``None`` where no set has this number, or the kernel does not report it."""
        found = self._ask(_GET_BYINDEX, netlink.be16(_INDEX, number))
        return None if found is None else netlink.to_text(found.get(_SETNAME, b"")) or None

    @only_ours("ask", "a set")
    def holds(self, name: str, directions: Sequence[str], packet: Packet) -> bool | None:
        """Whether a set contains the packet, by these ``directions`` ("src", "dst"), one for each dimension."""
        return self._holds(name, directions, packet, 0)

    def _holds(self, name: str, directions: Sequence[str], packet: Packet, depth: int) -> bool | None:
        head = self._ask(_HEADER, netlink.text(_SETNAME, name))
        if head is None:
            return None
        kind = netlink.to_text(head.get(_TYPENAME, b""))
        if kind == "list:set":
            members = self._members(name) if depth < _DEEPEST else None  # of all other types none are read
            if members is None:
                return None
            answers = [self._holds(member, directions, packet, depth + 1) for member in members]
            return True if True in answers else None if None in answers else False
        family = head.get(_FAMILY, b"\0")[0]
        if family in _FAMILIES and _FAMILIES[family] is not packet.family:
            return False
        key = _key(kind, directions, packet)
        if key is None:
            return None
        return self._test(name, key) if key else False

    def _test(self, name: str, key: bytes) -> bool | None:
        payload = _head() + netlink.text(_SETNAME, name) + netlink.nested(_DATA, key)
        try:
            self._opened().request(_SUBSYSTEM << 8 | _TEST, 0, payload, operation="ask", subject=f"set {name}")
        except KernelError as error:
            return False if error.errno == _NOT_IN or error.errno >= _OF_TYPES else None
        except MissingError:
            return None
        return True

    def _members(self, name: str) -> list[str] | None:
        """The sets in a list; ``None`` also where they are too many to test each of them."""
        found: list[str] = []
        try:
            payload = _head() + netlink.text(_SETNAME, name)
            socket = self._opened()
            for reply in socket.stream(_SUBSYSTEM << 8 | _LIST, payload, operation="read", subject=f"set {name}"):
                listed = netlink.attributes(reply.payload, 4).get(_ADT, b"")
                names = (netlink.attributes(raw).get(_NAME, b"") for _, raw in netlink.attribute_list(listed))
                found += map(netlink.to_text, names)
                if len(found) > _MOST_MEMBERS:
                    self.close()  # the rest of the answer is not waited for
                    return None
        except (KernelError, MissingError):
            return None
        return found

    def _ask(self, command: int, payload: bytes) -> dict[int, bytes] | None:
        try:
            replies = self._opened().request(
                _SUBSYSTEM << 8 | command, 0, _head() + payload, operation="read", subject="a set"
            )
        except (KernelError, MissingError):  # NotFound is a KernelError: no such set, no ipset, an older kernel
            return None
        return netlink.attributes(replies[0].payload, 4) if replies else None

    def _opened(self) -> netlink.Socket:
        if self._socket is None:
            self._socket = netlink.Socket(netlink.NETFILTER, self._namespace)
        return self._socket


def _head() -> bytes:
    return netlink.nfgenmsg(0) + netlink.attribute(_PROTOCOL, bytes((_VERSION,)))


def _address(kind: int, value: bytes) -> bytes:
    inner = netlink.attribute((1 if len(value) == 4 else 2) | _NET_ORDER, value)
    return netlink.nested(kind, inner)


def _key(kind: str, directions: Sequence[str], packet: Packet) -> bytes | None:
    """The packet as an element of a set of this type; empty where it can be in none, ``None`` where that is not known.
    A rule that names fewer dimensions than the set has never matches (ip_set_test)."""
    dimensions = kind.partition(":")[2].split(",")
    if len(directions) < len(dimensions):
        return b""
    found, addresses = b"", 0
    for dimension, direction in zip(dimensions, directions, strict=False):
        source = direction == "src"
        if dimension in ("ip", "net"):
            found += _address(_IP2 if addresses else _IP, (packet.src if source else packet.dst).packed)
            addresses += 1
        elif dimension == "port":
            port = _port(packet, source)
            if port is None:
                return b""
            found += netlink.attribute(_PORT | _NET_ORDER, port.to_bytes(2, "big"))
            if kind != "bitmap:port":
                found += netlink.attribute(_PROTO, bytes((packet.protocol,)))
        elif dimension == "iface":
            name = packet.iif if source else packet.oif
            if not name:
                return None
            found += netlink.text(_IFACE, name)
        else:  # mac, mark, set
            return None
    return found


def _port(packet: Packet, source: bool) -> int | None:
    """What ipset takes for the packet's port: of an echo its type and code (ip_set_get_ip4_port)."""
    if packet.protocol in _WITH_PORTS:
        return packet.sport if source else packet.dport
    echo = {ICMP: 0, ICMPV6: 129 << 8} if packet.reply else {ICMP: 8 << 8, ICMPV6: 128 << 8}
    return echo.get(packet.protocol)


@only_ours("read", "the names of sets")
def names(numbers: Iterable[int], namespace: Namespace = HERE) -> dict[int, str]:
    """The sets' names by their numbers, of those that there are."""
    wanted = sorted(set(numbers))
    if not wanted:
        return {}
    sets = Ipsets(namespace)
    try:
        return {number: name for number in wanted if (name := sets.name(number)) is not None}
    finally:
        sets.close()


def named(text: str, namespace: Namespace = HERE) -> str:
    """The text with "my-set" in place of "#3"."""
    known = names((int(number) for number in _NUMBERED.findall(text)), namespace)
    return _NUMBERED.sub(lambda found: known.get(int(found[1]), f"#{found[1]}"), text)
