"""A legacy table's entries, put together by hand as the kernel would hand them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from hitless.kernel.xtables.layout import LAYOUTS
from hitless.kernel.xtables.sockopt import Info
from hitless.model.families import Family

__all__ = ["Blob", "error", "extension", "standard"]

HOOKS = {"PREROUTING": 0, "INPUT": 1, "FORWARD": 2, "OUTPUT": 3, "POSTROUTING": 4}


def _align(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def extension(name: str, revision: int, data: bytes) -> bytes:
    """A struct xt_entry_match or xt_entry_target."""
    body = _align(data)
    return struct.pack("=H29sB", 32 + len(body), name.encode(), revision) + body


def standard(verdict: int) -> bytes:
    """The standard target: a verdict (negative) or a jump (an offset)."""
    return extension("", 0, struct.pack("=i", verdict))


def error(name: str) -> bytes:
    """The target that begins a user chain, and ends the table."""
    return extension("ERROR", 0, name.encode().ljust(30, b"\0"))


@dataclass
class Blob:
    """Entries, and what GET_INFO would say of them."""

    family: Family = Family.IPV4
    data: bytes = b""
    count: int = 0
    entry: dict[int, int] = field(default_factory=dict)
    underflow: dict[int, int] = field(default_factory=dict)

    def add(self, target: bytes, *matches: bytes, head: bytes | None = None, counters: tuple[int, int] = (0, 0)) -> int:
        """Append an entry; returns its offset."""
        layout = LAYOUTS[self.family]
        at = len(self.data)
        size = layout.head + sum(map(len, matches))
        first = bytearray((head or b"").ljust(layout.head, b"\0"))
        struct.pack_into("=HH", first, layout.sizes_at, size, size + len(target))
        struct.pack_into("=QQ", first, layout.counters_at, *counters)
        self.data += bytes(first) + b"".join(matches) + target
        self.count += 1
        return at

    @property
    def end(self) -> int:
        return len(self.data)

    def built_in(self, hook: str, *targets: bytes, policy: int = -2) -> int:
        """A whole built-in chain of rules without conditions; returns where it begins."""
        begin = self.end
        for target in targets:
            self.add(target)
        self.entry[HOOKS[hook]] = begin
        self.underflow[HOOKS[hook]] = self.add(standard(policy))
        return begin

    def user(self, name: str, *targets: bytes) -> int:
        """A whole user chain; returns the offset that jumps to it carry."""
        self.add(error(name))
        begin = self.end
        for target in targets:
            self.add(target)
        self.add(standard(-5))
        return begin

    def finish(self) -> tuple[Info, bytes]:
        self.add(error("ERROR"))
        hooks = sum(1 << number for number in self.entry)
        numbers = range(5)
        return (
            Info(
                hooks,
                tuple(self.entry.get(number, 0) for number in numbers),
                tuple(self.underflow.get(number, 0) for number in numbers),
                self.count,
                len(self.data),
            ),
            self.data,
        )
