"""A kernel's nf_tables as netlink shows them: it answers dumps, announces commits, and time is its own.

What it says of a table, chain, rule, set and element has the form of the real kernel's messages
(tests/kernel/nftables/test_wire_kernel.py compares). A test can put things in between: ``meanwhile`` runs before the
answer to a request, ``events`` may hold an error in place of a datagram, and only a test lets time pass.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hitless.errors import EventsLostError, KernelError, NotFound
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.mirror import Sockets
from hitless.kernel.nftables.receiving import Received, Receiver

IP = 2
_KINDS = {"prerouting": 0, "forward": 2, "postrouting": 4}
_IN_A_DATAGRAM = 4


def kind(number: int) -> int:
    return wire.SUBSYSTEM << 8 | number


def verdict(code: int, to: str = "") -> bytes:
    """The data of a verdict: 0 drop, 1 accept, -3 jump, -4 goto, -5 return."""
    words = netlink.be32(wire.VERDICT_CODE, code) + (netlink.text(wire.VERDICT_CHAIN, to) if to else b"")
    return netlink.attribute(wire.DATA_VERDICT, words)  # nft_verdict_dump sets no flag for what is nested


def expression(name: str, *parts: bytes) -> bytes:
    data = netlink.attribute(wire.EXPRESSION_DATA, b"".join(parts))  # no flag for what is nested: nla_nest_start_noflag
    return netlink.attribute(1, netlink.text(wire.EXPRESSION_NAME, name) + data)


def ends(code: int, to: str = "") -> bytes:
    """The expression of a rule that ends with this verdict."""
    return expression("immediate", netlink.be32(1, 0), netlink.attribute(2, verdict(code, to)))


_SOURCE = expression("payload", netlink.be32(1, 1), netlink.be32(2, 1), netlink.be32(3, 12), netlink.be32(4, 4))


def source(address: bytes) -> bytes:
    """The expressions of ``ip saddr``."""
    value = netlink.attribute(3, netlink.attribute(wire.DATA_VALUE, address))
    return _SOURCE + expression("cmp", netlink.be32(1, 1), netlink.be32(2, 0), value)


def looks_up(name: str, *, gives_verdict: bool = False) -> bytes:
    """The expressions of ``ip saddr @name``, and of ``ip saddr vmap @name``."""
    parts = [netlink.text(1, name), netlink.be32(2, 1), *([netlink.be32(3, 0)] if gives_verdict else [])]
    return _SOURCE + expression("lookup", *parts, netlink.be32(5, 0))


@dataclass
class _Table:
    flags: int = 0
    chains: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    rules: dict[str, dict[int, bytes]] = field(default_factory=dict)
    sets: dict[str, bytes] = field(default_factory=dict)
    elements: dict[str, dict[bytes, bytes]] = field(default_factory=dict)


class VirtualClock(Clock):
    """Time passes when somebody sleeps or waits; what was planned happens then."""

    def __init__(self) -> None:
        super().__init__(0)
        self.seconds = 1000.0
        self._planned: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def at(self, after: float, action: Callable[[], None]) -> None:
        """Do it when so many seconds have passed."""
        self._planned.append((self.seconds + after, action))

    def sleep(self, seconds: float) -> None:
        self.until(self.seconds + seconds)

    def until(self, end: float, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until then, or until ``stop`` after something that was planned."""
        while not stop():
            due = min(self._planned, key=lambda one: one[0], default=None)
            if due is None or due[0] > end:
                self.seconds = max(self.seconds, end)
                return
            self._planned.remove(due)
            self.seconds = max(self.seconds, due[0])
            due[1]()


