"""Long-lived TCP streams: opened once, and expected to stay open.

Problem: established connections should survive a restart (their binding is in conntrack), and a few of them show
whether they do. Promise: each stream sends a message every 50 ms to the far end's echo and tracks which came back. A
reset, an end, or a stall as long as the timeout (in time that the prober was awake) is a ``StreamBreak``, and the
stream is opened again, at most once a second. Openings are attempts of kind ``stream``. The totals have the longest
stall that was not a break. Next stage: ``hitless.evidence``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections import deque
from collections.abc import Sequence

from hitless.model.events import StreamBreak
from hitless.probe.engine import Delay, Engine
from hitless.probe.flows import Lane, NoTuple, ProbeFlow
from hitless.probe.outcomes import Outcomes
from hitless.probe.tcp import syn_retries

__all__ = ["PERIOD_NS", "Streams"]

PERIOD_NS = 50_000_000
_MESSAGE = 16  # bytes; the same length for all, so that counting bytes counts messages
_REOPEN_NS = 1_000_000_000
_OPEN_AT_ONCE = 20  # a tick, so that a thousand streams do not begin with a burst of SYNs


class _Stream:
    """One of the streams; ``flow`` is its connection, ``None`` while it has none."""

    __slots__ = ("flow", "lane", "opened", "sent", "surplus", "try_at", "unanswered")

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.flow: ProbeFlow | None = None
        self.opened = False
        self.try_at = 0
        self.sent = 0
        self.surplus = 0  # bytes of a message that came back in part
        self.unanswered: deque[int] = deque()  # awake times at which messages were sent


class Streams:
    """All streams of a run."""

    def __init__(self, engine: Engine, outcomes: Outcomes, lanes: Sequence[Lane], number: int) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._streams = [_Stream(lanes[index % len(lanes)]) for index in range(number)]
        self._timeouts: Delay[tuple[_Stream, ProbeFlow]] = engine.delay(outcomes.timeout_ns, self._expired)
        self.next_at = 0

    def tick(self) -> None:
        """Send the next messages, and open streams that are closed; call it at ``next_at``."""
        now = self._engine.now
        self.next_at = now + PERIOD_NS
        openings = 0
        for stream in self._streams:
            if stream.opened:
                self._send(stream)
            elif stream.flow is None and now >= stream.try_at and openings < _OPEN_AT_ONCE:
                openings += 1
                self._open(stream)

    def _open(self, stream: _Stream) -> None:
        stream.try_at = self._engine.now + _REOPEN_NS
        try:
            connecting = stream.lane.connected(self._engine.clock, socket.SOCK_STREAM)
        except NoTuple as why:
            self._outcomes.skipped(str(why))
            return
        flow = self._outcomes.connecting(stream.lane, connecting.begin, connecting)
        if connecting.errno not in (0, errno.EINPROGRESS):
            self._outcomes.refused(flow, connecting.errno)
            connecting.sock.close()
            return
        stream.flow = flow
        connecting.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._engine.watch(connecting.sock.fileno(), select.EPOLLOUT, lambda _: self._connected(stream, flow))
        self._timeouts.add(flow.begin - flow.slept, (stream, flow))

    def _connected(self, stream: _Stream, flow: ProbeFlow) -> None:
        sock = flow.sock
        assert sock is not None
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._outcomes.refused(flow, number)
            self._close(stream)
            return
        flow.tries = 1 + syn_retries(sock)
        self._outcomes.answered(flow, delayed=flow.tries > 1)
        stream.opened = True
        self._engine.rewatch(sock.fileno(), select.EPOLLIN, lambda _: self._read(stream))
        self._send(stream)

    def _expired(self, item: tuple[_Stream, ProbeFlow]) -> None:
        stream, flow = item
        if not flow.ended:
            self._outcomes.silent(flow, knock=False)
            self._close(stream)

    def _send(self, stream: _Stream) -> None:
        flow, awake = stream.flow, self._engine.awake
        assert flow is not None and flow.sock is not None
        if stream.unanswered:
            stalled = awake - stream.unanswered[0]
            if stalled >= self._outcomes.timeout_ns:
                self._broken(stream, "stalled")
                return
            self._longest(stalled)
        try:
            # a partial send happens only with a full buffer, after a stall of minutes
            flow.sock.send(b"%015d\n" % stream.sent)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(stream, os.strerror(error.errno or errno.EIO))
            return
        stream.sent += 1
        stream.unanswered.append(awake)
        self._outcomes.totals["stream_messages"] += 1

    def _longest(self, stalled: int) -> None:
        totals = self._outcomes.totals
        if stalled > totals["stream_longest_stall_ns"]:
            totals["stream_longest_stall_ns"] = stalled

    def _read(self, stream: _Stream) -> None:
        flow = stream.flow
        assert flow is not None and flow.sock is not None
        try:
            data = flow.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._broken(stream, os.strerror(error.errno or errno.EIO))
            return
        if not data:
            self._broken(stream, "closed by its other end")
            return
        whole, stream.surplus = divmod(stream.surplus + len(data), _MESSAGE)
        for _ in range(min(whole, len(stream.unanswered))):
            self._longest(self._engine.awake - stream.unanswered.popleft())

    def _broken(self, stream: _Stream, detail: str) -> None:
        flow = stream.flow
        assert flow is not None
        self._outcomes.totals["stream_breaks"] += 1
        self._outcomes.emit(
            StreamBreak(
                t=self._engine.clock.now(),
                family=flow.lane.family.value,
                src=flow.lane.source,
                sport=flow.sport,
                dst=flow.lane.endpoint.address,
                dport=flow.dport,
                begin=flow.begin,
                stalled_ns=self._engine.awake - stream.unanswered[0] if stream.unanswered else 0,
                detail=detail,
            )
        )
        self._close(stream)

    def _close(self, stream: _Stream) -> None:
        flow = stream.flow
        if flow is not None and flow.sock is not None:
            self._engine.forget(flow.sock.fileno())
            flow.sock.close()
            flow.sock = None
        stream.flow = None
        stream.opened = False
        stream.surplus = 0
        stream.unanswered.clear()

    def close(self) -> None:
        """Close all open streams; those that are being opened end when they are answered or lost."""
        for stream in self._streams:
            if stream.opened:
                self._close(stream)
