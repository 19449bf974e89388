"""After a gap: when do the flows that were bound in it work again, and was any other connection touched?

The agent is held still (SIGSTOP) while the chain is flushed and pods begin flows of UDP and TCP, which get a binding
without translation; then it goes on. UDP flows send all the time: measured is the last packet of each that was not
answered, from the moment at which the rules were back (as ``hitless watch`` saw their commit). Every other
entry of the connection table must be there afterwards, with the same id. Part of bench/agent.py.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.parts.agent_lab import CLOCK, Agent, Echo, sock, watch

from hitless.kernel import processes
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Conntrack, Entry
from hitless.lab import building
from hitless.lab.building import Lab
from hitless.lab.plans import LabPlan
from hitless.lab.saboteurs import FAULTS, SabotageTarget
from hitless.model.families import Address, Backend, Family

_PORT = 9000
_KNOCK = 0.02
_BOUND = 200.0


class Knocker:
    """UDP flows that send a packet each ``every`` seconds, with its time in it."""

    def __init__(self, flows: list[tuple[socket.socket, tuple[str, int]]], every: float = _KNOCK) -> None:
        self._flows, self._every = flows, every
        self.sent: list[list[int]] = [[] for _ in flows]
        self.answered: list[set[int]] = [set() for _ in flows]
        self._open = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poll = select.epoll()
        numbers = {}
        for number, (one, _) in enumerate(self._flows):
            one.setblocking(False)
            poll.register(one, select.EPOLLIN)
            numbers[one.fileno()] = number
        due = time.monotonic()
        while self._open:
            for number, (one, to) in enumerate(self._flows):
                now = CLOCK.now()
                one.sendto(struct.pack("=Q", now), to)
                self.sent[number].append(now)
            due += self._every
            while (left := due - time.monotonic()) > 0:
                for fd, _ in poll.poll(left):
                    number = numbers[fd]
                    data = self._flows[number][0].recv(8)
                    self.answered[number].add(struct.unpack("=Q", data)[0])
        poll.close()

    def end(self) -> None:
        """Stop; the last packets may be under way."""
        self._open = False
        self._thread.join()

    def last_unanswered(self, until: int) -> list[int]:
        """For each flow, when the last unanswered packet was sent; 0: all were answered."""
        return [
            max((t for t in sent if t < until and t not in answered), default=0)
            for sent, answered in zip(self.sent, self.answered, strict=True)
        ]


def entries(lab: Lab) -> dict[bytes, Entry]:
    """The node's connection table."""
    table = Conntrack(lab.nodes[0].namespace)
    found = {entry.key: entry for family in Family for entry in table.dump(family)}
    table.close()
    return found


def _bound_bare(entry: Entry, pod: dict[Family, Address], far: dict[Family, Address]) -> bool:
    bare = not entry.status & (SEEN_REPLY | SRC_NAT)
    return bare and entry.original.src in pod.values() and entry.original.dst in far.values()


def heal(backend: Backend, rounds: int, require: Callable[[bool, str], None], flows: int = 25) -> None:
    """Some rounds, in both families."""
    worst: list[float] = []
    slowest_connect = 0.0
    wrong: list[str] = []
    freed = 0
    with building.up(LabPlan(family="dual", backend=backend, pods_per_node=2, services=50)) as lab:
        # entries of an earlier round must not end by themselves: that would look like a touch
        lasting = [f"net.netfilter.nf_conntrack_{name}=600" for name in ("udp_timeout", "udp_timeout_stream")]
        processes.run(["sysctl", "-q", "-w", *lasting], namespace=lab.nodes[0].namespace)
        agent = Agent(lab)
        watching = watch(lab, tuple(Family))
        far = {family: lab.far_end.addresses[family][0] for family in Family}
        pod = {family: lab.pods[0].addresses[family] for family in Family}
        echoes = [Echo(lab.far_end.namespace, far[family], _PORT) for family in Family]
        echoes += [Echo(lab.pods[1].namespace, lab.pods[1].addresses[family], _PORT) for family in Family]
        echoes += [Echo(lab.nodes[0].namespace, lab.nodes[0].addresses[family], _PORT) for family in Family]
        try:
            for _ in range(rounds):
                spans, connects, touched, number = _round(lab, agent, watching.events, pod, far, flows)
                worst += spans
                slowest_connect = max(slowest_connect, connects)
                wrong += touched
                freed += number
                time.sleep(3.5)  # not so fast that it is answered as a fight
        finally:
            for echo in echoes:
                echo.close()
            watching.end()
            agent.end(signal.SIGTERM)
    worst.sort()
    print(
        f"  {backend.value}: {rounds} gaps, {len(worst)} UDP flows, {freed} entries freed; last unanswered packet after"
    )
    print(f"    the rules were back: p50 {worst[len(worst) // 2]:.1f} ms, p99 {worst[int(len(worst) * 0.99)]:.1f} ms")
    require(worst[-1] <= _BOUND, f"{backend.value}: every flow works {worst[-1]:.1f} ms after the rules (asked: 200)")
    require(
        slowest_connect < 1.6,
        f"{backend.value}: TCP connects of the gap stood after {slowest_connect:.2f} s (retry: 1 s)",
    )
    require(not wrong, f"{backend.value}: {len(wrong)} other connections touched (asked: 0){wrong[:3] or ''}")


