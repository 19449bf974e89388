"""What is known of a packet besides its addresses and ports, by property.

Problem: rules ask whether a packet is a fragment, broadcast, of the reply direction, or sent by a user of the node, and
for the first packet of a pod's flow these are certain. Promise: ``possible`` gives the closed ranges in which a
property's value lies, ``ABSENT`` where the packet does not have it (then a condition does not hold, negated or not),
``None`` where any value is possible. It is about the first packet of a flow that the node forwards; less is known of
later ones. The names are those that the decoders use (``hitless.model.matches.Property``); docs/semantics.md lists
them, and a test sends packets for each. ``EvaluationContext`` is what conditions get. Next stage: ``walk``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hitless.model.families import Family
from hitless.model.matches.base import Possible
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.semantics.contexts import PacketContext

__all__ = ["ABSENT", "PROPERTIES", "EvaluationContext", "possible"]

_Source = Callable[[PacketContext], Possible | None]
"""Where the values of a property come from."""

ABSENT: Possible = ()
"""The packet does not have the property."""
_MOST = 65535
_WITH_NAMES = ("account ", "recent ")
_HEADERS = {TCP: (20, 80), UDP: (8, _MOST), ICMP: (8, _MOST), ICMPV6: (8, _MOST)}
"""The length of a first packet behind its IP header: a SYN has options, and data in it (TCP Fast Open) is not
considered.
"""


def possible(name: str, context: PacketContext) -> Possible | None:
    """The ranges that the property's value lies in."""
    if name in context.state.touched:
        return None
    known = PROPERTIES.get(name)
    if known is not None:
        return known(context)
    return _named(name, context) if name.startswith(_WITH_NAMES) else None


class EvaluationContext(PacketContext):
    """A packet's state with everything that conditions may read (``hitless.model.matches.base.MatchContext``)."""

    __slots__ = ()

    def possible(self, name: str) -> Possible | None:
        """The ranges that the property's value lies in."""
        return possible(name, self)


def _is(value: int) -> _Source:
    """For the first packet and its reply: certainly this value."""
    return lambda context: ((value, value),) if context.plain else None


def _any_packet(*ranges: tuple[int, int]) -> _Source:
    return lambda context: ranges


def _connection(value: int, answer: int | None = None) -> _Source:
    """For the first packet: certainly this value of its connection; ``ABSENT`` without a connection. ``answer``: the
    value when the first reply is seen."""

    def known(context: PacketContext) -> Possible | None:
        if not context.state.connected:
            return ABSENT
        if context.packet.reply:
            return None if answer is None else ((answer, answer),)
        return ((value, value),) if context.first else None

    return known


def _helper(context: PacketContext) -> Possible | None:
    return ABSENT if context.first or not context.state.connected else None


def _length(context: PacketContext) -> Possible | None:
    low, high = _HEADERS.get(context.packet.protocol, (0, _MOST))
    if not context.plain:
        return ((20, _MOST),)
    head = 20 if context.packet.family is Family.IPV4 else 40
    return ((head + low, min(_MOST, head + high)),)


def _payload_length(context: PacketContext) -> Possible | None:
    low, high = _HEADERS.get(context.packet.protocol, (0, _MOST))
    return ((low, high),) if context.plain else None


def _counted(context: PacketContext) -> Possible | None:
    """The connection's packet counter: this packet where the node counts (nf_conntrack_acct), else 0."""
    if not context.state.connected:
        return ABSENT
    return ((0, 1),) if context.first else None


def _bytes(context: PacketContext) -> Possible | None:
    if not context.state.connected:
        return ABSENT
    length = _length(context)
    return None if not context.first or length is None else ((0, 0), *length)


def _status(context: PacketContext) -> Possible | None:
    """The status bits that a first packet's connection may have: none that is set by a reply or at confirmation."""
    if not context.state.connected:
        return ABSENT
    if not context.first:
        return None
    # IPS_SRC_NAT; and IPS_SRC_NAT_DONE, IPS_DST_NAT_DONE: whether the NAT core has seen it
    source = 0x10 if context.translated else 0
    return tuple((source | done, source | done) for done in (0, 0x80, 0x100, 0x180))


def _from_pod(ask: str) -> _Source:
    return lambda context: _of_interface(context, ask, context.packet.iif)


