"""A consistent full read of the nf_tables rule set.

Problem: tables, chains, rules and sets are separate dumps, and another process may commit between two of them. Promise:
``read_state`` returns the contents of a single generation: the generation is read before and after, and the whole read
is repeated until both agree. ``read_chain`` and ``read_object`` read one chain or set, cheaply. Rules and elements are
kept only of what is of ``interest``; of the rest, at most one message at a time is in memory. Expressions are not
decoded. Next stages: ``state`` (views), ``mirror`` (events from here on).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

from hitless.errors import KernelError, MissingError, NotFound
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.interest import EVERYTHING, Interest, ObjectRef
from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey, TableState
from hitless.model.families import Family
from hitless.model.reachability import reachable

__all__ = [
    "PATIENCE_S",
    "FetchedObject",
    "UnstableRulesError",
    "generation",
    "numbers_of",
    "read_chain",
    "read_object",
    "read_state",
]

_MOST_PAUSE_S = 0.5  # between two attempts
PATIENCE_S = 20.0  # how long other programs' commits may disturb a read before it gives up
_MOST_LISTED = 2 << 20  # bytes of elements: about 130,000 IPv4 addresses, 50,000 intervals
_SUBJECT = "the nf_tables rule set"


class UnstableRulesError(KernelError):
    """The rules changed during each attempt to read them."""


def _kind(number: int) -> int:
    return wire.SUBSYSTEM << 8 | number


def numbers_of(families: Iterable[Family]) -> tuple[int, ...]:
    """The nf_tables families that can affect packets of ``families``; inet is always among them."""
    return (*(wire.NUMBERS[family.nft] for family in families), wire.NUMBERS["inet"])


def generation(socket: netlink.Socket) -> int:
    """The current generation of the rule set."""
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


def read_state(
    socket: netlink.Socket,
    families: Collection[int],
    tables: Collection[str] | None = None,
    interest: Interest = EVERYTHING,
    *,
    undisturbed: Callable[[State, int], bool] = lambda state, generation: False,
    patience: float = PATIENCE_S,
    clock: Clock | None = None,
) -> State:
    """All tables of the ``families`` (numbers), or those named in ``tables``, of one generation; rules and elements
    only of what is of ``interest``.

    A commit in between repeats the read, unless ``undisturbed(state, generation)`` says that no commit up to that
    generation changed anything in the state. Raises ``UnstableRulesError`` when commits disturb the read for
    ``patience`` seconds.
    """
    clock = clock or Clock(0)
    deadline = clock.monotonic() + patience
    pause, careful = 0.0, False
    state: State | None
    while True:
        before = generation(socket)
        state = None  # that of the try before, if any: two of them at once would take twice the memory
        # a table or set may go away between two dumps, or a dump be torn
        with contextlib.suppress(NotFound, netlink.TornError):
            state = _Read(socket, families, tables, interest, careful).state
        if state is not None:
            after = generation(socket)
            state.generation = before
            if after == before:
                return state
            if undisturbed(state, after):
                state.generation = after
                return state
        if clock.monotonic() > deadline:
            raise UnstableRulesError("read", _SUBJECT, reason=f"it changed all the time for {patience:.0f} s")
        # reading without a pause would slow down the programs that are committing
        clock.sleep(pause)
        pause, careful = min(_MOST_PAUSE_S, 2 * pause + 0.001), not careful


class _Read:
    """One try to read it all. ``careful``: by requests that changes of other chains and sets do not disturb."""

    def __init__(
        self,
        socket: netlink.Socket,
        families: Iterable[int],
        wanted: Collection[str] | None,
        interest: Interest,
        careful: bool,
    ) -> None:
        self.state = State()
        self._socket, self._wanted, self._interest, self._careful = socket, wanted, interest, careful
        for family in families:
            tables = self._heads(family)
            for table in tables.values():
                self._bodies(table)
            self.state.tables.update({(family, name): table for name, table in tables.items()})

    def _stream(self, number: int, family: int, *parts: bytes) -> Iterator[bytes]:
        payload = netlink.nfgenmsg(family) + b"".join(parts)
        for reply in self._socket.stream(
            _kind(number), payload, operation="read", subject=_SUBJECT, torn=self._careful
        ):
            yield reply.payload

    def _heads(self, family: int) -> dict[str, TableState]:
        found: dict[str, TableState] = {}
        for payload in self._stream(wire.GETTABLE, family):
            attributes = netlink.attributes(payload, 4)
            name = netlink.to_text(attributes.get(wire.TABLE_NAME, b""))
            if self._wanted is None or name in self._wanted:
                found[name] = TableState(family, name, is_dormant(attributes))
        if not found:
            return found
        for payload in self._stream(wire.GETCHAIN, family):
            attributes = netlink.attributes(payload, 4)
            table = found.get(netlink.to_text(attributes.get(wire.CHAIN_TABLE, b"")))
            if table is not None:
                chain = chain_of(attributes)
                table.chains[chain.name] = chain
                table.top = max(table.top, chain.handle)
        for payload in self._stream(wire.GETSET, family):
            attributes = netlink.attributes(payload, 4)
            table = found.get(netlink.to_text(attributes.get(wire.SET_TABLE, b"")))
            if table is not None:
                read = SetState.read(attributes)
                table.sets[read.name] = read
        return found

    def _bodies(self, table: TableState) -> None:
        """Read the contents of what is of interest in a table; drop the rest."""
        included = [
            ObjectRef(False, name)
            for name, chain in table.chains.items()
            if self._interest.includes(table.name, name, chain.hook)
        ]
        if self._interest is EVERYTHING:
            included += [ObjectRef(True, name) for name in table.sets]
        if included and not self._careful:
            self._rules(table)
        reached_refs = reachable(included, lambda ref: self._body(table, ref))
        for chain in table.chains.values():
            if ObjectRef(False, chain.name) not in reached_refs:
                chain.drop_content()
        for each in table.sets.values():
            if ObjectRef(True, each.name) not in reached_refs or not self._interest.wants_elements(each):
                each.drop_content()

    def _body(self, table: TableState, ref: ObjectRef) -> Iterable[ObjectRef]:
        """Read the contents of a chain or set, and return what it refers to."""
        found = table.find(ref)
        if isinstance(found, SetState):
            if self._interest.wants_elements(found):
                self._elements(table, found)
        elif found is not None and self._careful:
            self._rules(table, ref.name)
        return () if found is None else table.references(ref)

    def _rules(self, table: TableState, name: str = "") -> None:
        """The rules of a table, or of one of its chains."""
        parts = (netlink.text(wire.RULE_TABLE, table.name), *((netlink.text(wire.RULE_CHAIN, name),) if name else ()))
        for payload in self._stream(wire.GETRULE, table.family, *parts):
            head = wire.rule_head(payload)
            if head.table != table.name:
                continue  # kernels before 4.15 ignore the filter
            chain = table.chains.get(head.chain)
            if chain is None:
                raise NotFound("read", f"chain {head.chain} of {_SUBJECT}")  # created after the chains were read
            if name in ("", head.chain):
                chain.add_references(payload)
                chain.rules.append(head.handle, pack(payload))
            table.top = max(table.top, head.handle)

    def _elements(self, table: TableState, into: SetState) -> None:
        request = netlink.nfgenmsg(table.family) + netlink.text(wire.ELEMENTS_TABLE, table.name)
        most = None if self._interest is EVERYTHING else _MOST_LISTED
        _fill(self._socket, into, request + netlink.text(wire.ELEMENTS_SET, into.name), torn=self._careful, most=most)


class _TooLargeError(Exception):
    """A set has more elements than are read."""


def _fill(socket: netlink.Socket, into: SetState, request: bytes, *, torn: bool, most: int | None) -> None:
    """Read a set's elements, or none if there are too many: the kernel restarts its walk for each part of a dump, so
    that a million elements take a minute. Single elements of such a set are looked up instead (``too_large``)."""

    def lists(stream: Iterable[netlink.Message]) -> Iterator[bytes]:
        size = 0
        for each in stream:
            listed = netlink.attributes(each.payload, 4).get(wire.ELEMENTS_LIST, b"")
            size += len(listed)
            if most is not None and size > most:
                raise _TooLargeError
            yield listed

    # a separate socket: closing it is all that ends a dump early
    with socket.another() as own:
        stream = own.stream(_kind(wire.GETSETELEM), request, operation="read", subject=f"set {into.name}", torn=torn)
        try:
            into.load(lists(stream))
        except _TooLargeError:
            into.drop_as_too_large()


class FetchedObject(NamedTuple):
    """A chain or set, read while the kernel's generation went from ``first`` to ``last``."""

    found: ChainState | SetState
    first: int
    last: int


