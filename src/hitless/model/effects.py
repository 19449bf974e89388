"""Effects of rules: what happens to a packet for which a rule's conditions hold.

Problem and promise are those of ``rules``, whose other half this is; everybody imports them from there. An effect that
a reader does not understand is ``OpaqueAction``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hitless.model.families import Address
from hitless.model.matches import Match

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
    """Ends the hook's chain of this base chain with acceptance."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Ends the packet."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Ends the packet, with an answer to its sender; ``how`` is the reader's text for the answer."""

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
    """Go to another chain of the same table, without coming back to this one."""

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


@dataclass(frozen=True, slots=True)
class Dnat:
    """Destination NAT; ``text`` is the reader's words for where to."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class NoTrack:
    """Connection tracking leaves the packet alone, if it has not seen it yet: no NAT chain is asked for it."""


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
    """One mark becomes part of the other: ``to = (to & ~cleared) ^ ((from & taken) << shift) ^ value``. ``restore``:
    the packet's mark from the connection's, else the other way. A negative ``shift`` is to the right."""

    restore: bool
    cleared: int = 0xFFFFFFFF
    taken: int = 0xFFFFFFFF
    shift: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class UnknownMark:
    """The bits ``mask`` of the packet mark (``connection``: of the connection's) become something that the rules alone
    do not tell (hashed, looked up in a set). Decides nothing by itself. ``text``: as its tool writes it."""

    mask: int = 0xFFFFFFFF
    connection: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SetProperty:
    """From here on the property or the set ``name`` may be anything: a rule changes it (a TTL, a label, an element that
    is added). Decides nothing by itself. ``text``: as its tool writes it."""

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
    """An effect that decides nothing and changes nothing that rules ask for: a log, a counter elsewhere. ``text``: as
    its tool writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class OpaqueAction:
    """An effect that the reader does not understand, and that might decide the packet's fate."""

    text: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several ways on, and the rules do not tell which (a random number, a hash): each is a list of steps.
    ``exhaustive``: one of them is taken in any case. ``text`` is what chooses, as its tool writes it."""

    ways: tuple[tuple[Step, ...], ...]
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
    """All steps, those of a choice's ways too."""
    for step in steps:
        yield step
        if isinstance(step, OneOf):
            for way in step.ways:
                yield from inner_steps(way)
