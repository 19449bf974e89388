"""Ways to make a gap of a known length, of a third of a millisecond and more. Part of bench/gaps.py.

nf_tables gaps are made by raw netlink batches and legacy ones by raw table replacement (under the xtables lock, as
iptables takes it), because programs are too slow for short gaps.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hitless.kernel import netlink, processes
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import Namespace, inside
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.packing import unpack


@dataclass
class Injected:
    """A gap that was made: when each of its ends was begun and done."""

    kind: str
    begin: tuple[int, int]
    end: tuple[int, int] = (0, 0)


Step = Callable[[], None]


def spin_until(clock: Clock, t: int) -> None:
    left = t - clock.now()
    if left > 3_000_000:
        time.sleep((left - 2_000_000) / 1e9)
    while clock.now() < t:
        pass


def inject(clock: Clock, lengths: Sequence[int], pick: Callable[[int], tuple[str, Step, Step]]) -> list[Injected]:
    """Make a gap of each length; ``pick`` gives a way of doing it, with its open and close."""
    chance = random.Random(1)
    found = []
    gc.collect()
    gc.disable()
    for length in lengths:
        kind, begin, end = pick(length)
        t0 = clock.now()
        begin()
        t1 = clock.now()
        spin_until(clock, t1 + length)
        t2 = clock.now()
        end()
        found.append(Injected(kind, (t0, t1), (t2, clock.now())))
        spin_until(clock, found[-1].end[1] + chance.randrange(2_000_000, 15_000_000))
    gc.enable()
    return found


# --- nf_tables -------------------------------------------------------------------------------------------------------


class NftWays:
    """Ways to open and close a gap in iptables-nft's tables, each one transaction prepared beforehand."""

    def __init__(self, node: Namespace) -> None:
        self.socket = netlink.Socket(netlink.NETFILTER, node)
        state = dump.read_state(self.socket, (2,))
        self.chains = state.tables[2, "nat"].chains
        rules = [unpack(rule) for _, rule in self.chains["FLANNEL-POSTRTG"].rules.entries()]
        jump = unpack(next(self.chains["POSTROUTING"].rules.entries())[1])
        verdict = netlink.be32(wire.VERDICT_CODE, -5)
        immediate = netlink.be32(1, 0) + netlink.nested(2, netlink.nested(wire.DATA_VERDICT, verdict))
        expression = netlink.text(wire.EXPRESSION_NAME, "immediate") + netlink.nested(wire.EXPRESSION_DATA, immediate)
        returns = self.rule("POSTROUTING", netlink.nested(wire.RULE_EXPRESSIONS, netlink.nested(1, expression)))
        # a RETURN in front or a jump taken away needs no xtables extension; refilling the chain does, and then the
        # kernel first waits until the old ones are gone (some 10 ms): short gaps cannot be made that way
        self.short: dict[str, tuple[Step, Step]] = {
            "RETURN in front": (
                lambda: self.commit((wire.NEWRULE, netlink.CREATE, returns)),
                lambda: self.commit(self.delete("POSTROUTING", 0)),
            ),
        }
        refill = [self.again("FLANNEL-POSTRTG", rule) for rule in rules]
        rejump = self.again("POSTROUTING", jump)
        self.long: dict[str, tuple[Step, Step]] = {
            "chain emptied": (
                lambda: self.commit((wire.DELRULE, 0, self.rule("FLANNEL-POSTRTG"))),
                lambda: self.commit(*((wire.NEWRULE, netlink.CREATE | netlink.APPEND, each) for each in refill)),
            ),
            "jump removed": (
                lambda: self.commit((wire.DELRULE, 0, self.rule("POSTROUTING"))),
                lambda: self.commit((wire.NEWRULE, netlink.CREATE | netlink.APPEND, rejump)),
            ),
        }

    @staticmethod
    def rule(chain: str, rest: bytes = b"") -> bytes:
        return netlink.nfgenmsg(2) + netlink.text(wire.RULE_TABLE, "nat") + netlink.text(wire.RULE_CHAIN, chain) + rest

    def again(self, chain: str, rule: bytes) -> bytes:
        """The request that makes a rule that was dumped."""
        attributes = netlink.attributes(rule, 4)
        return self.rule(chain, netlink.attribute(wire.RULE_EXPRESSIONS | 0x8000, attributes[wire.RULE_EXPRESSIONS]))

    def delete(self, chain: str, number: int) -> tuple[int, int, bytes]:
        found = dump.read_chain(self.socket, (2, "nat"), chain)
        assert found is not None
        return wire.DELRULE, 0, self.rule(chain, netlink.be64(wire.RULE_HANDLE, list(found.rules)[number]))

    def commit(self, *parts: tuple[int, int, bytes]) -> None:
        requests = [(wire.SUBSYSTEM << 8 | kind, flags, payload) for kind, flags, payload in parts]
        self.socket.batch(wire.SUBSYSTEM, requests, operation="change", subject="the bench's rules")

    def pick(self, length: int) -> tuple[str, Step, Step]:
        ways = self.short if length < 20_000_000 else self.short | self.long
        kind = random.choice(list(ways))
        return (kind, *ways[kind])


# --- iptables-legacy -------------------------------------------------------------------------------------------------


class LegacyWays:
    """The nat table as it is and with FLANNEL-POSTRTG emptied, swapped by IPT_SO_SET_REPLACE under the xtables lock."""

    _REPLACE, _INFO, _ENTRIES = 64, 64, 65

    def __init__(self, node: Namespace) -> None:
        self.socket = inside(node, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self.lock = f"/proc/{node.pid}/root/run/xtables.lock"
        self._counters = ctypes.create_string_buffer(1 << 16)
        self.full = self.read()
        processes.run(["iptables-legacy", "-t", "nat", "-F", "FLANNEL-POSTRTG"], namespace=node)
        self.empty = self.read()
        self.replace(self.full, self.empty[1])

    def read(self) -> tuple[bytes, int]:
        """A replace request that makes the table what it is now (less its counters), and its number of entries."""
        name = b"nat".ljust(32, b"\0")
        info = self._ask(self._INFO, name.ljust(84, b"\0"))
        hooks = struct.unpack_from("=I", info, 32)[0]
        entries, size = struct.unpack_from("=II", info, 76)
        table = self._ask(self._ENTRIES, name + struct.pack("=I", size) + b"\0" * 4 + b"\0" * size)[40:]
        return name + struct.pack("=III", hooks, entries, size) + info[36:76] + table, entries

    def _ask(self, option: int, data: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(data, len(data))
        length = ctypes.c_uint32(len(data))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(self.socket.fileno(), 0, option, buffer, ctypes.byref(length)) != 0:
            raise OSError(ctypes.get_errno(), "getsockopt")
        return buffer.raw

    def replace(self, table: tuple[bytes, int], entries: int) -> None:
        """Put a table in the place of one with so many ``entries``: the kernel returns a counter for each of them."""
        counters = struct.pack("=IQ", entries, ctypes.addressof(self._counters))
        with open(self.lock, "wb") as lock:  # noqa: PTH123 - what iptables does, call by call
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.socket.setsockopt(0, self._REPLACE, table[0][:84] + counters + table[0][84:])

    def pick(self, length: int) -> tuple[str, Step, Step]:
        full, empty = self.full, self.empty
        return "chain emptied", lambda: self.replace(empty, full[1]), lambda: self.replace(full, empty[1])
