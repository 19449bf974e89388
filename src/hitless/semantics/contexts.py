"""What a condition may look at: the packet, what it is like by now, and the node.

Promise: a value that is made once for each position of a packet; ``properties`` and the conditions themselves
(``hitless.model.matches``) read it and nothing else. ``header_of`` is what several of them have in common, by which
tables leave rules out.
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
    """``hook``: where the packet is; ``node`` ``None``: nobody can be asked."""

    packet: Packet
    state: WalkState
    hook: str
    node: Surroundings | None
    leaves: str = ""  # the interface that it will leave by, also where no hook knows it yet

    @property
    def translated(self) -> bool:
        """Whether the walk has given the flow a source translation."""
        return self.state.translation is not None

    @property
    def first(self) -> bool:
        """Whether this is the first packet of a flow: of that one most is known. Before conntrack has looked, too."""
        return self.packet.state == "NEW"

    @property
    def plain(self) -> bool:
        """Whether this is a flow's first packet or the first answer to one: both are made by an ordinary stack."""
        return self.packet.state == "NEW" or self.packet.reply

    def sources(self) -> tuple[Address, Address] | None:
        """The first and the last address that the packet's source may be. Rules behind a translation, in a later base
        chain, see the new one: that of the rule, or of the interface that the packet leaves by."""
        translation = self.state.translation
        if translation is None:
            return self.packet.src, self.packet.src
        if isinstance(translation.action, Snat):
            return translation.action.first, translation.action.last
        given = self.node.address(self.packet.oif, self.packet.family) if self.node is not None else None
        return None if given is None else (given, given)


def header_of(packet: Packet, hook: str, contexts: Sequence[PacketContext]) -> PacketHeader:
    """What the packet's headers are at a hook, in all of these positions."""
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
