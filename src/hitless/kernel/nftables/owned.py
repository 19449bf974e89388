"""A table of our own: written in one transaction, owned by this process's socket, and kept by the kernel when the
process dies.

Problem: ``nft flush ruleset`` and a reload of a firewall delete every table that they find. Promise: ``OwnedTables``
creates its table with the kernel's owner and persist flags where they exist (Linux 6.9): no other process can change or
flush it while this one lives, and it remains when this one dies, to be adopted by the next. On older kernels it is an
ordinary table. A replacement is one transaction for both families, and counters survive it. It never touches a table of
another name. Numbers: nf_tables.h. Next stage: ``hitless.guard`` decides the contents.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hitless.errors import HitlessError, KernelError, MissingError, NotFound
from hitless.kernel import netlink
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import encoding, wire
from hitless.kernel.ports import only_ours
from hitless.model.families import Family
from hitless.model.rules import Hook

__all__ = ["OWNER", "PERSIST", "Count", "OwnedChain", "OwnedTables", "Owner", "Ownership", "TableOwnedByOther"]

OWNER, PERSIST = 2, 4  # NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST
_TABLE_OWNER = 7  # NFTA_TABLE_OWNER
_NEWOBJ, _GETOBJ = 18, 19
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_COUNTER = 1
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}


class TableOwnedByOther(HitlessError):
    """Another living process owns the table; ``port`` is its netlink port (mostly its process id)."""

    def __init__(self, table: str, port: int) -> None:
        self.port = port
        super().__init__(f"table {table} belongs to another running process (netlink port {port}); stop that one first")


@dataclass(frozen=True, slots=True)
class OwnedChain:
    """A chain to be written: ``rules`` are (expressions, comment)."""

    name: str
    rules: tuple[tuple[bytes, str], ...] = ()
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """What a counter object counted."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Owner:
    """The flags of a table as the kernel reports them, and the owner's netlink ``port``; 0: no socket owns the
    table."""

    flags: int
    port: int

    @property
    def protected(self) -> bool:
        """Whether the kernel refuses changes by other processes now."""
        return bool(self.flags & OWNER and self.port)


Ownership = Mapping[Family, Owner | None]
"""Per family: the table's owner; ``None``: there is no such table."""


