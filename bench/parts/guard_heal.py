"""Poisoned flows until they work again, and healthy ones that were touched. Part of bench/guard.py."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from bench.parts.guard_bounds import folder, require
from tests.kernel.guard.guarded import HANG, World, world

from hitless.kernel import namespaces, processes
from hitless.kernel.conntrack import Conntrack, Entry
from hitless.model.families import Family


def heal(flows: int, healthy: int) -> None:
    print(f"heal: {flows} poisoned flows of each kind, {healthy} healthy ones; the agent's rules come back")
    for family in Family:
        with poisoned_node(family, healthy) as made:
            bad = [made.udp(family) for _ in range(flows)]
            for sender in bad:
                sender.send(b"x")
                sender.setblocking(False)
            kept = untouched(made, family, bad)
            back = restored(made, family)
            times = answers(bad)
            words = f"{family.value}: {len(times)} of {flows} datagram flows work again"
            require(len(times) == flows, words)
            late = (max(times, default=0) - back(made)) / 1e6
            require(late <= 200, f"{family.value}: the last {late:.0f} ms after the agent's rules were back")
            touched = len(kept - entries(made, family).keys())
            require(touched == 0, f"{family.value}: {touched} of {len(kept)} healthy or foreign entries touched")
            for sender in bad:
                sender.close()
    with poisoned_node(Family.IPV4, 10) as made:
        connections(made, flows // 5)


def connections(made: World, number: int) -> None:
    """TCP connects that were begun in the gap: each gets through with its next SYN."""
    target = (str(made.cluster.far_end.address), 9)
    tries: list[tuple[socket.socket, float]] = []
    for _ in range(number):
        sender = namespaces.inside(made.pod.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sender.setblocking(False)
        with suppress(BlockingIOError):
            sender.connect(target)
        tries.append((sender, time.time()))
    restored(made, Family.IPV4)
    waiting = select.epoll()
    begun = {sender.fileno(): at for sender, at in tries}
    for number_ in begun:
        waiting.register(number_, select.EPOLLOUT)
    took: dict[int, float] = {}
    deadline = time.monotonic() + 8
    while len(took) < number and time.monotonic() < deadline:
        for number_, event in waiting.poll(0.5):
            waiting.unregister(number_)
            took[number_] = time.time() - begun[number_] if not event & select.EPOLLERR else 99.0
    waiting.close()
    # Linux repeats a SYN after one second; rules were back well before
    require(
        len(took) == number and max(took.values()) < 1.5,
        f"{len(took)} of {number} TCP connects begun in the gap got through, the last {max(took.values()):.2f} s after "
        "its first SYN (the second SYN goes out after 1 s)",
    )
    for sender, _ in tries:
        sender.close()


@contextmanager
def poisoned_node(family: Family, healthy: int) -> Iterator[World]:
    """A node with healthy flows and others that look like poisoned ones, in a gap, with a guard that came too late."""
    with folder() as there, world(there, pods=1, family="dual") as made:
        made.agent("flannel-0.28", "--resync", "3600")
        program = f"{family.iptables}-nft"
        saved = made.on_node(f"{program}-save", "-t", "nat").splitlines()
        lines = ["*nat", *(line for line in saved if line.startswith("-A FLANNEL-POSTRTG")), "COMMIT", ""]
        (there / "rules").write_text("\n".join(lines))
        far = processes.start(
            [sys.executable, "-c", _ECHO, str(made.cluster.far_end.addresses[family][0])],
            namespace=made.cluster.far_end.namespace,
            stdout=processes.PIPE,
        )
        made.started.append(far)
        assert far.stdout is not None
        assert far.stdout.readline() == b"up\n"
        good = [made.udp(family) for _ in range(healthy)]
        for sender in good:  # one at a time: a burst would be dropped on its way
            sender.settimeout(HANG)
            sender.send(b"x")
            sender.recv(16)
        made.on_node(program, "-t", "nat", "-F", "FLANNEL-POSTRTG")
        # never answered, not translated, and right so: to a pod that is not there, and to the node itself
        alike = [made.udp(family, connect=False) for _ in range(200)]
        pods = made.cluster.plan.network(family)
        for sender in alike:
            for target in (pods[0x777], made.node.addresses[family]):
                with suppress(OSError):
                    sender.sendto(b"x", (str(target), 9))
        made.guard()
        yield made
        for sender in (*good, *alike):
            sender.close()


def entries(made: World, family: Family) -> dict[bytes, Entry]:
    table = Conntrack(made.node.namespace)
    try:
        return {entry.key: entry for entry in table.dump(family)}
    finally:
        table.close()


def untouched(made: World, family: Family, bad: list[socket.socket]) -> set[bytes]:
    """Every entry of a pod but those of the poisoned flows."""
    ports = {sender.getsockname()[1] for sender in bad}
    pods = made.cluster.plan.network(family)
    return {
        key
        for key, entry in entries(made, family).items()
        if entry.original.src in pods and not (entry.original.sport in ports and entry.reply.dst == entry.original.src)
    }


def restored(made: World, family: Family) -> Callable[[World], int]:
    """Put the agent's rules back; returns a question for the moment at which the kernel had them (Unix ns)."""
    made.on_node(f"{family.iptables}-nft-restore", "--noflush", str(made.folder / "rules"))
    return lambda made: int(
        next(each["t"] for each in made.records("followed") if each["family"] == family.value and each.get("writer"))
    )


def answers(bad: list[socket.socket]) -> list[int]:
    """Knock on each flow every few milliseconds until it is answered; when each was (Unix ns)."""
    waiting = select.epoll()
    open_ = {sender.fileno(): sender for sender in bad}
    for number in open_:
        waiting.register(number, select.EPOLLIN)
    times: list[int] = []
    deadline = time.monotonic() + 5
    while open_ and time.monotonic() < deadline:
        for sender in list(open_.values()):
            with suppress(OSError):
                sender.send(b"again")
        for number, _ in waiting.poll(0.005, len(bad)):
            times.append(time.time_ns())
            waiting.unregister(number)
            del open_[number]
    waiting.close()
    return times


_ECHO = """
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
d = socket.socket(family, socket.SOCK_DGRAM)
d.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
d.bind((sys.argv[1], 9))
s = socket.create_server((sys.argv[1], 9), family=family, backlog=4096)
def accept():
    kept = []
    while True: kept.append(s.accept())
threading.Thread(target=accept, daemon=True).start()
print("up", flush=True)
while True:
    data, back = d.recvfrom(64)
    try: d.sendto(data, back)
    except OSError: pass
"""
