"""Exports a rollout's metrics while it is driven: a file for node_exporter's textfile collector, a Pushgateway.

Promise: the file is replaced whole, at the begin, after each step and at the end; the same is pushed. What cannot be
written or pushed is reported once and decides nothing: the rollout goes on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hitless.errors import HitlessError
from hitless.kernel import files

if TYPE_CHECKING:
    from hitless.operations.rollout.values import Rollout

__all__ = ["MetricsExport"]

_MODE = 0o644  # the collector runs as another user


@dataclass
class MetricsExport:
    """``file`` and ``gateway`` as the options give them, empty for none; ``warn`` takes a problem."""

    file: Path | None
    gateway: str
    warn: Callable[[str], None]
    _reported: set[str] = field(default_factory=set)

    async def update(self, state: Rollout) -> None:
        """Write and push what holds now."""
        if self.file is None and not self.gateway:
            return
        from hitless.cluster.schedule import push
        from hitless.operations.rollout import metrics

        text = metrics.render(state, dt.datetime.now(dt.UTC))
        if self.file is not None:
            try:
                files.replace(self.file, text.encode(), mode=_MODE)
            except OSError as error:
                self._report("file", f"the metrics could not be written to {self.file}: {error.strerror or error}")
        if self.gateway:
            try:
                await push(self.gateway, text, "hitless_rollout", "agent", state.agent.replace("/", "."))
            except HitlessError as error:
                self._report("gateway", f"the metrics could not be pushed: {error}")

    def _report(self, what: str, problem: str) -> None:
        if what not in self._reported:
            self._reported.add(what)
            self.warn(f"{problem}; the rollout goes on")