class OwnedTables:
    """The tables ``name`` of both families in one namespace, written over one socket, which is the owner while it is
    open."""

    def __init__(self, name: str, namespace: Namespace = HERE, *, flags: int = OWNER | PERSIST) -> None:
        self.name = name
        self._flags = flags
        self._socket = netlink.Socket(netlink.NETFILTER, namespace)

    def close(self) -> None:
        """Close the socket: the tables remain, without an owner."""
        self._socket.close()

    @property
    def port(self) -> int:
        """This socket's netlink port, which identifies the owner."""
        return self._socket.port

    # --- reading

    def _dump(self, kind: int, family: Family, *parts: bytes) -> list[dict[int, bytes]]:
        payload = netlink.nfgenmsg(wire.NUMBERS[family.nft]) + b"".join(parts)
        replies = self._socket.dump(wire.SUBSYSTEM << 8 | kind, payload, operation="read", subject=f"table {self.name}")
        return [netlink.attributes(reply.payload, 4) for reply in replies]

    @only_ours("read", "the owner of a table")
    def owner(self, family: Family) -> Owner | None:
        """The owner of the family's table; ``None`` when there is no such table."""
        for found in self._dump(wire.GETTABLE, family):
            if netlink.to_text(found.get(wire.TABLE_NAME, b"")) == self.name:
                return Owner(
                    wire.number(found.get(wire.TABLE_FLAGS, b"")), wire.number(found.get(_TABLE_OWNER, b"")) or 0
                )
        return None

    @only_ours("read", "counters")
    def counters(self, family: Family) -> dict[str, Count]:
        """The family's counter objects by name; empty when there is no table."""
        try:
            found = self._dump(_GETOBJ, family, netlink.text(_OBJ_TABLE, self.name), netlink.be32(_OBJ_TYPE, _COUNTER))
        except NotFound:
            return {}
        counts = {}
        for each in found:
            if netlink.to_text(each.get(_OBJ_TABLE, b"")) == self.name:
                data = netlink.attributes(each.get(_OBJ_DATA, b""))
                count = Count(wire.number(data.get(2, b"")), wire.number(data.get(1, b"")))
                counts[netlink.to_text(each.get(_OBJ_NAME, b""))] = count
        return counts

    def _chains(self, family: Family) -> dict[str, Hook | None]:
        found = self._dump(wire.GETCHAIN, family)
        return {
            netlink.to_text(each[wire.CHAIN_NAME]): wire.hook_of(each)
            for each in found
            if netlink.to_text(each.get(wire.CHAIN_TABLE, b"")) == self.name
        }

    # --- writing

    @only_ours("own", "tables")
    def own(self, families: Sequence[Family]) -> None:
        """Take ownership of existing tables that have no owner; no rule changes. Raises ``TableOwnedByOther``."""
        for family in families:
            owner = self.owner(family)
            if owner is None or owner.port == self.port or not owner.flags & PERSIST:
                continue
            # adoption needs a separate transaction: one that changes a table's flags cannot add base chains (EINVAL)
            flags = netlink.be32(wire.TABLE_FLAGS, OWNER | PERSIST)
            self._batch([self._request(wire.NEWTABLE, netlink.CREATE, family, netlink.text(1, self.name), flags)])

    @only_ours("write", "a table")
    def replace(self, desired: Mapping[Family, Sequence[OwnedChain]], counters: Sequence[str] = ()) -> None:
        """Make the tables of the named families hold exactly these chains, in one transaction.

        Raises ``TableOwnedByOther`` when another living process owns one, ``KernelError`` when the kernel refuses.
        """
        try:
            self._commit(desired, counters, self._flags)
        except KernelError as error:
            # no owner flag before 5.12, no persist before 6.9; with an owner and without persist, the table is deleted
            # when its owner dies
            if not self._flags or error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._commit(desired, counters, 0)
            self._flags = 0

    def _commit(self, desired: Mapping[Family, Sequence[OwnedChain]], counters: Sequence[str], flags: int) -> None:
        parts: list[tuple[int, int, bytes]] = []
        for family, chains in desired.items():
            parts += self._family(family, chains, counters, flags)
        self._batch(parts)

    def _batch(self, parts: list[tuple[int, int, bytes]]) -> None:
        try:
            self._socket.batch(wire.SUBSYSTEM, parts, operation="write", subject=f"table {self.name}")
        except MissingError:
            self.available()
            raise

    @only_ours("ask for", "the owner of a table")
    def available(self, families: Sequence[Family] = tuple(Family)) -> None:
        """Raise ``TableOwnedByOther`` when another living process owns the table of one of the families."""
        for family in families:
            owner = self.owner(family)
            if owner is not None and owner.protected and owner.port != self.port:
                raise TableOwnedByOther(self.name, owner.port)

    def _request(self, kind: int, flags: int, family: Family, *parts: bytes) -> tuple[int, int, bytes]:
        payload = netlink.nfgenmsg(wire.NUMBERS[family.nft]) + b"".join(parts)
        return wire.SUBSYSTEM << 8 | kind, flags, payload

    def _family(
        self, family: Family, chains: Sequence[OwnedChain], counters: Sequence[str], flags: int
    ) -> list[tuple[int, int, bytes]]:
        owner = self.owner(family)
        table = netlink.text(1, self.name)
        parts: list[tuple[int, int, bytes]] = []
        existing: dict[str, Hook | None] = {}
        if owner is not None and (owner.flags ^ flags) & PERSIST:
            # the persist flag cannot be changed (EOPNOTSUPP): the table is replaced in the same transaction. The owner
            # flag disappears with the owner, and is set again by adoption.
            parts.append(self._request(wire.DELTABLE, 0, family, table))
            owner = None
        elif owner is not None:
            existing = self._chains(family)
            if flags:
                self.own((family,))
        if owner is None:
            parts.append(
                self._request(wire.NEWTABLE, netlink.CREATE, family, table, netlink.be32(wire.TABLE_FLAGS, flags))
            )
        counted = {} if owner is None else self.counters(family)
        for name in counters:
            if name not in counted:
                data = netlink.nested(_OBJ_DATA, netlink.be64(1, 0), netlink.be64(2, 0))
                kind = netlink.be32(_OBJ_TYPE, _COUNTER)
                parts.append(
                    self._request(_NEWOBJ, netlink.CREATE, family, table, netlink.text(_OBJ_NAME, name), kind, data)
                )
        if owner is not None:
            parts.append(self._request(wire.DELRULE, 0, family, table))
        wanted = {chain.name: chain.hook for chain in chains}
        for name, hook in existing.items():
            if name not in wanted or wanted[name] != hook:
                parts.append(self._request(wire.DELCHAIN, 0, family, table, netlink.text(wire.CHAIN_NAME, name)))
        for chain in chains:
            if chain.name not in existing or existing[chain.name] != chain.hook:
                parts.append(self._new_chain(family, table, chain))
        for chain in chains:
            parts += [self._new_rule(family, table, chain.name, *rule) for rule in chain.rules]
        return parts

    def _new_chain(self, family: Family, table: bytes, chain: OwnedChain) -> tuple[int, int, bytes]:
        body = table + netlink.text(wire.CHAIN_NAME, chain.name)
        if chain.hook is not None:
            number, priority = _HOOKS[chain.hook.hook], chain.hook.priority
            body += netlink.nested(wire.CHAIN_HOOK, netlink.be32(1, number), netlink.be32(2, priority))
            body += netlink.be32(wire.CHAIN_POLICY, 1) + netlink.text(wire.CHAIN_TYPE, chain.hook.type)
        return self._request(wire.NEWCHAIN, netlink.CREATE, family, body)

    def _new_rule(
        self, family: Family, table: bytes, chain: str, expressions: bytes, comment: str
    ) -> tuple[int, int, bytes]:
        body = table + netlink.text(wire.RULE_CHAIN, chain) + netlink.nested(wire.RULE_EXPRESSIONS, expressions)
        if comment:
            body += netlink.attribute(wire.RULE_USERDATA, encoding.userdata(comment))
        return self._request(wire.NEWRULE, netlink.CREATE | netlink.APPEND, family, body)

    @only_ours("remove", "a table")
    def remove(self) -> tuple[Family, ...]:
        """Delete the tables of both families; returns the families that had one. Raises ``TableOwnedByOther``."""
        parts: list[tuple[int, int, bytes]] = []
        gone = []
        for family in Family:
            owner = self.owner(family)
            if owner is None:
                continue
            gone.append(family)
            table = netlink.text(1, self.name)
            if owner.protected and owner.port != self.port:
                raise TableOwnedByOther(self.name, owner.port)
            parts.append(self._request(wire.DELTABLE, 0, family, table))
        self._batch(parts)
        return tuple(gone)
