"""What a register holds: a constant, a field of the packet, or an unknown value.

Values only; ``expressions`` loads them, ``fields`` defines what comparing them means.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

from hitless.kernel.nftables.field_names import (
    NETWORK_HEADER,
    PROTOCOLS,
    TRANSPORT_HEADER,
    FieldNames,
    Part,
    of_key,
    parts,
    value,
)
from hitless.model import reading
from hitless.model.rules import Protocol, Source, Step

__all__ = ["ADDRESS_TYPES", "Constant", "Context", "Field", "UnknownValue", "Value", "layout"]

ADDRESS_TYPES = (
    *("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"),
    *("BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"),
)


@dataclass(frozen=True, slots=True)
class Constant:
    """A register that holds these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Field:
    """A register loaded from the packet. ``kind``: payload, meta, ct, rt, socket, fib, or named (fields without a key
    number); ``key``: the header (payload) or the key number; ``value = ((field & mask) ^ xor) >> shift`` where those
    are set. ``direction``: of a connection, or of a fib lookup. ``big``: the number is in network byte order.
    ``named``: the names of a field of kind named. ``count``: how many values it can have, from ``offset`` on."""

    kind: str
    key: int
    offset: int = 0
    length: int = 4
    mask: bytes = b""
    xor: bytes = b""
    direction: str = ""
    shift: int = 0
    big: bool = False
    named: FieldNames | None = None
    count: int = 0

    def nft(self, context: Context) -> str:
        """As nft writes it."""
        text = self._name(context)
        if any(self.mask) and self.mask != b"\xff" * len(self.mask):
            address = self._address(context) and len(self.mask) in (4, 16)
            text += f" & {reading.packed(self.mask) if address else hex(int.from_bytes(self.mask, self.order))}"
        if any(self.xor):
            text += f" ^ {int.from_bytes(self.xor, self.order):#x}"
        return text + (f" >> {self.shift}" if self.shift else "")

    def _name(self, context: Context) -> str:
        if self.kind == "payload":
            part = next((part for part in layout(self, context) if part.start == self.offset), None)
            if part is not None:
                return part.nft
            header = {0: "ll", NETWORK_HEADER: "nh", TRANSPORT_HEADER: "th"}.get(self.key, "ih")
            return f"@{header},{self.offset * 8},{self.length * 8}"
        if self.kind == "fib":
            return f"fib {'saddr . iif oif' if not self.direction else f'{self.direction[0]}addr type'}"
        return self.names.nft

    def _address(self, context: Context) -> bool:
        """Whether it is an address."""
        if self.kind == "payload":
            return any(part.start == self.offset and "addr" in part.nft for part in layout(self, context))
        return self.kind in ("ct", "rt") and any(name in self.names.nft for name in ("saddr", "daddr", "nexthop"))

    def parts(self, context: Context) -> tuple[Part, ...]:
        """The parts of the header that a payload field was loaded from."""
        return layout(self, context)

    def plain(self, context: Context) -> str:
        """The name of a packet's own key part, if the field is exactly one, unchanged; else empty."""
        if self.mask or self.shift:
            return ""
        if self.kind == "payload":
            for part in layout(self, context):
                if (part.start, part.size) == (self.offset, self.length):
                    return part.kind
            return ""
        return self.names.name if self.kind == "meta" and not self.big else ""

    @property
    def names(self) -> FieldNames:
        """Its names; not for payload fields."""
        return self.named or of_key(self.kind, self.key, self.direction)

    @property
    def order(self) -> Literal["little", "big"]:
        """The byte order of its number."""
        return "big" if self.big or self.kind == "payload" or self.names.text else sys.byteorder

    def shown(self, data: bytes, context: Context) -> str:
        """A value of it as nft writes it."""
        if self.kind == "payload":
            protocol = any(part.kind == "protocol" and part.start == self.offset for part in layout(self, context))
            text = FieldNames("", "", PROTOCOLS if protocol and not any(self.mask) else {})
            if self.key == 0 and self.length == 6:
                return data.hex(":")
            width = self.length if any(self.mask) else 0
            return value(text, data, big=True, address=self._address(context), width=width)
        if self.kind == "fib" and self.direction:
            number = int.from_bytes(data, sys.byteorder)
            return ADDRESS_TYPES[number].lower() if number < len(ADDRESS_TYPES) else str(number)
        text = self.names
        if text.name == "ct expiration":
            return f"{int.from_bytes(data, self.order)}ms"
        width = self.length if any(self.mask) or "mark" in text.name else 0
        return value(text, data, big=self.order == "big", address=self._address(context), width=width)


@dataclass(frozen=True, slots=True)
class UnknownValue:
    """A register whose value the decoder cannot follow."""

    text: str


Value = Constant | Field | UnknownValue


@dataclass(frozen=True, slots=True)
class Context:
    """What earlier conditions of the rule have established: IP version (4, 6; 0: unknown) and transport protocol."""

    version: int = 0
    protocol: int | None = None

    def after(self, matches: tuple[Step, ...]) -> Context:
        """The context once ``matches`` hold."""
        context = self
        for match in matches:
            if isinstance(match, Protocol) and not match.negated:
                context = replace(context, protocol=match.number)
            elif isinstance(match, Source) and match.network.prefixlen == 0 and not match.negated:
                context = replace(context, version=match.network.version)
        return context


def layout(field: Field, context: Context) -> tuple[Part, ...]:
    """The parts of the header that a payload field was loaded from."""
    return parts(field.key, context.version, context.protocol)
