"""What is known of a packet beside its addresses and ports, property by property.

Problem: rules ask whether a packet is a fragment, broadcast, of the reply direction, sent by a user of the node, and a
first packet of a pod's flow certainly is not. Promise: ``possible`` gives the closed ranges that a property's value
lies in, ``ABSENT`` where the packet has no such thing (a condition then does not hold, negated or not), ``None`` where
anything is possible. It speaks of the first packet of a flow that the node forwards; of later ones it knows less. The
names are those that the decoders write (``hitless.model.matches.Property``); the table in docs/semantics.md lists them,
and a test sends packets for each. ``View`` is what the walk shows to conditions. Next stage: ``walk``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hitless.model.families import Family
from hitless.model.matches.base import Possible
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.semantics.sight import Sight

__all__ = ["ABSENT", "PROPERTIES", "View", "possible"]

ABSENT: Possible = ()
_MOST = 65535
_WITH_NAMES = ("account ", "recent ")
_HEADERS = {TCP: (20, 80), UDP: (8, _MOST), ICMP: (8, _MOST), ICMPV6: (8, _MOST)}
"""How long a first packet is behind its IP header: a SYN has options, and no data that anybody would count on."""


def possible(name: str, sight: Sight) -> Possible | None:
    """The ranges that the property's value lies in."""
    if name in sight.position.touched:
        return None
    known = PROPERTIES.get(name)
    if known is not None:
        return known(sight)
    return _named(name, sight) if name.startswith(_WITH_NAMES) else None


class View(Sight):
    """A position of a packet with all that conditions ask of it (``hitless.model.matches.base.Sight``)."""

    __slots__ = ()

    def possible(self, name: str) -> Possible | None:
        """The ranges that the property's value lies in."""
        return possible(name, self)


def _is(value: int) -> Callable[[Sight], Possible | None]:
    """Of the first packet, and of its answer: certainly this."""
    return lambda sight: ((value, value),) if sight.plain else None


def _any_packet(*ranges: tuple[int, int]) -> Callable[[Sight], Possible | None]:
    return lambda sight: ranges


def _connection(value: int, answer: int | None = None) -> Callable[[Sight], Possible | None]:
    """Of the first packet's connection: certainly this; nothing is there where conntrack did not look. ``answer``: the
    same when the first answer is seen."""

    def known(sight: Sight) -> Possible | None:
        if not sight.position.connected:
            return ABSENT
        if sight.packet.reply:
            return None if answer is None else ((answer, answer),)
        return ((value, value),) if sight.first else None

    return known


def _helper(sight: Sight) -> Possible | None:
    return ABSENT if sight.first or not sight.position.connected else None


def _length(sight: Sight) -> Possible | None:
    low, high = _HEADERS.get(sight.packet.protocol, (0, _MOST))
    if not sight.plain:
        return ((20, _MOST),)
    head = 20 if sight.packet.family is Family.IPV4 else 40
    return ((head + low, min(_MOST, head + high)),)


def _payload_length(sight: Sight) -> Possible | None:
    low, high = _HEADERS.get(sight.packet.protocol, (0, _MOST))
    return ((low, high),) if sight.plain else None


def _counted(sight: Sight) -> Possible | None:
    """Packets of the connection: this one, where the node counts (nf_conntrack_acct), else none."""
    if not sight.position.connected:
        return ABSENT
    return ((0, 1),) if sight.first else None


def _bytes(sight: Sight) -> Possible | None:
    if not sight.position.connected:
        return ABSENT
    length = _length(sight)
    return None if not sight.first or length is None else ((0, 0), *length)


def _status(sight: Sight) -> Possible | None:
    """The status bits that a first packet's connection may have: none that comes with an answer or its confirmation."""
    if not sight.position.connected:
        return ABSENT
    if not sight.first:
        return None
    # IPS_SRC_NAT, and IPS_SRC_NAT_DONE, IPS_DST_NAT_DONE: whether a NAT chain was asked
    source = 0x10 if sight.translated else 0
    return tuple((source | done, source | done) for done in (0, 0x80, 0x100, 0x180))


def _from_pod(ask: str) -> Callable[[Sight], Possible | None]:
    return lambda sight: _of_interface(sight, ask, sight.packet.iif)


def _to_outside(ask: str) -> Callable[[Sight], Possible | None]:
    return lambda sight: ABSENT if sight.hook == "prerouting" else _of_interface(sight, ask, sight.packet.oif)


def _of_interface(sight: Sight, ask: str, interface: str) -> Possible | None:
    if sight.node is None or not interface:
        return None
    answer = sight.node.group(interface) if ask == "group" else sight.node.kind(interface)
    if answer is None:
        return None
    if answer == "":
        return ABSENT  # hardware has no kind to compare
    value = answer if isinstance(answer, int) else _word(answer)
    return ((value, value),)


