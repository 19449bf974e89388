"""A model rule in the making: what the registers hold, and the steps so far.

Problem: an expression reads what others have loaded, and a lookup splits a rule in several. Promise: ``Branch`` is what
``expressions`` and ``effects`` share; one that is forked goes its own way. Registers are counted in 32-bit steps, as
the kernel does.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import NamedTuple

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.register_values import Context, UnknownValue, Value
from hitless.model.rules import Opaque, Step

__all__ = ["Attributes", "Branch", "Choice", "host", "slot", "value_of"]

Attributes = dict[int, bytes]


class Choice(NamedTuple):
    """From step ``at`` on a branch is one way of several, and the rules do not tell which is taken."""

    at: int
    words: str
    exhaustive: bool


@dataclass(slots=True)
class Branch:
    """One model rule in the making, of a ``table`` (nft family and name). ``choice``: it is one way of several of the
    same rule."""

    context: Context
    steps: list[Step] = field(default_factory=list)
    registers: dict[int, Value] = field(default_factory=dict)
    choice: Choice | None = None
    table: tuple[str, str] = ("", "")

    def fork(self) -> Branch:
        return Branch(self.context, list(self.steps), dict(self.registers), self.choice, self.table)

    def choose(self, choice: Choice) -> None:
        """It is one way of a choice; a choice within a way is part of the first one."""
        self.choice = self.choice or choice

    def require(self, matches: tuple[Step, ...] | None, words: str) -> None:
        """Add conditions; where there are none that say it, an opaque one with ``words``."""
        if matches is None:
            self.steps.append(Opaque(words))
        else:
            self.steps.extend(matches)
            self.context = self.context.after(matches)

    def load(self, register: bytes | None, value: Value) -> None:
        self.registers[slot(register)] = value

    def value(self, register: bytes | None) -> Value:
        return self.registers.get(slot(register), UnknownValue("a register that nothing loaded"))


def slot(register: bytes | None) -> int:
    """The first of the sixteen 32-bit registers that a register number stands for; -1 for the verdict."""
    index = wire.number(register or b"")
    return -1 if index == 0 else (index - 1) * 4 if index < 8 else index - 8


def host(data: bytes) -> int:
    return int.from_bytes(data[:4], sys.byteorder)


def value_of(nested: bytes | None) -> bytes:
    return netlink.attributes(nested).get(wire.DATA_VALUE, b"") if nested is not None else b""
