"""Effects of rules: what happens to a packet when a rule's conditions hold.

The other half of ``rules``, which re-exports everything here. An effect that a decoder does not understand is
``OpaqueAction``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hitless.model.families import Address
from hitless.model.matches import Match
from hitless.model.matches.base import span

__all__ = [
    "Accept",
    "Action",
    "ConntrackTemplate",
    "Dnat",
    "Drop",
    "Goto",
    "Jump",
    "Masquerade",
    "MoveMark",
    "NoTrack",
    "OneOf",
    "OpaqueAction",
    "Reject",
    "Return",
    "SetConnMark",
    "SetMark",
    "SetProperty",
    "Silent",
    "Snat",
    "Step",
    "UnknownMark",
    "inner_steps",
]


@dataclass(frozen=True, slots=True)
class Accept:
    """Ends the base chain with acceptance; the packet continues with the next base chain."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Drops the packet."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Drops the packet, and sends an error to its sender; ``how`` is the decoder's text for the error."""

    how: str = ""


@dataclass(frozen=True, slots=True)
class Return:
    """Back to the calling chain; in a base chain: its policy."""


@dataclass(frozen=True, slots=True)
class Jump:
    """Call another chain of the same table."""

    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    """Go to another chain of the same table, without returning to this one."""

    chain: str


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Source NAT to the output interface's address."""

    random_fully: bool = False
    random: bool = False
    persistent: bool = False
    ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Snat:
    """Source NAT to addresses ``first``..``last``."""

    first: Address
    last: Address
    random_fully: bool = False
    random: bool = False
    persistent: bool = False
    ports: tuple[int, int] | None = None

    @property
    def to_source(self) -> str:
        """Addresses and ports as both tools write them: ``192.0.2.1-192.0.2.9:1024-2048``, ``[2001:db8::1]:1024``."""
        address = span(self.first, self.last)
        if self.ports is None:
            return address
        return f"{address if self.first.version == 4 else f'[{address}]'}:{span(*self.ports)}"


@dataclass(frozen=True, slots=True)
class Dnat:
    """Destination NAT; ``text`` is the decoder's text for the destination."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class NoTrack:
    """Exclude the packet from connection tracking, if conntrack has not seen it yet: NAT chains then do not apply to
    it."""


@dataclass(frozen=True, slots=True)
class SetMark:
    """``mark = (mark & ~mask) ^ value`` (xt_MARK revision 2; nft's bitwise on meta mark)."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class SetConnMark:
    """``connection mark = (connection mark & ~mask) ^ value``."""

    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class MoveMark:
    """Copy bits from one mark to the other: ``to = (to & ~cleared) ^ ((from & taken) << shift) ^ value``. ``restore``:
    from the connection's mark to the packet's, else the other way round. A negative ``shift`` is to the right."""

    restore: bool
    cleared: int = 0xFFFFFFFF
    taken: int = 0xFFFFFFFF
    shift: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class UnknownMark:
    """The bits ``mask`` of the packet mark (``connection``: of the connection's) get a value that the rules alone do
    not determine (a hash, a set lookup). Decides nothing by itself. ``text``: as its tool writes it."""

    mask: int = 0xFFFFFFFF
    connection: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SetProperty:
    """A rule changes the property or the set ``name`` (a TTL, a label, an added element): its value is unknown from
    here on. Decides nothing by itself. ``text``: as its tool writes it."""

    name: str
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ConntrackTemplate:
    """The packet gets a conntrack template (xtables' CT; nft's ``ct zone set``), unless it has a connection or a
    template already. Until conntrack sees the packet, rules then see a new connection, and a NOTRACK has no effect.
    ``zone``: the zone of the connection; ``None``: not known, or different for the two directions. ``helper``: the
    connection gets one. ``after_notrack``: it takes effect also after a NOTRACK (nft), and the packet is tracked.
    ``text``: as its tool writes it."""

    zone: int | None = 0
    helper: bool = False
    after_notrack: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Silent:
    """An effect that decides nothing and changes nothing that rules compare: a log, a counter elsewhere. ``text``: as
    its tool writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class OpaqueAction:
    """An effect that the decoder does not understand, and that might decide about the packet."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several alternatives, and the rules do not determine which (a random number, a hash); each is a list of
    steps. ``exhaustive``: one of them is always taken. ``text`` is what chooses, as its tool writes it."""

    alternatives: tuple[tuple[Step, ...], ...]
    exhaustive: bool = False
    text: str = field(default="", compare=False)


Action = (
    Accept
    | Drop
    | Reject
    | Return
    | Jump
    | Goto
    | Masquerade
    | Snat
    | Dnat
    | NoTrack
    | SetMark
    | SetConnMark
    | MoveMark
    | UnknownMark
    | SetProperty
    | ConntrackTemplate
    | Silent
    | OneOf
    | OpaqueAction
)
Step = Match | Action


def inner_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """All steps, including those of alternatives."""
    for step in steps:
        yield step
        if isinstance(step, OneOf):
            for alternative in step.alternatives:
                yield from inner_steps(alternative)
