"""A full read of the nf_tables rule set, whole or not at all.

Problem: tables, chains, rules and sets are separate dumps, and another process may commit between two of them. Promise:
``read_state`` returns what one single generation held: the generation is read before and after, and the whole read is
repeated until they agree; ``read_chain`` reads one chain again, cheaply. What it never does: decode expressions. Next
stages: ``state`` (views), ``mirror`` (events from here on).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from hitless.errors import KernelError, MissingError, NotFound
from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey, TableState
from hitless.model.families import Family

__all__ = ["generation", "numbers_of", "read_chain", "read_state"]

_PATIENCE_S = 20.0  # how long a read may be disturbed by commits of others before it gives up
_SUBJECT = "the nf_tables rule set"


def _kind(number: int) -> int:
    return wire.SUBSYSTEM << 8 | number


def numbers_of(families: Iterable[Family]) -> tuple[int, ...]:
    """The nf_tables families that can touch packets of ``families``; inet is always among them."""
    return (*(wire.NUMBERS[family.nft] for family in families), wire.NUMBERS["inet"])


def generation(socket: netlink.Socket) -> int:
    """The rule set's generation now."""
    try:
        replies = socket.request(
            _kind(wire.GETGEN), 0, netlink.nfgenmsg(0), operation="read the generation of", subject=_SUBJECT
        )
    except MissingError:
        raise
    except KernelError as error:
        raise MissingError(
            f"this kernel offers no nf_tables ({error})", remedy="load it: modprobe nf_tables"
        ) from error
    if not replies:
        raise KernelError("read the generation of", _SUBJECT, reason="the kernel gave none")
    return wire.number(netlink.attributes(replies[0].payload, 4).get(wire.GEN_ID, b""))


def _dump(socket: netlink.Socket, number: int, family: int, *parts: bytes) -> list[bytes]:
    payload = netlink.nfgenmsg(family) + b"".join(parts)
    replies = socket.dump(_kind(number), payload, operation="read", subject=_SUBJECT)
    return [reply.payload for reply in replies]


def read_state(
    socket: netlink.Socket,
    families: Collection[int],
    tables: Collection[str] | None = None,
    *,
    elements: bool = True,
) -> State:
    """All tables of the ``families`` (numbers), or those with a name in ``tables``, as one generation held them.

    ``elements`` false leaves the sets empty. Raises ``KernelError`` when others commit faster than it can be read.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        before = generation(socket)
        try:
            state = _read_once(socket, families, tables, elements)
        except NotFound:  # a table or set went away between two dumps
            state = None
        if state is not None and generation(socket) == before:
            state.generation = before
            return state
        if time.monotonic() > deadline:
            raise KernelError("read", _SUBJECT, reason=f"it changed all the time for {_PATIENCE_S:.0f} s")


def _read_once(
    socket: netlink.Socket, families: Collection[int], wanted: Collection[str] | None, elements: bool
) -> State:
    state = State()
    for family in families:
        found: dict[str, TableState] = {}
        for payload in _dump(socket, wire.GETTABLE, family):
            attributes = netlink.attributes(payload, 4)
            name = netlink.to_text(attributes.get(wire.TABLE_NAME, b""))
            if wanted is None or name in wanted:
                found[name] = TableState(family, name, is_dormant(attributes))
        if not found:
            continue
        for payload in _dump(socket, wire.GETCHAIN, family):
            attributes = netlink.attributes(payload, 4)
            table = found.get(netlink.to_text(attributes.get(wire.CHAIN_TABLE, b"")))
            if table is not None:
                chain = chain_of(attributes)
                table.chains[chain.name] = chain
                table.top = max(table.top, chain.handle)
        for name in ("",) if wanted is None else tuple(found):
            _read_rules(socket, family, name, found)
        for payload in _dump(socket, wire.GETSET, family):
            attributes = netlink.attributes(payload, 4)
            table = found.get(netlink.to_text(attributes.get(wire.SET_TABLE, b"")))
            if table is not None:
                read = SetState.read(attributes)
                table.sets[read.name] = read
                if elements:
                    _read_elements(socket, family, table.name, read)
        state.tables.update({(family, name): table for name, table in found.items()})
    return state


def _read_rules(socket: netlink.Socket, family: int, table: str, found: dict[str, TableState]) -> None:
    parts = (netlink.text(wire.RULE_TABLE, table),) if table else ()
    for payload in _dump(socket, wire.GETRULE, family, *parts):
        head = wire.rule_head(payload)
        state = found.get(head.table)
        if state is not None:
            chain = state.chains.get(head.chain)
            if chain is None:
                raise NotFound("read", f"chain {head.chain} of {_SUBJECT}")  # made after the chains were read
            chain.rules[head.handle] = pack(payload)
            state.top = max(state.top, head.handle)


def _read_elements(socket: netlink.Socket, family: int, table: str, into: SetState) -> None:
    parts = netlink.text(wire.ELEMENTS_TABLE, table), netlink.text(wire.ELEMENTS_SET, into.name)
    for payload in _dump(socket, wire.GETSETELEM, family, *parts):
        into.apply(netlink.attributes(payload, 4).get(wire.ELEMENTS_LIST, b""))


def read_chain(socket: netlink.Socket, key: TableKey, name: str) -> ChainState | None:
    """One chain with its rules; ``None`` when there is no such chain."""
    family, table = key
    asked = netlink.nfgenmsg(family) + netlink.text(wire.CHAIN_TABLE, table) + netlink.text(wire.CHAIN_NAME, name)
    try:
        replies = socket.request(_kind(wire.GETCHAIN), 0, asked, operation="read", subject=f"chain {name}")
    except NotFound:
        return None
    chain = chain_of(netlink.attributes(replies[0].payload, 4)) if replies else ChainState(name)
    # a dump for a chain that is not there is empty and no error, so that the chain is asked for first
    parts = netlink.text(wire.RULE_TABLE, table), netlink.text(wire.RULE_CHAIN, name)
    for payload in _dump(socket, wire.GETRULE, family, *parts):
        chain.rules[wire.rule_head(payload).handle] = pack(payload)
    return chain


def is_dormant(attributes: dict[int, bytes]) -> bool:
    """Whether a table message says that the table sleeps."""
    return bool(wire.number(attributes.get(wire.TABLE_FLAGS, b"")) & wire.TABLE_DORMANT)


def chain_of(attributes: dict[int, bytes]) -> ChainState:
    """The chain that a message describes, without rules."""
    return ChainState(
        netlink.to_text(attributes.get(wire.CHAIN_NAME, b"")),
        wire.number(attributes.get(wire.CHAIN_HANDLE, b"")),
        wire.hook_of(attributes),
    )