class WireKernel:
    """Tables of family ip. Each method is a part of the transaction that ``commit`` ends."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.generation = 1
        self.handle = 0
        self.tables: dict[str, _Table] = {}
        self.events: deque[bytes | Exception] = deque()
        self.meanwhile: dict[int, list[Callable[[], None]]] = {}
        self.refused: dict[int, list[Exception]] = {}
        self.asked: list[int] = []
        self.torn = 0  # so many dumps end in the middle
        self.deaf = False  # nobody takes the events in
        self._open: list[bytes] = []

    # --- what others write

    def _say(self, number: int, payload: bytes, flags: int = 0) -> None:
        self._open.append(netlink.message(kind(number), flags, 0, netlink.nfgenmsg(IP) + payload))

    def _next(self) -> int:
        self.handle += 1
        return self.handle

    def table(self, name: str, *, dormant: bool = False) -> WireKernel:
        self.tables.setdefault(name, _Table()).flags = int(dormant)
        self._say(wire.NEWTABLE, self._table(name))
        return self

    def delete_table(self, name: str) -> WireKernel:
        table = self.tables.pop(name)
        for chain, rules in table.rules.items():
            for handle in rules:
                self._say(wire.DELRULE, _of(wire.RULE_TABLE, name, chain) + netlink.be64(wire.RULE_HANDLE, handle))
        for chain in table.chains:
            self._say(wire.DELCHAIN, table.chains[chain][1])
        for one in table.sets.values():
            self._say(wire.DELSET, one)
        self._say(wire.DELTABLE, netlink.text(wire.TABLE_NAME, name) + netlink.be32(wire.TABLE_FLAGS, table.flags))
        return self

    def chain(self, table: str, name: str, hook: str = "", priority: int = 0, policy: int = 1) -> WireKernel:
        handle = self._next()
        parts = [netlink.text(wire.CHAIN_TABLE, table), netlink.be64(wire.CHAIN_HANDLE, handle)]
        parts.append(netlink.text(wire.CHAIN_NAME, name))
        if hook:
            at = netlink.be32(wire.HOOK_NUMBER, _KINDS[hook]) + netlink.be32(wire.HOOK_PRIORITY, priority)
            parts += [netlink.attribute(wire.CHAIN_HOOK, at), netlink.be32(wire.CHAIN_POLICY, policy)]
            parts.append(netlink.text(wire.CHAIN_TYPE, "filter"))
        self.tables[table].chains[name] = handle, b"".join(parts)
        self.tables[table].rules[name] = {}
        self._say(wire.NEWCHAIN, b"".join(parts))
        return self

    def delete_chain(self, table: str, name: str) -> WireKernel:
        self.flush(table, name)
        del self.tables[table].rules[name]
        self._say(wire.DELCHAIN, self.tables[table].chains.pop(name)[1])
        return self

    def rename_chain(self, table: str, old: str, new: str) -> WireKernel:
        """What the events tell of this cannot be followed."""
        chains, rules = self.tables[table].chains, self.tables[table].rules
        handle, payload = chains.pop(old)
        chains[new] = handle, payload.replace(
            netlink.text(wire.CHAIN_NAME, old), netlink.text(wire.CHAIN_NAME, new)
        )  # fmt: skip
        kept = rules.pop(old)
        rules[new] = {}
        for at, one in kept.items():
            rules[new][at] = one.replace(_of(wire.RULE_TABLE, table, old), _of(wire.RULE_TABLE, table, new))
        self._say(wire.NEWCHAIN, chains[new][1])
        return self

    def rule(self, table: str, chain: str, *expressions: bytes) -> int:
        handle = self._next()
        payload = _of(wire.RULE_TABLE, table, chain) + netlink.be64(wire.RULE_HANDLE, handle)
        payload += netlink.attribute(wire.RULE_EXPRESSIONS, b"".join(expressions))
        self.tables[table].rules[chain][handle] = payload
        self._say(wire.NEWRULE, payload, netlink.CREATE | netlink.APPEND)
        return handle

    def delete_rule(self, table: str, chain: str, handle: int) -> WireKernel:
        del self.tables[table].rules[chain][handle]
        self._say(wire.DELRULE, _of(wire.RULE_TABLE, table, chain) + netlink.be64(wire.RULE_HANDLE, handle))
        return self

    def flush(self, table: str, chain: str) -> WireKernel:
        for handle in list(self.tables[table].rules[chain]):
            self.delete_rule(table, chain, handle)
        return self

    def set(self, table: str, name: str, flags: int = 0, size: int = 0) -> WireKernel:
        parts = [_of(wire.SET_TABLE, table, name), netlink.be32(wire.SET_FLAGS, flags)]
        parts += [netlink.be32(wire.SET_KEY_TYPE, 7), netlink.be32(wire.SET_KEY_LENGTH, 4)]
        if flags & wire.SET_MAP:
            parts.append(netlink.be32(wire.SET_DATA_TYPE, wire.DATA_VERDICTS))
        if size:
            parts.append(netlink.attribute(wire.SET_DESC, netlink.be32(wire.SET_DESC_SIZE, size)))
        payload = b"".join(parts) + netlink.be64(wire.SET_HANDLE, self._next())
        self.tables[table].sets[name], self.tables[table].elements[name] = payload, {}
        self._say(wire.NEWSET, payload)
        return self

    def delete_set(self, table: str, name: str) -> WireKernel:
        del self.tables[table].elements[name]
        self._say(wire.DELSET, self.tables[table].sets.pop(name))
        return self

    def element(self, table: str, name: str, key: bytes, to: str = "") -> WireKernel:
        data = netlink.attribute(wire.ELEMENT_DATA, verdict(-3, to)) if to else b""
        held = netlink.attribute(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, key))
        one = netlink.attribute(1, held + data)
        self.tables[table].elements[name][key] = one
        listed = netlink.nested(wire.ELEMENTS_LIST, one)
        self._say(wire.NEWSETELEM, _of(wire.ELEMENTS_TABLE, table, name) + listed)
        return self

    def delete_element(self, table: str, name: str, key: bytes) -> WireKernel:
        listed = netlink.nested(wire.ELEMENTS_LIST, self.tables[table].elements[name].pop(key))
        self._say(wire.DELSETELEM, _of(wire.ELEMENTS_TABLE, table, name) + listed)
        return self

    def commit(self, pid: int = 0, comm: str = "writer", *, silent: bool = False) -> int:
        """End the transaction; ``silent``: the kernel forgets to say so. The generation that it makes."""
        parts, self._open = self._open, []
        self.generation = self.generation % 0xFFFFFFFF + 1
        if not silent:
            for begin in range(0, len(parts), _IN_A_DATAGRAM):
                self.events.append(b"".join(parts[begin : begin + _IN_A_DATAGRAM]))
            self.events.append(self._newgen(pid, comm))
        return self.generation

    def _newgen(self, pid: int, comm: str) -> bytes:
        payload = netlink.nfgenmsg(0) + netlink.be32(wire.GEN_ID, self.generation)
        payload += netlink.be32(wire.GEN_PID, pid) + netlink.text(wire.GEN_NAME, comm)
        return netlink.message(kind(wire.NEWGEN), 0, 0, payload)

    def lose(self) -> None:
        """The receive buffer was full: what waits there goes on, and all behind it is dropped until it is empty."""
        self.events.append(EventsLostError("receive from", "netlink socket", errno.ENOBUFS))

    # --- what it answers

    def _table(self, name: str) -> bytes:
        return netlink.text(wire.TABLE_NAME, name) + netlink.be32(wire.TABLE_FLAGS, self.tables[name].flags)

    def answer(self, number: int, payload: bytes) -> list[bytes]:
        """The payloads of a dump, or of one object where it is named. Raises ``NotFound``."""
        asked = netlink.attributes(payload, 4)
        table, name = (netlink.to_text(asked.get(part, b"")) for part in (1, 2))
        if number == wire.GETGEN:
            return [netlink.be32(wire.GEN_ID, self.generation)]
        tables = {key: each for key, each in self.tables.items() if table in ("", key)}
        if payload[:1] != bytes([IP]):
            return []
        if number == wire.GETTABLE:
            return [self._table(each) for each in tables]
        if number == wire.GETCHAIN:
            name = netlink.to_text(asked.get(wire.CHAIN_NAME, b""))
            return self._named([{key: one[1] for key, one in each.chains.items()} for each in tables.values()], name)
        if number == wire.GETSET:
            return self._named([each.sets for each in tables.values()], name)
        if number == wire.GETRULE:
            return [
                one
                for each in tables.values()
                for chain, rules in each.rules.items()
                if name in ("", chain)
                for one in rules.values()
            ]
        assert number == wire.GETSETELEM
        if table not in self.tables or name not in self.tables[table].elements:
            raise NotFound("read", f"set {name}", errno.ENOENT)
        head = _of(wire.ELEMENTS_TABLE, table, name)
        elements = list(self.tables[table].elements[name].values())
        pieces = [elements[begin : begin + 3] for begin in range(0, len(elements), 3)]
        return [head + netlink.nested(wire.ELEMENTS_LIST, *piece) for piece in pieces]

    def _named(self, found: list[dict[str, bytes]], name: str) -> list[bytes]:
        if not name:
            return [one for each in found for one in each.values()]
        if any(name in each for each in found):
            return [each[name] for each in found if name in each]
        raise NotFound("read", name, errno.ENOENT)


def _of(first: int, table: str, name: str) -> bytes:
    return netlink.text(first, table) + netlink.text(first + 1, name)


class WireControl:
    """A socket for requests."""

    def __init__(self, kernel: WireKernel) -> None:
        self._kernel = kernel
        self.namespace = HERE
        self.open = True

    def another(self) -> WireControl:
        return WireControl(self._kernel)

    def __enter__(self) -> WireControl:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.open = False

    def _asked(self, number: int, payload: bytes) -> list[netlink.Message]:
        kernel, what = self._kernel, number & 0xFF
        kernel.asked.append(what)
        for action in [kernel.meanwhile[what].pop(0)] if kernel.meanwhile.get(what) else []:
            action()
        if kernel.refused.get(what):
            raise kernel.refused[what].pop(0)
        family = payload[:4]
        return [netlink.Message(number, 0, 0, 0, family + one) for one in kernel.answer(what, payload)]

    def request(self, number: int, flags: int, payload: bytes, **_: str) -> list[netlink.Message]:
        return self._asked(number, payload)

    def stream(
        self, number: int, payload: bytes, *, operation: str, subject: str, torn: bool = False
    ) -> Iterator[netlink.Message]:
        before = self._kernel.generation
        yield from self._asked(number, payload)
        if self._kernel.torn:
            self._kernel.torn -= 1
            raise netlink.TornError(operation, subject, errno.EINTR)
        if self._kernel.generation != before and not torn:
            raise netlink.TornError(operation, subject, errno.EINTR)

    def dump(self, number: int, payload: bytes, *, operation: str, subject: str) -> list[netlink.Message]:
        for _ in range(16):
            try:
                return list(self.stream(number, payload, operation=operation, subject=subject))
            except netlink.TornError:
                continue
        raise KernelError(operation, subject, errno.EINTR)


class WireEvents:
    """A socket for events."""

    def __init__(self, kernel: WireKernel) -> None:
        self._kernel = kernel
        self.open = True

    def receive(self, *, wait: bool = True) -> bytes | None:
        found = self._kernel.events.popleft() if self._kernel.events else None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self.open = False


class Turns(Receiver):
    """A receiver without a thread: it takes in what there is whenever somebody waits for it."""

    def __init__(self, kernel: WireKernel, *, collapse: bool) -> None:
        self.events = WireEvents(kernel)
        self._kernel = kernel
        super().__init__(self.events, kernel.clock, collapse=collapse)  # type: ignore[arg-type]

    def start(self) -> None:
        pass

    def turn(self) -> None:
        """What its thread does until nothing is left."""
        try:
            while not self._kernel.deaf and self._take_in(lambda: 0):
                pass
        except Exception as error:  # noqa: BLE001 - as the thread does
            self._failed(error)

    def take(self, timeout: float | None) -> Received | None:
        assert timeout is not None, "nothing would ever come"
        self.turn()
        if self.queue.empty():
            clock = self._kernel.clock
            clock.until(clock.seconds + timeout, stop=self._something)
        return None if self.queue.empty() else super().take(0)

    def _something(self) -> bool:
        self.turn()
        return not self.queue.empty()

    def caught_up(self, generation: int, patience: float) -> bool:
        self.turn()
        if super().caught_up(generation, 0):
            return True
        self._kernel.clock.sleep(patience)
        self.turn()
        return super().caught_up(generation, 0)


class WireSockets(Sockets):
    """What a mirror of this kernel is given."""

    def __init__(self, kernel: WireKernel) -> None:
        super().__init__(HERE)
        self.kernel = kernel
        self.controls: list[WireControl] = []
        self.receivers: list[Turns] = []
        self.refuses: Exception | None = None

    def control(self) -> netlink.Socket:
        self.controls.append(WireControl(self.kernel))
        return self.controls[-1]  # type: ignore[return-value]

    def receiver(self, clock: Clock, receive_buffer: int, *, urgent: bool, collapse: bool) -> Receiver:
        if self.refuses is not None:
            raise self.refuses
        self.receivers.append(Turns(self.kernel, collapse=collapse))
        return self.receivers[-1]
