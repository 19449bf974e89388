"""Only exceptions of this project leave a port of the kernel, whichever a socket, a program or a file raises, and
however the real kernel's answers are damaged."""

from __future__ import annotations

import errno
import itertools
import os
import random
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from tests.kernel.lab.worlds import need, run, up

from hitless import lab
from hitless.errors import HitlessError
from hitless.kernel import ipsets, netlink, processes
from hitless.kernel.addresses import NodeFacts
from hitless.kernel.commits import Commits
from hitless.kernel.conntrack import Conntrack
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import read_ruleset as read_nft
from hitless.kernel.nftables.mirror import Mirror
from hitless.kernel.nftables.owned import OwnedTables
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, confirmed
from hitless.kernel.xtables import read_ruleset as read_legacy
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

NUMBERS = ["ENOSPC", "EIO", "EROFS", "ENOMEM", "EMFILE", "EPERM", "EBADF", "EINTR", "ECONNRESET", "ENODEV", "EINVAL"]
FOREIGN = [
    *(OSError(getattr(errno, name), name) for name in NUMBERS),
    OSError(), ConnectionResetError(), socket.gaierror(1, "x"), subprocess.SubprocessError("x"), MemoryError(),
    RecursionError("x"), ValueError("x"), UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), struct.error("x"),
    OverflowError("x"), IndexError("x"), KeyError("x"), TypeError("x"), msgspec.DecodeError("x"), ssl.SSLError("x"),
    RuntimeError("x"),
]  # fmt: skip
PRIMITIVES = ((socket.socket, "recv_into"), (socket.socket, "send"), (os, "pread"), (subprocess, "Popen"))

V4, V6 = Family.IPV4, Family.IPV6


def conntrack(where: Namespace) -> None:
    with closing(Conntrack(where)) as table:
        for family in Family:
            entries = list(table.dump(family))
            table.delete_all(family, entries[:1])


def facts(where: Namespace) -> None:
    with closing(NodeFacts(where)) as one:
        for family in Family:
            one.addresses(family)
            one.paths(family)
            list(one.routes(family))


def routing(where: Namespace) -> None:
    with RtnetlinkReader(where) as one:
        one.devices()
        for family in Family:
            one.neighbours({}, family, confirmed)
        one.lookup({}, ip_address("192.0.2.1"))


def owned(where: Namespace) -> None:
    with closing(OwnedTables("hitless-ports", where)) as tables:
        tables.available()
        tables.owner(V4)
        tables.counters(V4)
        tables.replace({V4: ()})
        tables.remove()


def commits(where: Namespace) -> None:
    with closing(Commits(where)) as seen:
        list(seen.ready())


def mirror(where: Namespace) -> None:
    with Mirror(where, (V4, V6)) as seen:
        seen.next(0.01)


PORTS: dict[str, Callable[[Namespace], object]] = {
    "connections": conntrack,
    "addresses and routes": facts,
    "links and neighbours": routing,
    "the guard's tables": owned,
    "commits": commits,
    "the mirror": mirror,
    "sets' names": lambda where: ipsets.names([1, 2], where),
    "nf_tables": lambda where: [len(chain.rules) for t in read_nft(where).tables for chain in t.chains.values()],
    "legacy tables": read_legacy,
    "a program": lambda where: processes.run(["nft", "list", "ruleset"], namespace=where),
    "a program that goes on": lambda where: processes.start(["true"], namespace=where).wait(),
}


@contextmanager
def node() -> Iterator[Namespace]:
    plan = lab.LabPlan(nodes=1, pods_per_node=1)
    need(plan)
    with up(plan) as cluster:
        yield cluster.nodes[0].namespace


def failing(old: Callable[..., Any], error: Exception, after: int) -> Callable[..., Any]:
    uses = 0

    def fails(*arguments: Any, **more: Any) -> Any:
        nonlocal uses
        uses += 1
        if uses > after:
            raise error
        return old(*arguments, **more)

    return fails


def test_only_errors_of_ours_leave_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each primitive below the ports fails in each way, at its first use or at a later one."""
    reached = set()
    with node() as where:
        for (at, error), (target, name) in itertools.product(enumerate(FOREIGN), PRIMITIVES):
            for port, use in PORTS.items():
                if ("program" in port) != (target is subprocess):
                    continue
                with monkeypatch.context() as patched:
                    patched.setattr(target, name, failing(getattr(target, name), error, (0, 2)[at % 2]))
                    try:
                        use(where)
                    except HitlessError:
                        reached.add(port)
    assert reached >= PORTS.keys() - {"commits"}, "a port was never reached"


def test_damaged_answers_of_the_kernel_are_errors_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of real answers are changed after their headers: the result is another rule, or an exception of ours."""
    chance = random.Random(11)
    receive: Callable[..., bytes | None] = netlink.Socket.receive
    refused = 0

    def damaged(self: netlink.Socket, *, wait: bool = True) -> bytes | None:
        data = receive(self, wait=wait)
        if data is None:
            return None
        found, offset = bytearray(data), 0
        while offset + 16 <= len(found):
            length = int.from_bytes(found[offset : offset + 4], "little")
            for _ in range(chance.choice((0, 0, 1, 3))):
                if length > 20:
                    found[offset + chance.randrange(20, length)] = chance.choice(
                        (0, 1, 4, 127, 255, chance.randrange(256))
                    )
            offset += (length + 3) & ~3
        return bytes(found)

    with node() as where:
        run(where, "iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-s", "10.0.0.0/8", "-j", "MASQUERADE")
        run(where, "nft", "add table ip t; add set ip t s { type ipv4_addr; elements = { 10.0.0.1 } }")
        run(where, "nft", "add chain ip t c; add rule ip t c ip saddr @s accept")
        monkeypatch.setattr(netlink.Socket, "receive", damaged)
        for _ in range(40):
            for use in (PORTS["nf_tables"], facts, routing, commits, owned, PORTS["connections"]):
                try:
                    use(where)
                except HitlessError:
                    refused += 1
    assert refused > 10
