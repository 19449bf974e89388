"""One pass: observe, plan, apply, observe again.

Problem: other programs' commits, a lock or the end of this process may interrupt a pass. Promise: each pass starts and
ends with a whole observation. Transactions are applied in the plan's order up to the first that fails; the rest is left
to the next pass, and nothing is undone. Where the node does not support --random-fully, rules are written without it,
and the result says so. Next stage: ``hitless.agent.loop`` decides when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hitless.agent.ports import AgentRulesPort
from hitless.desired import desired_state
from hitless.errors import KernelError, ProgramError
from hitless.kernel.iptables import NotSupported
from hitless.model.families import Backend, Family
from hitless.model.state import NodeState
from hitless.plan import Plan, PlannedTransaction, plan
from hitless.sources import SourceSnapshot

__all__ = ["Pass", "plan_pass", "reconcile"]

_How = Callable[[NodeState, NodeState], Plan]

_ROUNDS = 3  # another writer's commit between our read and our write needs a second round; a third is generous


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass found and did. ``left``: what is still to be done; empty if the node is as desired."""

    found: Plan
    applied: tuple[PlannedTransaction, ...] = ()
    left: Plan = field(default_factory=Plan)
    error: ProgramError | KernelError | None = None
    random_fully: bool = True

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return not self.left.transactions

    @property
    def written(self) -> frozenset[Family]:
        """The families of which something was written."""
        return frozenset(transaction.family for transaction in self.applied)


def plan_pass(port: AgentRulesPort, snapshot: SourceSnapshot, backend: Backend, how: _How = plan) -> Plan:
    """What a pass would do now."""
    return how(desired_state(snapshot, backend), port.observe(tuple(snapshot.networks)))


def reconcile(
    port: AgentRulesPort,
    snapshot: SourceSnapshot,
    backend: Backend,
    *,
    observed: NodeState | None = None,
    random_fully: bool | None = None,
    how: _How = plan,
) -> Pass:
    """Bring the node to the desired state. ``observed``: an observation made just now; ``random_fully``: whether an
    earlier pass found it supported (``None``: not known yet); ``how``: another planner."""
    wanted = snapshot if random_fully is not False else replace(snapshot, random_fully=False)
    reading = port.observe(tuple(snapshot.networks)) if observed is None else observed
    found = how(desired_state(wanted, backend), reading)
    if not found.transactions:
        return Pass(found, random_fully=wanted.random_fully)
    first = found
    if wanted.random_fully and random_fully is None and not port.knows_random_fully(backend):
        wanted = replace(wanted, random_fully=False)
        found = first = plan_pass(port, wanted, backend, how)
    applied: list[PlannedTransaction] = []
    error: ProgramError | KernelError | None = None
    for _ in range(_ROUNDS):
        try:
            for transaction in found.transactions:
                port.apply(transaction)
                applied.append(transaction)
            error = None
        except NotSupported as refusal:
            error = refusal
            if wanted.random_fully and snapshot.masquerade:
                wanted = replace(wanted, random_fully=False)  # a kernel too old for it: the program cannot know
        except (ProgramError, KernelError) as refusal:  # KernelError: a text that is none of ours was not even tried
            error = refusal
        found = plan_pass(port, wanted, backend, how)
        if not found.transactions or (error is not None and not isinstance(error, NotSupported)):
            break
    if found.transactions:
        return Pass(first, tuple(applied), found, error, snapshot.random_fully)
    return Pass(first, tuple(applied), found, None, wanted.random_fully)
