"""What adoption must do, from any start state: one suite for the fake kernel and for the real one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from tests.contract.start_states import NETWORKS, StartState, snapshot

from hitless.agent.ports import AgentRulesPort
from hitless.agent.reconciliation import reconcile
from hitless.desired import desired_state
from hitless.model.families import Backend, Family
from hitless.model.packets import TCP, UDP, Packet
from hitless.model.rules import Drop, Reject, Rule, Ruleset
from hitless.model.state import NodeState, Place, Purpose, is_owned
from hitless.plan import PlannedTransaction, canonical
from hitless.semantics import evaluate, witnesses
from hitless.sources import SourceSnapshot


class Kernel(AgentRulesPort, Protocol):
    """A ``RulesPort`` that can also be written to as other programs do."""

    def write(self, backend: Backend, family: Family, text: str) -> None: ...


class Recording:
    """Passes on to a kernel and evaluates the egress path after every commit."""

    def __init__(self, kernel: Kernel, family: Family, after: Callable[[], None] = lambda: None) -> None:
        self._kernel, self._family, self._after = kernel, family, after
        self.transactions: list[PlannedTransaction] = []
        self.states: list[tuple[str, str]] = [carried(kernel.egress((family,)), family)]

    def observe(self, families: Collection[Family]) -> NodeState:
        return self._kernel.observe(families)

    def apply(self, transaction: PlannedTransaction) -> None:
        self._kernel.apply(transaction)
        self.transactions.append(transaction)
        self.states.append(carried(self._kernel.egress((self._family,)), self._family))
        self._after()

    def egress(self, families: Collection[Family]) -> Ruleset:
        return self._kernel.egress(families)

    def detect(self) -> Backend:
        return self._kernel.detect()

    def knows_random_fully(self, backend: Backend) -> bool:
        return self._kernel.knows_random_fully(backend)


def witness_packets(family: Family) -> tuple[Packet, ...]:
    networks = NETWORKS[family]
    return witnesses(networks.network, networks.subnet, protocols=(TCP, UDP))


def carried(rules: Ruleset, family: Family) -> tuple[str, str]:
    """The worst answer over the witnesses, and its reason."""
    outcomes = [evaluate(rules, packet) for packet in witness_packets(family)]
    worst = min(outcomes, key=lambda one: ("not_carried", "cannot_tell", "carried").index(one.state))
    return worst.state, worst.reason


def prepare(kernel: Kernel, start: StartState, backend: Backend, family: Family) -> None:
    """Bring the node into the start state."""
    for where, text in start.texts(backend, family):
        kernel.write(where, family, text)


def foreign_rules(state: NodeState) -> list[str]:
    """Everything that is not ours at our places, in order of its text."""
    return sorted(
        f"{place} {canonical(rule)}"
        for place, held in state.places.items()
        for rule in (*held.entry, *(held.chain or ()))
        if not is_owned(rule, place)
    )


def plain(rules: tuple[Rule, ...]) -> list[object]:
    return [canonical(rule) for rule in rules]


def adopts(kernel: Kernel, start: StartState, backend: Backend, family: Family) -> Recording:
    """From the prepared start state: right in the end, never without egress, nothing foreign lost, then no write."""
    wanted = snapshot(family)
    before = kernel.observe((family,))
    recording = Recording(kernel, family)
    first = recording.states[0][0]
    assert (first == "carried") is start.carries, f"the start state is not what it says: {recording.states[0]}"

    result = reconcile(recording, wanted, backend)

    assert result.settled, (result.error, result.left.changes)
    if start.carries:
        assert all(state == "carried" for state, _ in recording.states), recording.states
    assert recording.states[-1][0] == "carried", recording.states[-1]
    once = [state for state, _ in recording.states]
    assert once == sorted(once, key=lambda state: state == "carried"), f"egress came and went: {once}"
    after = kernel.observe((family,))
    is_right(after, wanted, backend)
    assert foreign_rules(after) == foreign_rules(before)
    assert len(foreign_rules(after)) == start.keeps
    tables = [(one.backend, one.family, one.table, one.removes) for one in recording.transactions]
    assert len(tables) == len(set(tables)), f"a table was written twice: {tables}"

    again = reconcile(recording, wanted, backend)
    assert not again.applied and not again.found.transactions
    return recording


def is_right(state: NodeState, wanted: SourceSnapshot, backend: Backend) -> None:
    """Exactly the desired rules, in order, once, in one backend; the jump where it works."""
    desired = desired_state(wanted, backend)
    for place, held in state.own().places.items():
        if place in desired.places:
            expected = desired.places[place]
            assert plain(held.chain or ()) == plain(expected.chain or ()), place
            assert plain(held.entry) == plain(expected.entry), place
            assert held.hook == expected.hook, place
        elif place.purpose is Purpose.FORWARD and refuses(state, place):
            continue  # ours shelter the pods from somebody's refusal there; that egress stayed is asked elsewhere
        else:
            # a chain in which a foreign rule stands is left to its owner
            assert not held.chain and not held.entry, f"{place} still holds {held}"
            assert state.places[place].chain is None or state.places[place].chain, f"{place} is left empty"


def refuses(state: NodeState, place: Place) -> bool:
    """Whether somebody drops or rejects at the base chain, or its policy does."""
    held = state.places[place]
    actions = [rule.steps[-1] for rule in held.entry if rule.steps]
    return held.policy == "drop" or any(isinstance(action, Drop | Reject) for action in actions)