def _to_outside(ask: str) -> _Source:
    return lambda context: ABSENT if context.hook == "prerouting" else _of_interface(context, ask, context.packet.oif)


def _of_interface(context: PacketContext, ask: str, interface: str) -> Possible | None:
    if context.node is None or not interface:
        return None
    answer = context.node.group(interface) if ask == "group" else context.node.kind(interface)
    if answer is None:
        return None
    if answer == "":
        return ABSENT  # hardware has no kind to compare
    value = answer if isinstance(answer, int) else _name_number(answer)
    return ((value, value),)


def _name_number(text: str) -> int:
    """A name as the number that its sixteen bytes make."""
    return int.from_bytes(text.encode()[:16].ljust(16, b"\0"), "big")


def _in_clear(context: PacketContext) -> bool:
    """Whether the packet came in unencrypted: a pod's does, a reply where the node has no IPsec policy."""
    return context.first or (context.packet.reply and context.node is not None and context.node.ipsec() is False)


def _ipsec_out(context: PacketContext) -> Possible | None:
    """Whether the packet will be encrypted: certainly not where the node has no policy."""
    return ((0, 0),) if context.node is not None and context.node.ipsec() is False else None


def _route_class(context: PacketContext) -> Possible | None:
    return ABSENT if context.hook == "prerouting" else None


def _of_connection(value: Callable[[PacketContext], int | None]) -> _Source:
    """A field of the tuple that the first packet gave its connection."""

    def known(context: PacketContext) -> Possible | None:
        if not context.state.connected:
            return ABSENT
        number = value(context) if context.plain else None
        return None if number is None else ((number, number),)

    return known


def _end(pod: bool, of: str) -> Callable[[PacketContext], int | None]:
    """The address or port of one end of the connection (the pod's or the far one) as in the first packet; of a reply it
    is known once NAT has been reversed."""

    def known(context: PacketContext) -> int | None:
        packet = context.packet
        if of == "port" and packet.protocol not in (TCP, UDP):
            return None
        source = pod is not packet.reply
        if not source and packet.own:
            return None
        if of == "port":
            return packet.sport if source else packet.dport
        return int(packet.src if source else packet.dst)

    return known


def _reply_destination(context: PacketContext) -> int | None:
    """The destination of replies in the connection's tuple: the pod, until the flow is translated."""
    return None if context.translated or context.packet.reply else int(context.packet.src)


def _account(of: _Source, counted: Possible) -> _Source:
    """What connbytes compares: -1 where the node does not count, which is possible for the first packet too."""

    def known(context: PacketContext) -> Possible | None:
        if not context.state.connected:
            return ((-1, -1),)
        values = counted or of(context)
        return None if not context.first or values is None else ((-1, -1), *values)

    return known


def _labelled(context: PacketContext) -> Possible | None:
    return ((0, 0),) if context.first and "ct label" not in context.state.touched else None


def _mark(context: PacketContext) -> Possible | None:
    state = context.state
    return None if state.unknown else ((state.mark, state.mark),)


def _ct_mark(context: PacketContext) -> Possible | None:
    state = context.state
    if not state.connected:
        return ABSENT
    return None if state.ct_unknown else ((state.ct_mark, state.ct_mark),)


_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}


def _state(context: PacketContext) -> Possible | None:
    bit = _STATES.get(context.state.ct_state)
    return None if bit is None else ((bit, bit),)


def _transport(which: str) -> _Source:
    """The first or second pair of bytes behind the IP header: the ports, where the protocol has some."""

    def known(context: PacketContext) -> Possible | None:
        packet = context.packet
        hidden = context.translated if which == "sport" else packet.own
        if packet.protocol not in (TCP, UDP) or hidden:
            return None
        port = packet.sport if which == "sport" else packet.dport
        return ((port, port),)

    return known


def _one(value: int | None) -> Possible | None:
    return None if value is None else ((value, value),)


def _route_to_source(context: PacketContext) -> int | None:
    """The interface of the route to the source: the one by which the packet came in."""
    return _name_number(context.packet.iif) if context.packet.iif and not context.translated else None


def _route_to_destination(context: PacketContext) -> int | None:
    """The interface of the route to the destination: the one by which the packet leaves."""
    if context.packet.own or not context.out_interface:
        return None
    return _name_number(context.out_interface)


