"""What is known of the connection of a packet: values of properties, as in ``properties``.

Promise: certain for the first packet of a pod's flow and its first reply; ``ABSENT`` where conntrack has not seen the
packet. While a template stands for the connection, only the state is known (``of_connection``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hitless.model.families import Family
from hitless.model.matches.base import Possible
from hitless.model.packets import TCP, UDP
from hitless.semantics.contexts import PacketContext
from hitless.semantics.possible_values import ABSENT, Source, length
from hitless.semantics.walk_state import TEMPLATE

__all__ = ["CONNECTION_PROPERTIES", "of_connection"]

_OF_CONNECTION = ("ct ", "counted ", "master", "labelled", "connection")
"""What the names of properties of a connection begin with."""

_STATES = {TEMPLATE: 8, "INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 64}


def of_connection(name: str) -> bool:
    """Whether a property other than the state is read from the connection. xtables' matches and nft's fields differ in
    what they take from a template."""
    return name != "ct state" and name.startswith(_OF_CONNECTION)


def _connection(value: int, answer: int | None = None) -> Source:
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


def _counted(context: PacketContext) -> Possible | None:
    """The connection's packet counter: this packet where the node counts (nf_conntrack_acct), else 0."""
    if not context.state.connected:
        return ABSENT
    return ((0, 1),) if context.first else None


def _bytes(context: PacketContext) -> Possible | None:
    if not context.state.connected:
        return ABSENT
    sizes = length(context)
    return None if not context.first or sizes is None else ((0, 0), *sizes)


def _status(context: PacketContext) -> Possible | None:
    """The status bits that a first packet's connection may have: none that is set by a reply or at confirmation."""
    if not context.state.connected:
        return ABSENT
    if not context.first:
        return None
    # IPS_SRC_NAT; and IPS_SRC_NAT_DONE, IPS_DST_NAT_DONE: whether the NAT core has seen it
    source = 0x10 if context.translated else 0
    return tuple((source | done, source | done) for done in (0, 0x80, 0x100, 0x180))


def _of_connection(value: Callable[[PacketContext], int | None]) -> Source:
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


def _account(of: Source, counted: Possible) -> Source:
    """What connbytes compares: -1 where the node does not count, which is possible for the first packet too."""

    def known(context: PacketContext) -> Possible | None:
        if not context.state.connected:
            return ((-1, -1),)
        values = counted or of(context)
        return None if not context.first or values is None else ((-1, -1), *values)

    return known


def _labelled(context: PacketContext) -> Possible | None:
    return ((0, 0),) if context.first and "ct label" not in context.state.touched else None


def _ct_mark(context: PacketContext) -> Possible | None:
    state = context.state
    if not state.connected:
        return ABSENT
    return None if state.ct_unknown else ((state.ct_mark, state.ct_mark),)


def _state(context: PacketContext) -> Possible | None:
    bit = _STATES.get(context.state.ct_state)
    return None if bit is None else ((bit, bit),)


def _tracked(context: PacketContext) -> Possible | None:
    """Whether the packet has a connection."""
    return ((1, 1),) if context.state.connected else ((0, 0),)


def _zone(context: PacketContext) -> Possible | None:
    """The connection's zone, where it is the same for both directions."""
    if not context.state.connected:
        return ABSENT
    zone = context.state.zone
    return ((zone, zone),) if context.plain and zone >= 0 else None


def _offloaded(context: PacketContext) -> Possible | None:
    """Whether ``flow add`` puts the packet's connection into a flow table: only a confirmed one of TCP or UDP."""
    confirmed = context.state.connected and not context.first
    return None if confirmed and context.packet.protocol in (TCP, UDP) else ((0, 0),)


CONNECTION_PROPERTIES: Mapping[str, Source] = MappingProxyType(
    {
        "connection": _tracked,
        "offloaded": _offloaded,
        "ct direction": _connection(0, 1),
        "ct status": _status,
        "ct state": _state,
        "ct mark": _ct_mark,
        "ct helper": _helper,
        "ct zone": _zone,
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
        "counted packets original": _account(length, ((1, 1),)),
        "counted packets reply": _account(length, ((0, 0),)),
        "counted packets both": _account(length, ((1, 1),)),
        "counted bytes original": _account(length, ()),
        "counted bytes reply": _account(length, ((0, 0),)),
        "counted bytes both": _account(length, ()),
        "counted average original": _account(length, ()),
        "counted average reply": _account(length, ((0, 0),)),
        "counted average both": _account(length, ()),
        "master": lambda context: ((0, 0),) if context.plain else None,
        "labelled": _labelled,
    }
)
"""The known values, by the property's name."""
