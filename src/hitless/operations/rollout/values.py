"""The recorded state of a rollout: frozen values, and their one text form in the cluster. Pure.

Problem: a driver may die at every step, another operator goes on, and a state that was edited must not restart a
node twice. Promise: ``read`` accepts a state whole or refuses it with the field; the state is small enough for one
ConfigMap, and holds everything that a driver needs to continue. Next stage: ``record``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from hitless.errors import InputError

__all__ = [
    "LOG_LINES",
    "MOST_NODES",
    "UNTOUCHED",
    "Direction",
    "NodeTurn",
    "Phase",
    "Rollout",
    "RolloutChange",
    "RolloutChoices",
    "VerdictName",
    "read",
    "text",
    "verdict",
]

SCHEMA = 1
MOST_NODES = 2000
"""Nodes of one rollout: their turns must fit into a ConfigMap (1 MiB)."""
LOG_LINES = 200
"""Lines of the rollout's own log that are kept in it, the latest ones."""
_REASON = 300

Phase = Literal["preparing", "rolling", "restoring", "ended"]
"""preparing: the DaemonSet may or may not have been changed yet; rolling: node by node; restoring: its updateStrategy
may or may not have been put back; ended: nothing more is done."""

Direction = Literal["forward", "undo"]
VerdictName = Literal["pass", "fail", "inconclusive"]
Course = Literal["pending", "restarting", "done", "skipped", "left", "joined", "kept"]
"""pending: nothing was done; restarting: its pod ``uid`` may or may not have been deleted yet; done: restarted once,
and judged; skipped: not touched, ``reason`` says why; left: the node is no longer there; joined: it came meanwhile,
with the new revision, so that nothing had to be restarted; kept: an undo found that it has the former one still."""


UNTOUCHED = frozenset({"left", "joined", "kept"})
"""Turns without a verdict: nothing was restarted, and nothing had to be."""


class RolloutChange(msgspec.Struct, frozen=True):
    """What is rolled out. ``patch``: a strategic merge patch of the pod template; None: pods are only restarted."""

    kind: Literal["restart", "image", "patch"]
    description: str = msgspec.field(name="words")  # the name in stored ConfigMaps
    patch: dict[str, Any] | None = None


class RolloutChoices(msgspec.Struct, frozen=True, kw_only=True):
    """The recorded options, so that every driver continues with them. Times are in seconds."""

    width: int = 1
    zones: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    node_selector: str = ""
    probe: float = 5.0
    bake: float = 10.0
    patience: float = 120.0
    rate: int = 1000
    family: Literal["ipv4", "ipv6", "dual"] = "ipv4"
    to: tuple[str, ...] = ()
    require_guard: bool = False
    accept_inconclusive: bool = False
    post_events: bool = False
    namespace: str = "hitless-drill"
    probe_namespace: str = ""
    image: str = ""
    pull_policy: Literal["IfNotPresent", "Never", "Always"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    watch_profile: str = ""


class NodeTurn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's turn. ``pod`` and ``uid`` are those of the one pod that is deleted; ``drill``: whose pods measure it
    meanwhile; ``unseen``: it was restarted while nothing measured it."""

    node: str
    zone: str = ""
    course: Course = "pending"
    pod: str = ""
    uid: str = ""
    drill: str = ""
    verdict: VerdictName | Literal[""] = ""
    attempted: int = 0
    lost: int = 0
    unseen: bool = False
    reason: str = ""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout, whole. ``strategy``: the updateStrategy that the DaemonSet had and gets back, None where it is not
    touched; ``generation``: the DaemonSet's as we left it; ``before`` and ``target`` are revisions' hashes (empty: any
    pod will do); ``driver`` is empty while it is not driven; ``stopped`` says why."""

    schema: int = SCHEMA
    identity: str
    namespace: str
    name: str
    uid: str
    change: RolloutChange
    choices: RolloutChoices
    direction: Direction = "forward"
    phase: Phase = "preparing"
    generation: int
    strategy: dict[str, Any] | None = None
    before: str = ""
    target: str = ""
    turns: tuple[NodeTurn, ...] = ()
    driver: str = ""
    drill: str = ""
    windows: str = ""
    forced: tuple[str, ...] = ()
    stopped: str = ""
    begun: str = ""
    ended: str = ""
    log: tuple[str, ...] = ()

    @property
    def agent(self) -> str:
        """The DaemonSet as NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"

    @property
    def replaces(self) -> bool:
        """Whether the DaemonSet's template is changed, so that its controller must not replace the pods."""
        return self.change.patch is not None

    def turned(self, turns: Iterable[NodeTurn]) -> Rollout:
        """The same with these turns in place of those of the same nodes."""
        new = {one.node: one for one in turns}
        known = {one.node for one in self.turns}
        kept = [new.get(one.node, one) for one in self.turns]
        return msgspec.structs.replace(self, turns=(*kept, *(one for name, one in new.items() if name not in known)))

    @property
    def drills(self) -> tuple[str, ...]:
        """Drills of this rollout whose pods may still be there."""
        open_ones = (one.drill for one in self.turns if one.course == "restarting")
        return tuple(dict.fromkeys(filter(None, (*open_ones, self.drill))))

    def of(self, node: str) -> NodeTurn | None:
        """A node's turn."""
        return next((one for one in self.turns if one.node == node), None)

    def logged(self, line: str) -> Rollout:
        """The same with a line more in its log."""
        return msgspec.structs.replace(self, log=(*self.log, line[:_REASON])[-LOG_LINES:])


def verdict(turns: Sequence[NodeTurn]) -> VerdictName:
    """The verdict of the whole: one node's failure is a failure; a pass needs a pass of every node."""
    if any(one.verdict == "fail" for one in turns):
        return "fail"
    counted = [one for one in turns if one.course not in UNTOUCHED]
    return "pass" if counted and all(one.verdict == "pass" for one in counted) else "inconclusive"


def text(state: Rollout) -> str:
    """The text form."""
    return msgspec.json.encode(state).decode()


def read(written: str, where: str) -> Rollout:
    """The state; raises ``InputError`` with the field that is wrong."""
    remedy = "it was edited, or written by another version: fix it, or restore updateStrategy by hand and delete it"
    try:
        state = msgspec.json.decode(written.encode(), type=Rollout)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InputError(f"its state is not understood: {error}", where=where, remedy=remedy) from error
    if state.schema != SCHEMA:
        raise InputError(f"its state has schema {state.schema}", where=where, expected=str(SCHEMA), remedy=remedy)
    names = [one.node for one in state.turns]
    if len(set(names)) != len(names):
        raise InputError("its state names a node twice", where=where, remedy=remedy)
    return state
