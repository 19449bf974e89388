"""Decides whether something may begin now, by the wall clock at each call.

Promise: ``Gate.refusal`` says why nothing may begin at this instant, or "": it trusts no timer, so that a clock that
jumps, forwards or back, and a machine that slept are noticed at once. What it knows of a stretch of time is kept for
that stretch alone. ``wait`` sleeps in short pieces for the same reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from hitless.operations.windows.openings import WindowSchedule, WindowState
from hitless.operations.windows.times import EARLIEST, LATEST, span, utc
from hitless.operations.windows.values import Windows

__all__ = ["Gate", "wait"]

_LONGEST_SLEEP = 15.0


class Gate:
    """For a run on these nodes ("" where it is not known; ``labels`` by node) of the cluster that has these names.

    Where a run touches several nodes, a window must be open for each of them.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        clusters: tuple[str, ...] = (),
        nodes: Sequence[str] = ("",),
        needs: int = 0,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.windows = windows
        self._now = now
        known = labels or {}
        self._schedules = {
            node: WindowSchedule(windows, clusters, node, needs, known.get(node)) for node in nodes or ("",)
        }
        self._known: dict[str, tuple[int, WindowState]] = {}

    def state(self, node: str) -> WindowState:
        """What holds now for one of the nodes."""
        at = int(self._now())
        if not EARLIEST <= at < LATEST:  # a clock that was never set
            return WindowState(False, None)
        since, state = self._known.get(node, (at + 1, WindowState(False, None)))
        if at < since or (state.until is not None and at >= state.until):
            state = self._schedules[node].state(at)
            self._known[node] = at, state
        return state

    def refusal(self) -> str:
        """Why nothing may begin now; empty when it may."""
        for node in self._schedules:
            state = self.state(node)
            if not state.open:
                whose = f" for node {node}" if node else ""
                if not self._schedules[node].entries:
                    return f"no maintenance window of {self.windows.source} is{whose or ' for this place'}"
                if state.paused:
                    return f"the maintenance windows of {self.windows.source} are paused{whose}: {state.paused}"
                next_ = f"the next opens at {utc(state.until)}" if state.until is not None else "none opens again"
                return f"no maintenance window of {self.windows.source} is open{whose}; {next_}"
        return ""

    @property
    def name(self) -> str:
        """The window that is open now, of several nodes the first one's."""
        return next((state.name for node in self._schedules if (state := self.state(node)).open), "")


def wait(
    schedule: WindowSchedule,
    *,
    timeout: float | None,
    tell: Callable[[str], None],
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> WindowState:
    """Wait until something may begin; the state that ended it: open, or closed when the time was up (or none comes)."""
    give_up = None if timeout is None else monotonic() + timeout
    reported = ""
    while True:
        at = int(now())
        state = schedule.state(at)
        if state.open or state.until is None:
            return state
        left = None if give_up is None else give_up - monotonic()
        if left is not None and left <= 0:
            return state
        line = f"paused ({state.paused}); " if state.paused else ""
        line += f"closed; the next window opens at {utc(state.until)}"
        if line != reported:
            tell(f"{line}, in {span(state.until - at)}")
            reported = line
        sleep(max(min(_LONGEST_SLEEP, state.until - now(), _LONGEST_SLEEP if left is None else left), 0.05))
