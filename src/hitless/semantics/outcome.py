"""The result of an evaluation: values only.

Problem: "is it carried?" is enough for a gap monitor, but agent and guard need the rule that decided, and users need
the reason. Promise: an ``Outcome`` has the three-valued answer, one sentence of reason, and every way in which the
packet's path can end (``endings``; more than one only where a condition is not known). Previous stage: ``walk``; texts
come from ``reasons``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from hitless.model.rules import Masquerade, Rule, Snat, Step, Table

__all__ = ["ChainName", "Ending", "Outcome", "State", "Translation", "Visit"]

State = Literal["carried", "not_carried", "cannot_tell"]

ChainName = tuple[str, str, str]
"""A chain's nft family (ip, ip6, inet), table and name."""

VisitKind = Literal[
    "base",  # a base chain was entered
    "jump",  # a rule called the chain ``text``
    "goto",  # a rule went to the chain ``text`` without returning
    "return",  # a rule left its chain
    "accept",  # a rule ended its base chain
    "drop",  # a rule ended the packet
    "reject",  # the same, with an error message to the sender
    "policy accept",  # the base chain's end was reached
    "policy drop",  # the same, and it ended the packet
    "masquerade",  # a rule translated the source to the output interface's address
    "snat",  # a rule translated the source
    "dnat",  # a rule changed the destination to ``text``
    "notrack",  # a rule excluded it from conntrack
    "zone",  # a rule chose the conntrack zone (``step``) of its connection
    "unknown",  # it is not known whether the rule's condition ``step`` holds
    "opaque",  # the effect ``text`` was not understood
]


class Visit(NamedTuple):
    """One step of a packet's path: what happened, at which rule (``number`` from 1; 0: at the chain itself)."""

    kind: VisitKind
    family: str
    table: str
    chain: str
    number: int = 0
    rule: Rule | None = None
    text: str = ""
    legacy: bool = False
    iptables: bool = True  # iptables wrote the table: rules are shown in its notation
    step: Step | None = None

    @property
    def place(self) -> tuple[str, str, bool, str, int]:
        """What identifies the rule."""
        return self.family, self.table, self.legacy, self.chain, self.number

    def of(self, table: Table) -> bool:
        """Whether the visit was in this table."""
        return self[1:3] == (table.family, table.name) and self.legacy is table.legacy


class Translation(NamedTuple):
    """The rule that translated the source of the flow, and how."""

    family: str
    table: str
    chain: str
    number: int
    how: Literal["masquerade", "snat"]
    action: Masquerade | Snat

    @property
    def random_fully(self) -> bool:
        """Whether the source port is chosen at random."""
        return self.action.random_fully


@dataclass(frozen=True, slots=True)
class Ending:
    """One way in which the path can end: ``translated``, ``untranslated``, ``dropped`` or ``unknown``; for a reply also
    ``arrived``.

    ``mark`` is the packet's mark then; the bits ``unknown_mark`` of it are not known.
    """

    kind: Literal["translated", "untranslated", "dropped", "unknown", "arrived"]
    path: tuple[Visit, ...]
    translation: Translation | None = None
    mark: int = 0
    unknown_mark: int = 0
    connection: tuple[int, int] = (0, 0xFFFFFFFF)  # the connection's mark then, and its unknown bits
    zone: int = 0  # of the connection; -1: not known, or different for the two directions

    @property
    def certain(self) -> bool:
        """Whether every condition on the path is known."""
        return all(visit.kind != "unknown" for visit in self.path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would happen to a packet.

    ``carried``: certainly source-translated and not dropped. ``not_carried``: certainly dropped, or sent with its own
    source address. ``cannot_tell``: both are possible. ``path`` is the path that ``reason`` explains; ``chains`` are
    all chains whose contents took part in the answer.
    """

    state: State
    reason: str
    path: tuple[Visit, ...]
    chains: frozenset[ChainName]
    endings: tuple[Ending, ...]

    @property
    def translation(self) -> Translation | None:
        """The single rule that translates the flow; ``None`` when it is not carried, or different rules may do so."""
        found = {ending.translation for ending in self.endings if ending.translation is not None}
        return found.pop() if self.state == "carried" and len(found) == 1 else None

    @property
    def dropped(self) -> Visit | None:
        """Where the packet is dropped, when that is certain."""
        if all(ending.kind == "dropped" for ending in self.endings) and self.endings:
            return self.endings[0].path[-1]
        return None
