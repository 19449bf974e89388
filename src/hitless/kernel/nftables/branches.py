"""A model rule under construction: the registers' contents, and the steps so far.

Problem: an expression reads what others have loaded, and a lookup in a map splits a rule into several. Promise:
``Branch`` is what ``expressions`` and ``effects`` share; a forked branch is independent. Registers are numbered in
32-bit units, as in the kernel.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import NamedTuple

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.register_values import Constant, Context, Field, UnknownValue, Value
from hitless.model.rules import Opaque, Property, Step

__all__ = ["Attributes", "Branch", "Choice", "host", "slot", "value_of"]

Attributes = dict[int, bytes]

_MAY_BE_MISSING = (
    "tcp option",
    "ip option",
    "ip6 extension",
    "sctp chunk",
    "dccp option",
    "operating system",
    "tunnel",
)


class Choice(NamedTuple):
    """From step ``at`` on, a branch is one of several alternatives, and the rules do not determine which is taken."""

    at: int

    text: str
    exhaustive: bool


@dataclass(slots=True)
class Branch:
    """One model rule under construction, of a ``table`` (nft family and name). ``choice``: it is one of several
    alternatives of the same rule."""

    context: Context
    steps: list[Step] = field(default_factory=list)
    registers: dict[int, Value] = field(default_factory=dict)
    choice: Choice | None = None
    table: tuple[str, str] = ("", "")

    def fork(self) -> Branch:
        return Branch(self.context, list(self.steps), dict(self.registers), self.choice, self.table)

    def choose(self, choice: Choice) -> None:
        """Mark it as an alternative of a choice; a choice within an alternative belongs to the first one."""
        self.choice = self.choice or choice

    def require(self, matches: tuple[Step, ...] | None, text: str) -> None:
        """Add conditions; ``None``: the model cannot express them, and an opaque one with this ``text`` is added."""
        if matches is None:
            self.steps.append(Opaque(text))
        else:
            self.steps.extend(matches)
            self.context = self.context.after(matches)

    def require_exists(self, value: Value) -> None:
        """A load that finds nothing ends the rule: add this as a condition, where comparing the value does not imply
        it."""
        if not isinstance(value, Field):
            return
        name = value.names.name if value.kind in ("socket", "named") else ""
        if value.kind == "ct" and value.names.name != "ct state":
            name = "connection"
        elif value.kind == "named" and not name.startswith(_MAY_BE_MISSING):
            name = ""
        if name:
            condition = Property(name, ((1, 1),) if name == "connection" else ((0, 1 << 8 * value.length),))
            if condition not in self.steps:
                self.steps.append(condition)

    def load(self, register: bytes | None, value: Value) -> None:
        """Load a value; what overlaps with it is lost."""
        first = slot(register)
        for other, held in list(self.registers.items()):
            if other < first < other + _slots(held) or first < other < first + _slots(value):
                del self.registers[other]
        self.registers[first] = value

    def value(self, register: bytes | None) -> Value:
        return self.registers.get(slot(register), UnknownValue("a register that nothing loaded"))


def _slots(value: Value) -> int:
    """How many registers of 32 bits a value takes."""
    length = value.length if isinstance(value, Field) else len(value.data) if isinstance(value, Constant) else 1
    return (length + 3) // 4


def slot(register: bytes | None) -> int:
    """The first of the sixteen 32-bit registers that a register number means; -1 for the verdict register."""
    index = wire.number(register or b"")
    return -1 if index == 0 else (index - 1) * 4 if index < 8 else index - 8


def host(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder)


def value_of(nested: bytes | None) -> bytes:
    return netlink.attributes(nested).get(wire.DATA_VALUE, b"") if nested is not None else b""
