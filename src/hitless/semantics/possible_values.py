"""Possible values of properties: the parts that several properties share.

Values are closed ranges; ``ABSENT`` where the packet does not have the property, ``None`` where any value is possible.
"""

from __future__ import annotations

from collections.abc import Callable

from hitless.model.families import Family
from hitless.model.matches.base import Possible
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.semantics.contexts import PacketContext

__all__ = ["ABSENT", "Source", "exactly", "length", "one", "payload_length"]

Source = Callable[[PacketContext], Possible | None]
"""Where the values of a property come from."""

ABSENT: Possible = ()
"""The packet does not have the property."""

_MOST = 65535
_HEADERS = {TCP: (20, 80), UDP: (8, _MOST), ICMP: (8, _MOST), ICMPV6: (8, _MOST)}
"""The length of a first packet behind its IP header: a SYN has options, and data in it (TCP Fast Open) is not
considered."""


def exactly(value: int) -> Source:
    """For the first packet and its reply: certainly this value."""
    return lambda context: ((value, value),) if context.plain else None


def length(context: PacketContext) -> Possible | None:
    low, high = _HEADERS.get(context.packet.protocol, (0, _MOST))
    if not context.plain:
        return ((20, _MOST),)
    head = 20 if context.packet.family is Family.IPV4 else 40
    return ((head + low, min(_MOST, head + high)),)


def payload_length(context: PacketContext) -> Possible | None:
    low, high = _HEADERS.get(context.packet.protocol, (0, _MOST))
    return ((low, high),) if context.plain else None


def one(value: int | None) -> Possible | None:
    return None if value is None else ((value, value),)
