"""What is known of a packet besides its addresses and ports, by property.

Problem: rules ask whether a packet is a fragment, broadcast, of the reply direction, or sent by a user of the node, and
for the first packet of a pod's flow these are certain. Promise: ``possible`` gives the closed ranges in which a
property's value lies, ``ABSENT`` where the packet does not have it (then a condition does not hold, negated or not),
``None`` where any value is possible. It is about the first packet of a flow that the node forwards; less is known of
later ones. The names are those that the decoders use (``hitless.model.matches.Property``); docs/semantics.md lists
them, and a test sends packets for each. ``EvaluationContext`` is what conditions get. Next stage: ``walk``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hitless.model.families import Family
from hitless.model.matches.base import Possible
from hitless.model.packets import TCP, UDP
from hitless.semantics.connection_properties import CONNECTION_PROPERTIES, of_connection
from hitless.semantics.contexts import PacketContext
from hitless.semantics.possible_values import ABSENT, Source, exactly, length, one, payload_length
from hitless.semantics.walk_state import TEMPLATE

__all__ = ["ABSENT", "PROPERTIES", "EvaluationContext", "possible"]

_MOST = 65535
_WITH_NAMES = ("account ", "recent ")


def possible(name: str, context: PacketContext) -> Possible | None:
    """The ranges that the property's value lies in."""
    state = context.state
    if name in state.touched or (state.ct_state == TEMPLATE and of_connection(name)):
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


def _any_packet(*ranges: tuple[int, int]) -> Source:
    return lambda context: ranges


def _from_pod(ask: str) -> Source:
    return lambda context: _of_interface(context, ask, context.packet.iif)


def _to_outside(ask: str) -> Source:
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


def _mark(context: PacketContext) -> Possible | None:
    state = context.state
    return None if state.unknown else ((state.mark, state.mark),)


def _transport(which: str) -> Source:
    """The first or second pair of bytes behind the IP header: the ports, where the protocol has some."""

    def known(context: PacketContext) -> Possible | None:
        packet = context.packet
        hidden = context.translated if which == "sport" else packet.own
        if packet.protocol not in (TCP, UDP) or hidden:
            return None
        port = packet.sport if which == "sport" else packet.dport
        return ((port, port),)

    return known


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


def _index(which: str) -> Source:
    def known(context: PacketContext) -> Possible | None:
        if which == "oif" and context.hook == "prerouting":
            return ((0, 0),)
        name = context.packet.iif if which == "iif" else context.packet.oif
        index = context.node.index(name) if context.node is not None and name else None
        return None if index is None else ((index, index),)

    return known


def _by_family(four: int, six: int) -> Source:
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


PROPERTIES: Mapping[str, Source] = MappingProxyType(
    {
        # the network header
        "bits of the source": lambda context: one(None if context.translated else int(context.packet.src)),
        "bits of the destination": lambda context: one(None if _hidden(context) else int(context.packet.dst)),
        "ip head": exactly(0x45),  # version 4, no options
        "ip option": lambda context: ABSENT if context.plain else None,
        "ip option present": exactly(0),
        "ip length": length,
        "ip fragment": lambda context: (
            (0, 0),
            (0x4000, 0x4000),
        ),  # fragments are reassembled; DF may be set
        "ttl": lambda context: ((2, 255),) if context.plain else None,
        "ip6 length": payload_length,
        "ip6 extensions": exactly(0),
        "ip6 extension": lambda context: ABSENT if context.plain else None,
        "ip6 extension present": exactly(0),
        "family": _by_family(2, 10),
        "protocol family": _by_family(0x0800, 0x86DD),
        "protocol": lambda context: ((context.packet.protocol, context.packet.protocol),),
        # the transport header
        "icmp code": exactly(0),
        "tcp acknowledgement": lambda context: ((0, 0),) if context.first else None,
        "tcp urgent": exactly(0),
        "text": lambda context: ((0, 0),) if context.plain and context.packet.protocol == TCP else None,
        "udp length": payload_length,
        # the packet within the node
        "anything": _any_packet((0, 0)),
        "transport sport": _transport("sport"),
        "transport dport": _transport("dport"),
        "packet type": exactly(0),
        "mark": _mark,
        "traced": _any_packet((0, 0)),
        "socket user": _any_packet(),  # a forwarded packet has no socket
        "socket": _any_packet((0, 0)),
        "decrypted": lambda context: ((0, 0),) if _in_clear(context) else None,
        "ipsec in state": lambda context: ABSENT if context.plain and _in_clear(context) else None,
        "ipsec out": lambda context: ABSENT if context.hook == "prerouting" else _ipsec_out(context),
        "ipsec out state": lambda context: ABSENT if _ipsec_out(context) is not None else None,
        "bound socket": exactly(0),
        # the route to the source uses the interface that the packet came in by, that to the destination the one it
        # leaves by
        "route to source interface": lambda context: one(_route_to_source(context)),
        "route to destination interface": lambda context: one(_route_to_destination(context)),
        "route to source": exactly(1),
        "route to destination": _any_packet((1, 1)),
        "in index": _index("iif"),
        "out index": _index("oif"),
        "bridged": _any_packet((0, 0)),
        "ipvs": exactly(0),
        "route class": _route_class,
        "in group": _from_pod("group"),
        "out group": _to_outside("group"),
        "in kind": _from_pod("kind"),
        "out kind": _to_outside("kind"),
        **CONNECTION_PROPERTIES,
    }
)
"""The known values, by the property's name; a property that is not listed may have any value."""
