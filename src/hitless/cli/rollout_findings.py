"""What ``hitless rollout`` found before it did anything, and whether a rollout is under way.

``RolloutFindings`` is shared by a rollout's plan, its question and its work. ``under_way`` is for drills: between two
steps of a rollout no pods measure anything, and a drill that began then would measure the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hitless.cleaning import clean
from hitless.errors import ApiError, InputError

if TYPE_CHECKING:
    from hitless.cli.window_gate import AskedWindows
    from hitless.kube.api import Api
    from hitless.kube.objects import Node
    from hitless.operations.rollout.observation import ObservedAgent
    from hitless.operations.rollout.record import StoredRollout
    from hitless.operations.rollout.values import Rollout
    from hitless.survey.cni import Survey

__all__ = ["RolloutFindings", "under_way"]

_LONGEST = 160


@dataclass
class RolloutFindings:
    """``state`` would be recorded first; ``against``: every reason not to begin now; ``guarded``: nodes with
    a guard that is ready, None where there is none; ``missing``: the pods' namespace is not there yet."""

    survey: Survey
    found: StoredRollout | None
    state: Rollout
    seen: ObservedAgent
    against: list[str]
    guarded: frozenset[str] | None = None
    guards: tuple[str, ...] = ()
    missing: bool = False
    windows: AskedWindows | None = None
    dead: Collection[str] = ()
    """Drills whose entries in the register are left from drivers that died."""

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the rollout that are there, in their order."""
        return [self.seen.nodes[one.node] for one in self.state.turns if one.node in self.seen.nodes]

    @property
    def labels(self) -> dict[str, dict[str, str]]:
        """The nodes' labels, by their names."""
        return {name: node.metadata.labels or {} for name, node in self.seen.nodes.items()}


async def under_way(api: Api, tell: Callable[[str], None]) -> list[str]:
    """Why no drill may begin now: a rollout is being driven. One that stopped blocks no drill."""
    from hitless.operations.rollout import record

    try:
        found = await record.read_record(api)
    except InputError as error:
        tell(f"it is not known whether a rollout is under way: {error}")
        return []
    except ApiError as error:
        if error.status != 403:
            raise
        tell(f"whether a rollout is under way cannot be seen ({error}): ask whoever else works on this cluster")
        return []
    if found is None or found.state.phase == "ended" or not found.state.driver:
        return []
    life, why = await record.life(api, found, tell=tell)
    if life == "dead":
        return []
    state = found.state
    what = f"a rollout of {state.agent} ({clean(state.change.description, _LONGEST)}) is under way"
    return [
        f"{what}, driven by {found.driver} ({why}): each of its steps is a measurement of its own; wait for its end "
        "(hitless rollout status), or where its driver is gone: hitless rollout resume or end"
    ]
