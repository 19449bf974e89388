"""Commits to nf_tables as they happen: which chains they touched, and which process made them.

Problem: an agent must notice damage within milliseconds, and must know the process that caused it. Promise: every
committed transaction becomes one ``Commit`` with the chains that it touched and its writer (pid and command name, from
the kernel's NEWGEN message). Events that the kernel dropped raise ``EventsLostError``; all rules must then be read
again. It keeps no copy of the rules (that is the mirror of ``hitless.kernel.nftables``): an event only says that
something may have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hitless.kernel import netlink
from hitless.kernel.chains import ChainName
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import wire
from hitless.kernel.ports import only_ours

__all__ = ["Commit", "Commits"]

_BUFFER = 8 << 20  # a kube-proxy full sync of 5,000 Services is about 6 MB of events
_TABLES = (wire.NEWTABLE, wire.DELTABLE)
_CHAINS = (wire.NEWCHAIN, wire.DELCHAIN)
_RULES = (wire.NEWRULE, wire.DELRULE)


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction. A change of a table itself (created, deleted) is in ``touched`` as a name with an empty
    chain."""

    generation: int
    pid: int
    name: str
    touched: frozenset[ChainName]


class Commits:
    """A subscription; ``fileno`` is for selectors, ``ready`` gives what has been committed since the last call."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = netlink.Socket(
            netlink.NETFILTER, namespace, groups=(wire.EVENTS,), receive_buffer=_BUFFER, timeout=0
        )
        self._touched: set[ChainName] = set()

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def ready(self) -> Iterator[Commit]:
        """The commits that have arrived, without waiting. Raises ``EventsLostError`` when the kernel dropped some."""
        with only_ours("follow", "the changes of the rules"):
            while (data := self._socket.receive(wait=False)) is not None:
                for event in netlink.messages(data):
                    if event.type >> 8 == wire.SUBSYSTEM:
                        yield from self._event(event.type & 0xFF, event.payload)

    def _event(self, kind: int, payload: bytes) -> Iterator[Commit]:
        if kind in _RULES:
            head = wire.rule_head(payload)
            self._touch(payload, head.table, head.chain)
        elif kind in _CHAINS:
            attributes = netlink.attributes(payload, 4)
            table = netlink.to_text(attributes.get(wire.CHAIN_TABLE, b""))
            self._touch(payload, table, netlink.to_text(attributes.get(wire.CHAIN_NAME, b"")))
        elif kind in _TABLES:
            self._touch(payload, netlink.to_text(netlink.attributes(payload, 4).get(wire.TABLE_NAME, b"")), "")
        elif kind == wire.NEWGEN:
            attributes = netlink.attributes(payload, 4)
            touched, self._touched = frozenset(self._touched), set()
            yield Commit(
                wire.number(attributes.get(wire.GEN_ID, b"")),
                wire.number(attributes.get(wire.GEN_PID, b"")),
                netlink.to_text(attributes.get(wire.GEN_NAME, b"")),
                touched,
            )

    def _touch(self, payload: bytes, table: str, chain: str) -> None:
        family = wire.FAMILIES.get(payload[0]) if payload else None
        if family is not None:
            self._touched.add(ChainName(family, table, chain))
