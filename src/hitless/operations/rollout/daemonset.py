"""The writes to the DaemonSet: ``OnDelete`` with the new template, the former template, the strategy at the end.

Problem: with RollingUpdate the controller restarts every pod that is not ready as soon as the template changes
(kubernetes issue 111073), all at once. Promise: template and ``OnDelete`` are one write, so that the controller never
sees one without the other; each write carries the resourceVersion that was read and a mark, so that it is done only
once, by whichever driver; the updateStrategy (with surge and maxUnavailable) is restored at the end. Next stage:
``driver``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.errors import ApiError
from hitless.kube.api import Api, PatchType
from hitless.kube.objects import DAEMON_SETS, ControllerRevision, DaemonSet
from hitless.operations.rollout.observation import HASH, MARK, foreign, newest, revisions
from hitless.operations.rollout.values import Rollout

__all__ = ["change", "mark", "restore", "strategy_of"]

_TRIES = 20
_LOOK = 0.5
_STRATEGIC: PatchType = "application/strategic-merge-patch+json"
_MERGE: PatchType = "application/merge-patch+json"


def mark(state: Rollout) -> str:
    """What the annotation says while this rollout has the DaemonSet in hand."""
    return f"{state.identity} {state.direction}"


def strategy_of(one: DaemonSet) -> dict[str, Any]:
    """Its updateStrategy, as a merge patch that puts it back."""
    strategy = one.spec.update_strategy
    return {"type": strategy.type, "rollingUpdate": strategy.rolling_update}


async def change(api: Api, state: Rollout, within: float) -> tuple[int, str, str]:
    """Put the new (or for an undo the former) template there; the generation and the revision that it gave, or why not.

    What was done before by a driver that died is recognised by its mark.
    """
    now = await _get(api, state)
    if now is not None and _marked(now) != mark(state):
        if why := foreign(state, now):
            return 0, "", why
        template: Mapping[str, Any] = state.change.patch or {}
        if state.direction == "undo":
            former = next((one for one in await revisions(api, now) if one.label(HASH) == state.before), None)
            template = _template(former)
            if not template:
                return 0, "", _no_revision(state)
        patch = {
            "metadata": {"annotations": {MARK: mark(state)}},
            "spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}, "template": template},
        }
        now, why = await _patched(api, state, now, patch, _STRATEGIC)
        if why:
            return 0, "", why
    if now is None or now.metadata.uid != state.uid or now.metadata.generation > state.generation + 1:
        return 0, "", foreign(state, now)
    return await _settled(api, state, now.metadata.generation, within)


async def _settled(api: Api, state: Rollout, generation: int, within: float) -> tuple[int, str, str]:
    """Wait until the controller has taken note, and made the revision."""
    end = api.patience.now() + within
    while True:
        now = await _get(api, state)
        if now is None or now.metadata.generation != generation:
            return 0, "", foreign(state, now)
        if now.status.observed_generation >= generation and (found := newest(await revisions(api, now))):
            return generation, found, ""
        if api.patience.now() > end:
            return 0, "", f"the DaemonSet controller took no note of the change within {within:g} s: is it at work?"
        await api.patience.sleep(_LOOK)


async def restore(api: Api, state: Rollout) -> str:
    """Put the updateStrategy back; why not, or empty. Nothing where that was done."""
    now = await _get(api, state)
    if now is None or now.metadata.uid != state.uid:
        return foreign(state, now)
    if not _marked(now).startswith(f"{state.identity} "):
        return ""
    if why := foreign(state, now):
        return why
    patch = {"metadata": {"annotations": {MARK: None}}, "spec": {"updateStrategy": state.strategy}}
    _, why = await _patched(api, state, now, patch, _MERGE, done=lambda one: not _marked(one))
    return why


async def _patched(
    api: Api, state: Rollout, now: DaemonSet, patch: dict[str, Any], how: PatchType, *, done: Any = None
) -> tuple[DaemonSet | None, str]:
    """Write on what was read; again where only its status moved on meanwhile."""
    ours = done or (lambda one: _marked(one) == mark(state))
    for _ in range(_TRIES):
        metadata = {**patch["metadata"], "resourceVersion": now.metadata.resource_version}
        document = {**patch, "metadata": metadata}
        try:
            return await api.patch(DAEMON_SETS, state.name, state.namespace, document, how), ""
        except ApiError as error:
            if error.status not in (404, 409):
                raise
        there = await _get(api, state)
        if there is not None and there.metadata.uid == state.uid and ours(there):
            return there, ""  # it was done, and the answer lost
        if there is None or (why := foreign(state, there)):
            return None, foreign(state, there) if there is None else why
        now = there
    return None, f"the DaemonSet {state.agent} is changed by others all the time"


async def _get(api: Api, state: Rollout) -> DaemonSet | None:
    try:
        return await api.get(DAEMON_SETS, state.name, state.namespace)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _marked(one: DaemonSet) -> str:
    return (one.metadata.annotations or {}).get(MARK, "")


def _template(former: ControllerRevision | None) -> Mapping[str, Any]:
    """The whole former template, as ``kubectl rollout undo`` puts it back; empty where there is none."""
    spec = ((former.data if former is not None else None) or {}).get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    return {**template, "$patch": "replace"} if isinstance(template, dict) else {}


def _no_revision(state: Rollout) -> str:
    return (
        f"the former revision {state.before} of {state.agent} is not there any more (its ControllerRevision was "
        "removed: see spec.revisionHistoryLimit); roll the former image or template out as a change of its own"
    )
