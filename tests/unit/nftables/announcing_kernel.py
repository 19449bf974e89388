"""A kernel in miniature that announces commits the way nf_tables_commit does: the rules of the rules' places.

Written from net/netfilter/nf_tables_api.c's behaviour: additions of a transaction are in the list from the moment at
which they were asked for; the commit walks the transaction in order, takes deleted rules out as it comes to them, and
names for a new rule its predecessor *in the list of that moment*, except when it is the first or the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hitless.kernel import netlink
from hitless.kernel.nftables import wire

FAMILY, TABLE = 2, "t"


def head(chain: str) -> bytes:
    return netlink.text(wire.RULE_TABLE, TABLE) + netlink.text(wire.RULE_CHAIN, chain)


@dataclass
class _Part:
    kind: int
    chain: str
    handle: int = 0
    flags: int = 0


@dataclass
class AnnouncingKernel:
    """One table; ``commit`` returns the messages of the transaction that was asked for since the last one."""

    generation: int = 1
    handles: int = 0
    chains: dict[str, list[int]] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    parts: list[_Part] = field(default_factory=list)

    def message(self, number: int, payload: bytes, flags: int = 0) -> netlink.Message:
        return netlink.Message(wire.SUBSYSTEM << 8 | number, flags, 0, 0, netlink.nfgenmsg(FAMILY) + payload)

    def live(self, chain: str) -> list[int]:
        return [rule for rule in self.chains[chain] if rule not in self.dead]

    def _new(self, chain: str, flags: int) -> int:
        self.handles += 1
        self.parts.append(_Part(wire.NEWRULE, chain, self.handles, flags))
        return self.handles

    def add_chain(self, chain: str) -> None:
        if chain in self.chains:
            return
        self.handles += 1
        self.chains[chain] = []
        self.parts.append(_Part(wire.NEWCHAIN, chain, self.handles))

    def append(self, chain: str, after: int | None = None) -> None:
        rule = self._new(chain, netlink.CREATE | netlink.APPEND)
        place = len(self.chains[chain]) if after is None else self.chains[chain].index(after) + 1
        self.chains[chain].insert(place, rule)

    def insert(self, chain: str, before: int | None = None) -> None:
        rule = self._new(chain, netlink.CREATE)
        self.chains[chain].insert(0 if before is None else self.chains[chain].index(before), rule)

    def delete(self, chain: str, rule: int) -> None:
        self.dead.add(rule)
        self.parts.append(_Part(wire.DELRULE, chain, rule))

    def replace(self, chain: str, rule: int) -> None:
        self.delete(chain, rule)
        new = self._new(chain, netlink.APPEND)
        self.chains[chain].insert(self.chains[chain].index(rule), new)

    def flush(self, chain: str) -> None:
        for rule in self.live(chain):
            self.delete(chain, rule)

    def commit(self) -> list[netlink.Message]:
        if not self.parts:
            return []
        found = []
        for part in self.parts:
            if part.kind == wire.NEWCHAIN:
                text = netlink.text(wire.CHAIN_TABLE, TABLE) + netlink.text(wire.CHAIN_NAME, part.chain)
                found.append(self.message(part.kind, text + netlink.be64(wire.CHAIN_HANDLE, part.handle)))
                continue
            rules = self.chains[part.chain]
            payload = head(part.chain) + netlink.be64(wire.RULE_HANDLE, part.handle)
            if part.kind == wire.DELRULE:
                rules.remove(part.handle)
            elif part.handle not in (rules[0], rules[-1]):
                payload += netlink.be64(wire.RULE_POSITION, rules[rules.index(part.handle) - 1])
            found.append(self.message(part.kind, payload, part.flags))
        self.parts.clear()
        self.dead.clear()
        self.generation += 1
        found.append(self.newgen())
        return found

    def newgen(self, pid: int = 77, comm: str = "writer") -> netlink.Message:
        payload = netlink.be32(wire.GEN_ID, self.generation) + netlink.be32(wire.GEN_PID, pid)
        return self.message(wire.NEWGEN, payload + netlink.text(wire.GEN_NAME, comm))
