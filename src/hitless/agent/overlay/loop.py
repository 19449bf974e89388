"""The overlay's loop: wait for changes of leases or of the kernel, bring the kernel up to date, report.

Problem: links must be repaired within milliseconds, a refused write must not be retried ten times a second, and 5,000
nodes must not cost the node a core. Promise: events and changed leases wake the loop, and several at once cause one
turn. Failures are retried with growing pauses (``retries``). Everything is read again after ``resync`` seconds, or 400
times what a full read took. Stopping changes nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from hitless.agent.health import Health
from hitless.agent.overlay.worker import Turn, Worker
from hitless.agent.retries import Retries
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.errors import HitlessError, ours
from hitless.model.links import LinkChange
from hitless.model.overlay import OverlaySnapshot

__all__ = ["OverlayLoop", "Waker"]

_SHARE = 400  # full reads may take a 400th of the time
_GAP = 0.005  # seconds between an event and the turn, and between turns: events that come together cause one turn
_FEW = 12  # changes that are logged one by one


class Waker(Protocol):
    """Notices that the kernel has events."""

    def watch(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when there is something to read; again after the next ``watch``."""

    def close(self) -> None:
        """Stop."""


class OverlayLoop:
    """``desire`` sets the snapshot; ``run`` works until cancelled; ``on_turned`` is called after each turn."""

    def __init__(
        self, worker: Worker, waker: Waker, log: Log, metrics: Metrics, health: Health, *,
        resync: float, clock: Callable[[], float], on_turned: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._worker, self._waker, self._log, self._metrics, self._health = worker, waker, log, metrics, health
        self._resync, self._clock, self._on_turned = resync, clock, on_turned
        self._thread = ThreadPoolExecutor(1, "links")
        self._awake = asyncio.Event()
        self._desired: list[tuple[OverlaySnapshot, Collection[str] | None]] = []
        self._started = False
        self._retries = Retries()
        self._whole_due = 0.0
        self._settled = False
        self._left_out: dict[str, str] = {}
        self._notes: tuple[str, ...] = ()
        self.peers = 0

    def desire(self, snapshot: OverlaySnapshot, changed: Collection[str] | None) -> None:
        """From now on this is the desired overlay; ``changed``: the nodes whose leases differ."""
        self._desired.append((snapshot, changed))
        self._retries.reset()
        self._awake.set()

    def retry_now(self) -> None:
        """Writes that were refused may succeed now: try again at once."""
        self._retries.reset()
        self._awake.set()

    def wake(self) -> None:
        """The kernel has events."""
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                await self._pause()
                await self._turn()
        finally:
            self._waker.close()
            self._thread.shutdown(wait=True)

    async def _pause(self) -> None:
        now = self._clock()
        due = 3600.0 if not self._started else max(self._retries.not_before, self._whole_due) - now
        if self._started and not self._settled:
            due = max(self._retries.not_before - now, _GAP)
        if due > 0:
            try:
                async with asyncio.timeout(due):
                    await self._awake.wait()
            except TimeoutError:
                pass
        await asyncio.sleep(_GAP)
        late = self._retries.not_before - self._clock()
        if late > 0:
            await asyncio.sleep(late)
        self._awake.clear()

    async def _turn(self) -> None:
        desired, self._desired = self._desired, []
        for snapshot, changed in desired:
            self._worker.desire(snapshot, changed)
            self._started = True
        if not self._started:
            return
        whole = self._clock() >= self._whole_due
        try:
            turn = await asyncio.get_running_loop().run_in_executor(
                self._thread, lambda: self._worker.turn(whole=whole)
            )
        except Exception as error:  # noqa: BLE001 - the outermost handler: /readyz and the log report it
            self._failed(ours(error, "a turn of the overlay's loop"))
            return
        finally:
            self._waker.watch(self.wake)
        self._account(turn)
        self._on_turned()

    def _failed(self, error: HitlessError) -> None:
        self._settled = False
        self._retries.failed(self._clock())
        self._metrics.add("hitless_agent_errors_total", kind="overlay")
        self._health.overlay = (f"overlay: {error}",)
        self._log.error("overlay not observed", reason=str(error))

    def _account(self, turn: Turn) -> None:
        first, self.peers = not self._metrics.total("hitless_overlay_turns_total"), turn.peers
        metrics = self._metrics
        metrics.add("hitless_overlay_turns_total")
        metrics.set("hitless_overlay_peers", turn.peers)
        metrics.set("hitless_overlay_peers_left_out", len(turn.left_out))
        for change in turn.done:
            metrics.add("hitless_overlay_writes_total", verb=change.verb.value, kind=_kind(change))
        if turn.whole:
            metrics.add("hitless_overlay_full_reads_total")
            self._whole_due = self._clock() + max(self._resync, (turn.ended - turn.begun) * _SHARE)
        if turn.lost:
            metrics.add("hitless_agent_lost_events_total")
        self._log_turn(turn, damage=turn.damage and not first)
        self._settled = not turn.left and not turn.refused
        if self._settled:
            self._retries.reset()
            self._health.overlay = ()
        else:
            self._retries.failed(turn.ended)
            metrics.add("hitless_agent_errors_total", kind="overlay")
            self._health.overlay = (f"overlay: {_unsettled(turn)}",)

    def _log_turn(self, turn: Turn, *, damage: bool) -> None:
        milliseconds = round((turn.ended - turn.begun) * 1000, 2)
        if turn.done:
            counts = Counter(f"{change.verb} {_kind(change)}" for change in turn.done)
            for change in turn.done if len(turn.done) <= _FEW else ():
                self._log.info("overlay change", what=f"{change.verb} {change.object}", reason=change.reason)
            facts = ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))
            if damage:
                self._metrics.add("hitless_overlay_repairs_total")
                self._log.info("overlay repaired", peers=turn.peers, writes=facts, milliseconds=milliseconds)
            else:
                self._log.info("overlay applied", peers=turn.peers, writes=facts, milliseconds=milliseconds)
        if turn.refused:
            change, error = turn.refused[0]
            count = len(turn.refused)
            self._log.error("overlay not applied", what=str(change.object), reason=str(error), refused=count)
        for node, why in turn.left_out.items():
            if self._left_out.get(node) != why:
                self._log.warning("peer left out", peer=node, reason=why)
        for node in self._left_out.keys() - turn.left_out.keys():
            self._log.info("peer no longer left out", peer=node)
        self._left_out = dict(turn.left_out)
        for note in turn.notes:
            if note not in self._notes:
                self._log.warning("overlay blocked", reason=note)
        self._notes = turn.notes


def _kind(change: LinkChange) -> str:
    return str(change.object.key[0])


def _unsettled(turn: Turn) -> str:
    if turn.refused:
        change, error = turn.refused[0]
        more = f" (and {len(turn.refused) - 1} more)" if len(turn.refused) > 1 else ""
        return f"{change.object}: {error}{more}"
    return f"{turn.left[0]} (of {len(turn.left)} objects that differ after they were written)"
