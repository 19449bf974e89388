"""What a condition may depend on: the packet, its state by now, and the node.

Promise: one value for each state of a packet; ``properties`` and the conditions themselves (``hitless.model.matches``)
read nothing else. ``header_of`` gives what several of them have in common, by which tables exclude rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hitless.model.families import Address
from hitless.model.headers import PacketHeader
from hitless.model.packets import TCP, UDP, Packet
from hitless.model.rules import Snat
from hitless.model.surroundings import Surroundings
from hitless.semantics.walk_state import WalkState

__all__ = ["PacketContext", "header_of"]


class PacketContext(NamedTuple):
    """The packet at a hook. ``node`` ``None``: nothing can be read from the node."""

    packet: Packet
    state: WalkState
    hook: str
    node: Surroundings | None
    out_interface: str = ""  # the one that it will leave by, also at prerouting, where rules do not see it

    @property
    def translated(self) -> bool:
        """Whether a rule has translated the source on this walk."""
        return self.state.translation is not None

    @property
    def first(self) -> bool:
        """Whether this is the first packet of a flow, also before conntrack has seen it; most is known about such
        packets."""
        return self.packet.state == "NEW"

    @property
    def plain(self) -> bool:
        """Whether this is the first packet of a flow or the first reply: an ordinary network stack made it."""
        return self.packet.state == "NEW" or self.packet.reply

    def sources(self) -> tuple[Address, Address] | None:
        """The first and the last address that the packet's source may be. Rules behind a translation, in a later base
        chain, see the translated address: that of the rule, or of the outgoing interface."""
        translation = self.state.translation
        if translation is None:
            return self.packet.src, self.packet.src
        if isinstance(translation.action, Snat):
            return translation.action.first, translation.action.last
        given = self.node.address(self.packet.oif, self.packet.family) if self.node is not None else None
        return None if given is None else (given, given)


def header_of(packet: Packet, hook: str, contexts: Sequence[PacketContext]) -> PacketHeader:
    """What the packet's headers have in common at a hook, in all of these contexts."""
    moved = [context for context in contexts if context.translated]
    source: bytes | None = packet.src.packed
    if moved:
        given = {context.sources() for context in moved}
        known = given.pop() if len(given) == 1 and len(moved) == len(contexts) else None
        source = known[0].packed if known is not None and known[0] == known[1] else None
    ports = packet.protocol in (TCP, UDP)
    return PacketHeader(
        packet.src.version,
        packet.protocol,
        source,
        None if packet.own and packet.dst.is_unspecified else packet.dst.packed,
        packet.sport if ports and not moved else None,
        packet.dport if ports and not packet.own else None,
        packet.iif,
        "" if hook == "prerouting" else packet.oif,
    )
