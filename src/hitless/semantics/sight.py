"""What a condition may look at: the packet, what it is like by now, and the node.

Promise: a value that is made once for each position of a packet; ``conditions`` and ``properties`` read it and nothing
else.
"""

from __future__ import annotations

from typing import NamedTuple

from hitless.model.packets import Packet
from hitless.model.surroundings import Surroundings
from hitless.semantics.positions import Position

__all__ = ["Sight"]


class Sight(NamedTuple):
    """``hook``: where the packet is; ``node`` ``None``: nobody can be asked."""

    packet: Packet
    position: Position
    hook: str
    node: Surroundings | None
    leaves: str = ""  # the interface that it will leave by, also where no hook knows it yet

    @property
    def translated(self) -> bool:
        """Whether the walk has given the flow a source translation."""
        return self.position.translation is not None

    @property
    def first(self) -> bool:
        """Whether this is the first packet of a flow: of that one most is known. Before conntrack has looked, too."""
        return self.packet.state == "NEW"

    @property
    def plain(self) -> bool:
        """Whether this is a flow's first packet or the first answer to one: both are made by an ordinary stack."""
        return self.packet.state == "NEW" or self.packet.reply
