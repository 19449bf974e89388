"""What ``hitless rollout`` found before it did anything: a value that its plan, its question and its work share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hitless.cli.window_gate import AskedWindows
    from hitless.operations.rollout.observation import Observed
    from hitless.operations.rollout.record import ReadRecord
    from hitless.operations.rollout.values import Rollout
    from hitless.survey.cni import Survey

__all__ = ["Looked"]


@dataclass
class Looked:
    """``state`` would be written down first; ``against``: every reason not to begin now; ``guarded``: nodes with
    a guard that is ready, None where there is none; ``missing``: the pods' namespace is not there yet."""

    survey: Survey
    found: ReadRecord | None
    state: Rollout
    seen: Observed
    against: list[str]
    guarded: frozenset[str] | None = None
    guards: tuple[str, ...] = ()
    missing: bool = False
    windows: AskedWindows | None = None

    @property
    def labels(self) -> dict[str, dict[str, str]]:
        """The nodes' labels, by their names."""
        return {name: node.metadata.labels or {} for name, node in self.seen.nodes.items()}