def _round(
    lab: Lab,
    agent: Agent,
    seen: list[dict[str, Any]],
    pod: dict[Family, Address],
    far: dict[Family, Address],
    flows: int,
) -> tuple[list[float], float, list[str], int]:
    """One gap: how long each flow went unanswered, the slowest connect, what else was touched, how many were freed."""
    first, node = lab.pods[0].namespace, lab.nodes[0]
    made: list[socket.socket] = []

    def udp(family: Family) -> socket.socket:
        made.append(sock(first, pod[family]))
        return made[-1]

    # healthy flows: to the far end (translated), to the neighbour and to the node itself (rightly not); the node's own
    other = [(udp(family), (str(far[family]), _PORT)) for family in Family for _ in range(20)]
    other += [(udp(family), (str(lab.pods[1].addresses[family]), _PORT)) for family in Family for _ in range(5)]
    other += [(udp(family), (str(node.addresses[family]), _PORT)) for family in Family for _ in range(5)]
    own = [sock(node.namespace, node.addresses[family]) for family in Family]
    made += own
    other += [(one, (str(far[family]), _PORT)) for one, family in zip(own, Family, strict=True)]
    healthy = Knocker(other, 0.1)
    time.sleep(0.2)
    known = len(seen)
    agent.process.send_signal(signal.SIGSTOP)
    FAULTS["flush-chain"](SabotageTarget.of(lab.cluster, node)).act()
    knocker = Knocker([(udp(family), (str(far[family]), _PORT)) for family in Family for _ in range(flows)])
    began = time.monotonic()
    connects = [(family, sock(first, pod[family], 0, socket.SOCK_STREAM)) for family in Family for _ in range(20)]
    for family, one in connects:
        one.setblocking(False)
        one.connect_ex((str(far[family]), _PORT))
    time.sleep(0.25)
    before = entries(lab)
    bare = {key for key, entry in before.items() if _bound_bare(entry, pod, far)}
    agent.process.send_signal(signal.SIGCONT)
    slowest = 0.0
    waiting = [one for _, one in connects]
    while waiting and time.monotonic() - began < 4.0:
        _, done, _ = select.select([], waiting, [], 0.1)
        for one in done:
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                slowest = max(slowest, time.monotonic() - began)
            waiting.remove(one)
    slowest = 99.0 if waiting else slowest
    until = CLOCK.now()
    time.sleep(0.3)
    knocker.end()
    healthy.end()
    after = entries(lab)
    gaps = [event for event in seen[known:] if event["type"] == "gap"]
    back = {event["family"]: event["end"] for event in gaps}
    families = [family for family in Family for _ in range(flows)]
    spans = [
        max(0.0, (last - back[family.value]) / 1e6) if last else 0.0
        for last, family in zip(knocker.last_unanswered(until), families, strict=True)
    ]
    touched = [f"{before[key].original}" for key in before.keys() - after.keys() - bare]
    for one in (*made, *(one for _, one in connects)):
        one.close()
    return spans, slowest, touched, len(bare - after.keys())
