"""Random interleavings of events, failures, time and death around the agent's loop, and what must hold throughout.

``World.step`` does one thing: somebody writes rules (or undoes ours), events arrive or are lost, time goes on, a
program or a reading fails, everybody's rules take seconds to be read, the lock is busy, the configuration changes, the
agent dies before or after a commit and another one starts. After each step, and inside each pass, the invariants are
asserted:

- the agent never changes a rule that is not its own;
- a pass over a node that is as desired commits nothing, and no commit leaves the rules as they were;
- the node is not called ready by a look that left a gap of the agent's own;
- once nothing fails any more the node comes to be as desired, and ready;
- each damage of a node that was whole is reported once as repaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from tests.contract.start_states import OTHER_SUBNET, snapshot
from tests.unit.agent.virtual import Agent, Time

from hitless.agent.worker import Look
from hitless.desired import desired_state
from hitless.errors import KernelError, ProgramError
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.plan import Transaction, plan
from hitless.sources import Snapshot
from hitless.testing.fake_kernel import Death, FakeKernel
from hitless.testing.fake_node import FakeNode

V4, V6 = Family.IPV4, Family.IPV6
EACH = 200  # steps of a world
CONFIGURATIONS = (
    snapshot(V4),
    snapshot(V4, V6),
    Snapshot({V4: OTHER_SUBNET[V4]}, True, True, True, "test"),
    Snapshot(snapshot(V4).networks, True, True, False, "test"),
)
IPTABLES_DAMAGE = (
    "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n",
    "*nat\n-D POSTROUTING 1\nCOMMIT\n",
    "*filter\n-F FLANNEL-FWD\nCOMMIT\n",
    "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\nCOMMIT\n",
    "*filter\n-F FORWARD\nCOMMIT\n",
    "*nat\n-A FLANNEL-POSTRTG -s 10.42.0.0/16 -j ACCEPT\nCOMMIT\n",
    '*nat\n-I POSTROUTING 1 -s 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN\nCOMMIT\n',
)
NATIVE_DAMAGE = (
    "flush chain ip flannel-ipv4 postrtg\n",
    "delete table ip flannel-ipv4\n",
    "flush chain ip flannel-ipv4 forward\n",
)
FOREIGN = (
    (Backend.NFT, "*filter\n-A FORWARD -s 172.16.0.0/12 -j ACCEPT\nCOMMIT\n"),
    (Backend.NFT, "*nat\n:MINE - [0:0]\n-A MINE -s 172.16.0.0/12 -j ACCEPT\nCOMMIT\n"),
    (Backend.LEGACY, "*filter\n-A FORWARD -s 192.168.0.0/16 -j ACCEPT\nCOMMIT\n"),
    (Backend.NFTABLES, "add table ip theirs\n"),
    (Backend.NFT, "*filter\n-D FORWARD 1\nCOMMIT\n"),
)


class WatchedNode(FakeNode):
    """Asserts of every commit of the agent that it changes something, and nothing of others."""

    _due: tuple[tuple[int, int, Backend], bool] | None = None  # of these rules, and this one of ``CONFIGURATIONS``

    def apply(self, transaction: Transaction) -> None:
        before, foreign = self.ruleset(), self.foreign()
        try:
            super().apply(transaction)
        finally:
            assert self.foreign() == foreign, f"somebody's rules were changed by {transaction.text}"
        assert self.ruleset() != before, f"nothing was changed by {transaction.text}"
        self.forget()

    def due(self, snapshot: Snapshot, backend: Backend) -> bool:
        """Whether there is something to do, asked past every failure."""
        key = self.version, id(snapshot), backend
        if self._due is None or self._due[0] != key:
            observed = FakeKernel.observe(self, tuple(snapshot.networks))
            self._due = key, bool(plan(desired_state(snapshot, backend), observed).transactions)
        return self._due[1]


class World:
    """One node with its agents, one after another."""

    def __init__(self, seed: str, backend: Backend) -> None:
        self.random, self.backend = Random(seed), backend
        self.node, self.time = WatchedNode(), Time()
        self.time.cost = 0.001
        self.wanted = CONFIGURATIONS[0]
        self.tally: Counter[str] = Counter()
        self._stood = False  # as the agent's last pass left it
        self._damaged = self._seen = False  # somebody undid rules of a whole node; and a look has met it
        self._expected = 0  # repairs of this life
        self._left: tuple[int, bool] = (-1, False)  # the rules that the last pass left, and whether as desired
        self._start()

    def _start(self) -> None:
        self.agent = Agent(self.node, self.time, self.wanted, backend=self.backend)
        look = self.agent.worker.look

        def watched(snapshot: Snapshot, backend: Backend, **how: bool) -> Look:
            due = self.node.due(snapshot, backend)
            commits = self.node.commits
            found = look(snapshot, backend, **how)
            assert due or self.node.commits == commits, "a node that is as desired was written to"
            self._looked(found, due)
            return found

        self.agent.worker.look = watched  # type: ignore[method-assign]
        self._stood = self._damaged = self._seen = False
        self._expected = 0

    def _looked(self, look: Look, due: bool) -> None:
        self.tally["looks"] += 1
        self._left = (self.node.version, not self.node.due(self.wanted, self.backend))
        settled = look.result.settled
        if self._damaged and settled:
            self._expected += bool(look.result.applied)  # else somebody put it right before
            self.tally["damages repaired"] += bool(look.result.applied)
            self._damaged = False
        self._seen = self._damaged
        self._stood = settled and not look.bridged

    # --- what happens

    def step(self) -> None:
        """One thing, and what must hold behind it."""
        names: dict[Callable[[], None], int] = {
            self.time_goes_on: 30,
            self.events_arrive: 25,
            self.damage: 14,
            self.foreign: 8,
            self.events_are_lost: 3,
            self.a_program_fails: 5,
            self.the_lock_is_busy: 4,
            self.a_reading_fails: 4,
            self.a_reading_takes_long: 3,
            self.configuration: 3,
            self.death: 4,
        }
        action = self.random.choices(list(names), list(names.values()))[0]
        self.tally[action.__name__] += 1
        self.tally["steps"] += 1
        try:
            action()
            self.agent.turn()
        except Death:
            self._restart()
        self.check()

    def time_goes_on(self) -> None:
        self.agent.sleep(self.random.choice((0.01, 0.05, 0.3, 0.6, 1.1, 5.0, 12.0)))

    def events_arrive(self) -> None:
        self.agent.deliver()

    def events_are_lost(self) -> None:
        self.node.events.lose()
        self.agent.deliver()

    def damage(self) -> None:
        texts = NATIVE_DAMAGE if self.backend is Backend.NFTABLES else IPTABLES_DAMAGE
        name = self.random.choice(("firewalld", "iptables", "kube-proxy", ""))
        whole = self._whole()
        try:
            self.node.other(self.backend, V4, self.random.choice(texts), name, 77)
        except ProgramError:  # what it wanted to undo is not there
            return
        self.node.forget()
        self._damaged = self._damaged or (self._stood and whole and not self._whole())

    def foreign(self) -> None:
        backend, text = self.random.choice(FOREIGN)
        whole = self._whole()
        try:
            self.node.other(backend, V4, text, "admin", 88)
        except ProgramError:
            return
        self.node.forget()
        self._damaged = self._damaged or (self._stood and whole and not self._whole())

    def a_program_fails(self) -> None:
        self.node.fail_next(ProgramError(("iptables-restore",), 2, "refused"), self.random.choice((1, 1, 2, 5)))

    def the_lock_is_busy(self) -> None:
        self.node.fail_next(LockBusy(("iptables-restore",), 4, "held"), self.random.choice((1, 3)))

    def a_reading_fails(self) -> None:
        self.node.fail_reads(KernelError("read", "rules"), self.random.choice((1, 1, 3)))

    def a_reading_takes_long(self) -> None:
        self.time.reading = self.random.choice((0.0, 0.2, 3.0))

    def configuration(self) -> None:
        wanted = self.random.choice(CONFIGURATIONS)
        if wanted != self.wanted:
            self.wanted = wanted
            self.agent.loop.desire(self.wanted, native=False)
            self._stood, self._damaged = False, self._seen  # what no look has met yet is a part of the change

    def death(self) -> None:
        if self.random.random() < 0.5:
            raise Death("between two steps")
        self.node.die_at(self.node.commits, before=self.random.random() < 0.5)

    def _restart(self) -> None:
        self.tally["deaths"] += 1
        self.agent.kill()
        self.node.die_at(None)
        self.node.events.waiting.clear()
        self.time.awake = False
        self._start()

    def _whole(self) -> bool:
        return not self.node.due(self.wanted, self.backend)

    # --- what must hold

    @property
    def repairs(self) -> int:
        """As the metrics have them."""
        return int(self.agent.metrics.total("hitless_agent_repairs_total"))

    def check(self) -> None:
        """After a step: readiness is no lie about the rules that the last pass left."""
        assert self.repairs == self._expected, f"{self.repairs} repairs were reported of {self._expected}"
        version, right = self._left
        if self.agent.ready() and self.node.version == version:
            assert right, "ready, although the last pass left something undone"
            self.tally["ready"] += 1

    def settle(self) -> None:
        """The faults end: the node comes to be as desired, and is said to be ready."""
        self.node.heal_faults()
        self.agent.deliver()
        for _ in range(40):
            self.agent.sleep(5.0)
            self.agent.deliver()
            if self._whole() and self.agent.ready():
                break
        assert self._whole(), "the node did not come to be as desired"
        assert self.agent.ready(), self.agent.health.reasons(self.time.now)
        commits = self.node.commits
        self.agent.sleep(60.0)
        assert self.node.commits == commits, "it goes on writing"
        self.tally["settled"] += 1


def live(name: str, tally: Counter[str], steps: int = EACH) -> None:
    """One world, from its beginning until it has settled. ``name`` ends with its number, which chooses the backend."""
    backend = list(Backend)[int(name.split()[-1]) % len(Backend)]
    world = World(name, backend)
    try:
        for _ in range(steps):
            world.step()
        world.settle()
    except AssertionError as error:
        raise AssertionError(f"world {name!r} ({backend.value}), step {world.tally['steps']}: {error}") from error
    finally:
        tally.update(world.tally)


def run(seed: str, steps: int, tally: Counter[str]) -> None:
    """So many steps in worlds of ``EACH`` steps, all backends in turn."""
    for number in range(-(-steps // EACH)):
        live(f"{seed} {number}", tally)