def read_object(socket: netlink.Socket, key: TableKey, ref: ObjectRef) -> FetchedObject:
    """One chain or set. Raises ``NotFound``, and ``TornError`` when the kernel interrupted the dump."""
    first = generation(socket)
    found: ChainState | SetState | None
    if ref.is_set:
        found = _read_set(socket, key, ref.name)
    else:
        found = read_chain(socket, key, ref.name, torn=True)
        if found is None:
            raise NotFound("read", f"chain {ref.name}")
    return FetchedObject(found, first, generation(socket))


def _read_set(socket: netlink.Socket, key: TableKey, name: str) -> SetState:
    family, table = key
    request = netlink.nfgenmsg(family) + netlink.text(wire.SET_TABLE, table) + netlink.text(wire.SET_NAME, name)
    replies = socket.request(_kind(wire.GETSET), 0, request, operation="read", subject=f"set {name}")
    found = SetState.read(netlink.attributes(replies[0].payload, 4) if replies else {})
    _fill(socket, found, request, torn=True, most=_MOST_LISTED)
    return found


def read_chain(socket: netlink.Socket, key: TableKey, name: str, *, torn: bool = False) -> ChainState | None:
    """One chain with its rules; ``None`` when it does not exist. ``torn``: return it also when rules changed during the
    read."""
    family, table = key
    request = netlink.nfgenmsg(family) + netlink.text(wire.CHAIN_TABLE, table) + netlink.text(wire.CHAIN_NAME, name)
    try:
        replies = socket.request(_kind(wire.GETCHAIN), 0, request, operation="read", subject=f"chain {name}")
    except NotFound:
        return None
    chain = chain_of(netlink.attributes(replies[0].payload, 4)) if replies else ChainState(name)
    # for a chain that does not exist a dump is empty, without an error; so the chain itself is requested first
    rules = netlink.nfgenmsg(family) + netlink.text(wire.RULE_TABLE, table) + netlink.text(wire.RULE_CHAIN, name)
    kind = _kind(wire.GETRULE)
    found: Iterable[netlink.Message] = (
        socket.stream(kind, rules, operation="read", subject=_SUBJECT, torn=True)
        if torn
        else socket.dump(kind, rules, operation="read", subject=_SUBJECT)
    )
    for reply in found:
        chain.add_references(reply.payload)
        chain.rules.append(wire.rule_head(reply.payload).handle, pack(reply.payload))
    return chain


def is_dormant(attributes: dict[int, bytes]) -> bool:
    """Whether a table message says that the table is dormant."""
    return bool(wire.number(attributes.get(wire.TABLE_FLAGS, b"")) & wire.TABLE_DORMANT)


def chain_of(attributes: dict[int, bytes]) -> ChainState:
    """The chain that a message describes, without rules."""
    return ChainState(
        sys.intern(netlink.to_text(attributes.get(wire.CHAIN_NAME, b""))),
        wire.number(attributes.get(wire.CHAIN_HANDLE, b"")),
        wire.hook_of(attributes),
    )