def _word(text: str) -> int:
    """A name as the number that sixteen bytes of it make."""
    return int.from_bytes(text.encode()[:16].ljust(16, b"\0"), "big")


def _in_clear(sight: Sight) -> bool:
    """Whether the packet came in clear: a pod's does, an answer from outside where the node has no IPsec policy."""
    return sight.first or (sight.packet.reply and sight.node is not None and sight.node.ipsec() is False)


def _ipsec_out(sight: Sight) -> Possible | None:
    """Whether the packet will be encrypted: certainly not where the node has no policy."""
    return ((0, 0),) if sight.node is not None and sight.node.ipsec() is False else None


def _route_class(sight: Sight) -> Possible | None:
    return ABSENT if sight.hook == "prerouting" else None


def _of_connection(value: Callable[[Sight], int | None]) -> Callable[[Sight], Possible | None]:
    """Something of the tuple that the first packet gave its connection."""

    def known(sight: Sight) -> Possible | None:
        if not sight.position.connected:
            return ABSENT
        number = value(sight) if sight.plain else None
        return None if number is None else ((number, number),)

    return known


def _end(pod: bool, of: str) -> Callable[[Sight], int | None]:
    """The address or port of one end of the connection, the pod's or the far one, as the first packet had it; of its
    answer it is known once NAT is undone."""

    def known(sight: Sight) -> int | None:
        packet = sight.packet
        if of == "port" and packet.protocol not in (TCP, UDP):
            return None
        source = pod is not packet.reply
        if not source and packet.own:
            return None
        if of == "port":
            return packet.sport if source else packet.dport
        return int(packet.src if source else packet.dst)

    return known


def _told_of_pod(sight: Sight) -> int | None:
    """Where answers go, as the connection has it: to the pod, until the flow is translated."""
    return None if sight.translated or sight.packet.reply else int(sight.packet.src)


def _account(of: Callable[[Sight], Possible | None], counted: Possible) -> Callable[[Sight], Possible | None]:
    """What connbytes compares: nothing (-1) where the node does not count, which it says of the first packet too."""

    def known(sight: Sight) -> Possible | None:
        if not sight.position.connected:
            return ((-1, -1),)
        values = counted or of(sight)
        return None if not sight.first or values is None else ((-1, -1), *values)

    return known


def _labelled(sight: Sight) -> Possible | None:
    return ((0, 0),) if sight.first and "ct label" not in sight.position.touched else None


def _mark(sight: Sight) -> Possible | None:
    position = sight.position
    return None if position.unknown else ((position.mark, position.mark),)


def _ct_mark(sight: Sight) -> Possible | None:
    position = sight.position
    if not position.connected:
        return ABSENT
    return None if position.ct_unknown else ((position.ct_mark, position.ct_mark),)


_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}


def _state(sight: Sight) -> Possible | None:
    bit = _STATES.get(sight.position.state)
    return None if bit is None else ((bit, bit),)


def _transport(which: str) -> Callable[[Sight], Possible | None]:
    """The first or second pair of bytes behind the IP header: ports, where the protocol has some."""

    def known(sight: Sight) -> Possible | None:
        packet = sight.packet
        hidden = sight.translated if which == "sport" else packet.own
        if packet.protocol not in (TCP, UDP) or hidden:
            return None
        port = packet.sport if which == "sport" else packet.dport
        return ((port, port),)

    return known


def _one(value: int | None) -> Possible | None:
    return None if value is None else ((value, value),)


def _way_out(sight: Sight) -> int | None:
    if sight.packet.own or not sight.leaves:
        return None
    return _word(sight.leaves)


def _hidden(sight: Sight) -> bool:
    """Whether it goes to one of the node's own addresses, and to which one is not known."""
    return sight.packet.own and sight.packet.dst.is_unspecified


def _index(which: str) -> Callable[[Sight], Possible | None]:
    def known(sight: Sight) -> Possible | None:
        if which == "oif" and sight.hook == "prerouting":
            return ((0, 0),)
        name = sight.packet.iif if which == "iif" else sight.packet.oif
        index = sight.node.index(name) if sight.node is not None and name else None
        return None if index is None else ((index, index),)

    return known


def _by_family(four: int, six: int) -> Callable[[Sight], Possible | None]:
    return lambda sight: ((four, four),) if sight.packet.family is Family.IPV4 else ((six, six),)


def _named(name: str, sight: Sight) -> Possible | None:
    """Properties whose names hold a name: an accounting object, a list of recent addresses."""
    kind, _, rest = name.partition(" ")
    if sight.node is None:
        return None
    if kind == "account":
        return ((0, 0),) if sight.node.quota(rest) is False else None
    label, side, asked = rest.rsplit(" ", 2)
    if f"recent {label}" in sight.position.touched or (side == "source" and sight.translated):
        return None
    listed = sight.node.recent(label, str(sight.packet.src if side == "source" else sight.packet.dst))
    if listed is None or (listed and asked != "listed"):
        return None
    return ((int(listed), int(listed)),)