def _hidden(context: PacketContext) -> bool:
    """Whether it goes to an address of the node that is not known."""
    return context.packet.own and context.packet.dst.is_unspecified


def _index(which: str) -> _Source:
    def known(context: PacketContext) -> Possible | None:
        if which == "oif" and context.hook == "prerouting":
            return ((0, 0),)
        name = context.packet.iif if which == "iif" else context.packet.oif
        index = context.node.index(name) if context.node is not None and name else None
        return None if index is None else ((index, index),)

    return known


def _by_family(four: int, six: int) -> _Source:
    return lambda context: ((four, four),) if context.packet.family is Family.IPV4 else ((six, six),)


def _named(name: str, context: PacketContext) -> Possible | None:
    """Properties whose names contain a name: an accounting object, a list of recent addresses."""
    kind, _, rest = name.partition(" ")
    if context.node is None:
        return None
    if kind == "account":
        return ((0, 0),) if context.node.quota(rest) is False else None
    label, side, test = rest.rsplit(" ", 2)
    if f"recent {label}" in context.state.touched or (side == "source" and context.translated):
        return None
    listed = context.node.recent(label, str(context.packet.src if side == "source" else context.packet.dst))
    if listed is None or (listed and test != "listed"):
        return None
    return ((int(listed), int(listed)),)


PROPERTIES: Mapping[str, _Source] = MappingProxyType(
    {
        # the network header
        "bits of the source": lambda context: _one(None if context.translated else int(context.packet.src)),
        "bits of the destination": lambda context: _one(None if _hidden(context) else int(context.packet.dst)),
        "ip head": _is(0x45),  # version 4, no options
        "ip option": lambda context: ABSENT if context.plain else None,
        "ip option present": _is(0),
        "ip length": _length,
        "ip fragment": lambda context: (
            (0, 0),
            (0x4000, 0x4000),
        ),  # fragments are reassembled; DF may be set
        "ttl": lambda context: ((2, 255),) if context.plain else None,
        "ip6 length": _payload_length,
        "ip6 extensions": _is(0),
        "ip6 extension": lambda context: ABSENT if context.plain else None,
        "ip6 extension present": _is(0),
        "family": _by_family(2, 10),
        "protocol family": _by_family(0x0800, 0x86DD),
        "protocol": lambda context: ((context.packet.protocol, context.packet.protocol),),
        # the transport header
        "icmp code": _is(0),
        "tcp acknowledgement": lambda context: ((0, 0),) if context.first else None,
        "tcp urgent": _is(0),
        "text": lambda context: ((0, 0),) if context.plain and context.packet.protocol == TCP else None,
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
        "decrypted": lambda context: ((0, 0),) if _in_clear(context) else None,
        "ipsec in state": lambda context: ABSENT if context.plain and _in_clear(context) else None,
        "ipsec out": lambda context: ABSENT if context.hook == "prerouting" else _ipsec_out(context),
        "ipsec out state": lambda context: ABSENT if _ipsec_out(context) is not None else None,
        "bound socket": _is(0),
        # the route to the source uses the interface that the packet came in by, that to the destination the one it
        # leaves by
        "route to source interface": lambda context: _one(_route_to_source(context)),
        "route to destination interface": lambda context: _one(_route_to_destination(context)),
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
        "ct family": _of_connection(lambda context: 2 if context.packet.family is Family.IPV4 else 10),
        "ct protocol": _of_connection(lambda context: context.packet.protocol),
        "ct packets": _counted,
        "ct packets original": _counted,
        "ct packets reply": lambda context: (
            ABSENT if not context.state.connected else ((0, 0),) if context.first else ((0, 1),)
        ),
        "ct bytes": _bytes,
        "ct bytes original": _bytes,
        "ct bytes reply": _connection(0),
        "ct source original": _of_connection(_end(True, "address")),
        "ct destination original": _of_connection(_end(False, "address")),
        "ct sport original": _of_connection(_end(True, "port")),
        "ct dport original": _of_connection(_end(False, "port")),
        "ct source reply": _of_connection(_end(False, "address")),
        "ct destination reply": _of_connection(_reply_destination),
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
        "master": lambda context: ((0, 0),) if context.plain else None,
        "labelled": _labelled,
    }
)
"""The known values, by the property's name; a property that is not listed may have any value."""
