"""Source ports: each attempt has a new 5-tuple.

Problem: a 5-tuple that is used again meets the conntrack entry of its last use: a poisoned entry lives up to 120 s, and
an existing NAT binding hides a gap. Promise: a 5-tuple is used again only after all others of its destination, *and*
after ``REUSE_NS``; otherwise none is returned, and the caller skips and counts. Source ports increase one by one, so
that consecutive attempts never share one; with several destination ports, each pass over the source ports combines them
differently. Pure: the caller passes the time. Next stage: the clients bind to them.
"""

from __future__ import annotations

from collections import deque

__all__ = ["FIRST_PORT", "LAST_PORT", "REUSE_NS", "Tuples", "fastest"]

REUSE_NS = 130_000_000_000
"""nf_conntrack_tcp_timeout_syn_sent and nf_conntrack_udp_timeout_stream are 120 s: longer than either."""

FIRST_PORT, LAST_PORT = 10240, 65535
"""Wider than the kernel's ephemeral range (32768-60999), and above the ports that services usually listen on."""

_BLOCK = 1024  # one time is stored for so many 5-tuples: 54 numbers instead of 55,296


class Tuples:
    """The (source port, destination port) pairs of one source and destination address."""

    def __init__(
        self,
        destination_ports: tuple[int, ...],
        *,
        first: int = FIRST_PORT,
        last: int = LAST_PORT,
        start: int = 0,
        reuse_ns: int = REUSE_NS,
    ) -> None:
        self._ports = destination_ports
        self._first = first
        self._span = last - first + 1
        self._start = start % self._span
        self._reuse = reuse_ns
        self._block = min(_BLOCK, self.capacity)
        self._taken = 0
        self._blocks: deque[int] = deque()  # when the last pair of a block was taken, from block ``_forgotten`` on
        self._forgotten = 0

    @property
    def capacity(self) -> int:
        """How many different pairs there are."""
        return self._span * len(self._ports)

    def take(self, now: int) -> tuple[int, int] | None:
        """The next pair, or ``None`` if it was used too recently."""
        number = self._taken
        if number % self._block == 0 and not self._rested(number, now):
            return None
        self._taken = number + 1
        if self._taken % self._block == 0:
            self._blocks.append(now)
        place = self._start + number
        step, lap = place % self._span, place // self._span
        return self._first + step, self._ports[(step + lap) % len(self._ports)]

    def _rested(self, number: int, now: int) -> bool:
        """Whether all pairs of the block that begins with ``number`` may be used (again)."""
        earlier = number + self._block - 1 - self.capacity  # the previous use of this block's last pair
        if earlier < 0:
            return True
        block = earlier // self._block
        while self._forgotten < block:
            self._blocks.popleft()
            self._forgotten += 1
        return now - self._blocks[0] >= self._reuse


def fastest(destination_ports: int, *, first: int = FIRST_PORT, last: int = LAST_PORT) -> float:
    """The highest rate per second for which there are always enough 5-tuples."""
    return (last - first + 1) * destination_ports / (REUSE_NS / 1e9)
