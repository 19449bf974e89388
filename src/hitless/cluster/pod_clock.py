"""The clock of a drill pod's node: its offset is measured when the pod runs, and again at the end.

Problem: the first exec in a pod may come too early, and a clock may move during a drill. Promise: measuring is retried
for a bounded time; where it fails, the node's times stay its own, and that is reported, as a clock that moved is. Next
stage: ``pods``.
"""

from __future__ import annotations

from collections.abc import Callable

from hitless.cluster import clocks
from hitless.cluster.manifests import CONTAINER
from hitless.errors import ApiError
from hitless.kube import streams
from hitless.kube.api import Api
from hitless.model import events as e

__all__ = ["PodClock"]

_PATIENCE = 60.0
"""Seconds in which measuring a clock is retried: the first exec on a small node is slow, and may come too early."""


class PodClock:
    """``now`` is the driver's clock; ``note`` takes what the drill's record should have about the offset."""

    def __init__(
        self, api: Api, pod: str, namespace: str, node: str, now: Callable[[], int], note: Callable[[e.Note], None]
    ) -> None:
        self._api, self._pod, self._namespace, self._node = api, pod, namespace, node
        self._now, self._note = now, note
        self.offset = clocks.Offset(0, 0)

    async def set(self) -> None:
        """Measure the node's clock; where that fails, its times stay the node's own, and that is reported."""
        patience = self._api.patience
        begin, attempt = patience.now(), 0
        while True:
            try:
                self.offset = await self._measured()
            except ApiError as error:
                wait = patience.wait(attempt)
                if streams.transient(error) and patience.now() - begin + wait < _PATIENCE:
                    await patience.sleep(wait)
                    attempt += 1
                    continue
                text = f"the clock of {self._node} could not be measured, its times are not the driver's: {error}"
                self._note(e.Note(t=self._now(), level="warning", text=text))
                return
            text = f"the clock of {self._node} is {self.offset} (pod {self._pod})"
            self._note(e.Note(t=self._now(), level="info", text=text))
            return

    async def check(self) -> None:
        """Measure the clock again, and report when it moved by more than the uncertainty."""
        try:
            last = await self._measured()
        except ApiError:
            return
        moved = abs(last.ns - self.offset.ns)
        if moved > last.uncertainty_ns + self.offset.uncertainty_ns + 1_000_000:
            text = f"the clock of {self._node} moved by {moved / 1e6:.1f} ms during the drill"
            self._note(e.Note(t=self._now(), level="warning", text=text))

    async def _measured(self) -> clocks.Offset:
        return await clocks.measure(self._api, self._pod, self._namespace, CONTAINER, self._now)