PROPERTIES: Mapping[str, Callable[[Sight], Possible | None]] = MappingProxyType(
    {
        # the network header
        "bits of the source": lambda sight: _one(None if sight.translated else int(sight.packet.src)),
        "bits of the destination": lambda sight: _one(None if _hidden(sight) else int(sight.packet.dst)),
        "ip head": _is(0x45),  # version 4, no options
        "ip option": lambda sight: ABSENT if sight.plain else None,
        "ip option present": _is(0),
        "ip length": _length,
        "ip fragment": lambda sight: ((0, 0), (0x4000, 0x4000)),  # conntrack has put fragments together; DF may be set
        "ttl": lambda sight: ((2, 255),) if sight.plain else None,
        "ip6 length": _payload_length,
        "ip6 extensions": _is(0),
        "ip6 extension": lambda sight: ABSENT if sight.plain else None,
        "ip6 extension present": _is(0),
        "family": _by_family(2, 10),
        "protocol family": _by_family(0x0800, 0x86DD),
        "protocol": lambda sight: ((sight.packet.protocol, sight.packet.protocol),),
        # the transport header
        "icmp code": _is(0),
        "tcp acknowledgement": lambda sight: ((0, 0),) if sight.first else None,
        "tcp urgent": _is(0),
        "text": lambda sight: ((0, 0),) if sight.plain and sight.packet.protocol == TCP else None,
        "udp length": _payload_length,
        # the packet within the node
        "anything": _any_packet((0, 0)),
        "transport sport": _transport("sport"),
        "transport dport": _transport("dport"),
        "packet type": _is(0),
        "mark": _mark,
        "traced": _any_packet((0, 0)),
        "socket user": _any_packet(),  # a forwarded packet has no socket
        "socket": _any_packet((0, 0)),
        "decrypted": lambda sight: ((0, 0),) if _in_clear(sight) else None,
        "ipsec in state": lambda sight: ABSENT if sight.plain and _in_clear(sight) else None,
        "ipsec out": lambda sight: ABSENT if sight.hook == "prerouting" else _ipsec_out(sight),
        "ipsec out state": lambda sight: ABSENT if _ipsec_out(sight) is not None else None,
        "bound socket": _is(0),
        # the source's route leads back by the interface that the packet came by, the destination's by which it leaves
        "way back": lambda sight: _one(_word(sight.packet.iif) if sight.packet.iif and not sight.translated else None),
        "way out": lambda sight: _one(_way_out(sight)),
        "route to source": _is(1),
        "route to destination": _any_packet((1, 1)),
        "in index": _index("iif"),
        "out index": _index("oif"),
        "bridged": _any_packet((0, 0)),
        "ipvs": _is(0),
        "route class": _route_class,
        "in group": _from_pod("group"),
        "out group": _to_outside("group"),
        "in kind": _from_pod("kind"),
        "out kind": _to_outside("kind"),
        # the connection
        "ct direction": _connection(0, 1),
        "ct status": _status,
        "ct state": _state,
        "ct mark": _ct_mark,
        "ct helper": _helper,
        "ct zone": _connection(0, 0),
        "ct label": _connection(0),
        "ct family": _of_connection(lambda sight: 2 if sight.packet.family is Family.IPV4 else 10),
        "ct protocol": _of_connection(lambda sight: sight.packet.protocol),
        "ct packets": _counted,
        "ct packets original": _counted,
        "ct packets reply": lambda sight: (
            ABSENT if not sight.position.connected else ((0, 0),) if sight.first else ((0, 1),)
        ),
        "ct bytes": _bytes,
        "ct bytes original": _bytes,
        "ct bytes reply": _connection(0),
        "ct source original": _of_connection(_end(True, "address")),
        "ct destination original": _of_connection(_end(False, "address")),
        "ct sport original": _of_connection(_end(True, "port")),
        "ct dport original": _of_connection(_end(False, "port")),
        "ct source reply": _of_connection(_end(False, "address")),
        "ct destination reply": _of_connection(_told_of_pod),
        "ct sport reply": _of_connection(_end(False, "port")),
        "counted packets original": _account(_length, ((1, 1),)),
        "counted packets reply": _account(_length, ((0, 0),)),
        "counted packets both": _account(_length, ((1, 1),)),
        "counted bytes original": _account(_length, ()),
        "counted bytes reply": _account(_length, ((0, 0),)),
        "counted bytes both": _account(_length, ()),
        "counted average original": _account(_length, ()),
        "counted average reply": _account(_length, ((0, 0),)),
        "counted average both": _account(_length, ()),
        "master": lambda sight: ((0, 0),) if sight.plain else None,
        "labelled": _labelled,
    }
)
"""What is known, by the property's name; a name that is not here stands for a property that may be anything."""
