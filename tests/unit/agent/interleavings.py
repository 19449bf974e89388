"""Random interleavings of events, failures, time and death around the agent's loop, and what must hold throughout.

``World.step`` does one thing: somebody writes rules (or undoes ours), events arrive or are lost, time goes on, a
program or a reading fails, everybody's rules take seconds to be read, the lock is busy, the configuration changes, the
agent dies before or after a commit and another one starts. After each step, and inside each pass, the invariants are
asserted:

- the agent never changes a rule that is not its own;
- a pass over a node that is as desired commits nothing, and no commit leaves the rules as they were;
- what may have touched our rules, lost events and a new configuration are compared at once, unless something failed a
  moment ago; and without them, a node that is as desired no more often than every few seconds;
- the node is not called ready after a pass that left a gap of the agent's own;
- once nothing fails any more the node comes to be as desired, and ready;
- each damage of a node that was whole is reported once as repaired, after no more time than it lasted, and under the
  name of somebody who wrote then;
- after a gap flows are freed twice again.

``defects`` plants mistakes in the agent, each of which these find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from ipaddress import ip_network
from typing import Any

from tests.contract.start_states import OTHER_SUBNET, snapshot
from tests.unit.agent.virtual import RESYNC, Agent, Time
from tests.unit.histories import Action, Kind

from hitless.agent.change_watch import relevant_chains
from hitless.agent.damage import Blame
from hitless.agent.worker import PassResult
from hitless.desired import desired_state
from hitless.errors import KernelError, ProgramError
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset, Source
from hitless.model.state import NodeState, Place, Purpose
from hitless.plan import PlannedTransaction, plan
from hitless.sources import SourceSnapshot
from hitless.testing.fake_kernel import Death, FakeKernel
from hitless.testing.fake_node import FakeNode

V4, V6 = Family.IPV4, Family.IPV6
US = 4711
_CALM = 12.0  # seconds after a failure, in which a next try may be put off
_HEALED = 0.5
_OURS = relevant_chains(tuple(Family))
_CHAINS = {
    Place(backend, family, purpose).names.chain for backend in Backend for family in Family for purpose in Purpose
}
CONFIGURATIONS = (
    snapshot(V4),
    snapshot(V4, V6),
    SourceSnapshot({V4: OTHER_SUBNET[V4]}, True, True, True, "test"),
    SourceSnapshot(snapshot(V4).networks, True, True, False, "test"),
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
    """Sees of every commit of the agent whether it changes something, and nothing of others.

    What does not hold is kept in ``broken``: the agent's loop goes on after an error in it, an assertion too.
    """

    broken: list[str]
    meanwhile: Callable[[], None] | None = None  # what somebody does behind the next reading
    seen = -1  # the rules that the last reading saw
    _due: tuple[tuple[int, int, Backend], bool] | None = None  # of these rules, and this one of ``CONFIGURATIONS``

    def observe(self, families: Collection[Family]) -> NodeState:
        """Somebody may write behind it, while the agent acts by what it has read."""
        found = super().observe(families)
        self.seen = self.version
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return found

    def apply(self, transaction: PlannedTransaction) -> None:
        before, foreign, before_version = self.ruleset(), self.foreign(), self.version
        try:
            super().apply(transaction)
        finally:
            raced = self.seen != before_version
            if _outside(self.foreign(), raced) != _outside(foreign, raced):
                self.broken.append(f"somebody's rules were changed by {transaction.text}")
        if self.ruleset() == before and self.seen == self.version - 1:
            self.broken.append(f"nothing was changed by {transaction.text}")
        self.forget()

    def due(self, snapshot: SourceSnapshot, backend: Backend) -> bool:
        """Whether there is something to do, asked past every failure."""
        key = self.version, id(snapshot), backend
        if self._due is None or self._due[0] != key:
            observed = FakeKernel.observe(self, tuple(snapshot.networks))
            self._due = key, bool(plan(desired_state(snapshot, backend), observed).transactions)
        return self._due[1]


def _outside(foreign: Ruleset, raced: bool) -> object:
    """What the agent must leave alone. Who writes into a chain of ours behind the agent's reading (``raced``) may lose
    that: such a chain is written whole."""
    if not raced:
        return foreign
    return [
        (table.family, table.name, table.legacy, name, chain)
        for table in foreign.tables
        for name, chain in table.chains.items()
        if name not in _CHAINS
    ]


class World:
    """One node with its agents, one after another."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.node, self.time = WatchedNode(), Time()
        self.node.broken = []
        self.time.cost = 0.001
        self.wanted = CONFIGURATIONS[0]
        self.tally: Counter[str] = Counter()
        self._stood = False  # as the agent's last pass left it
        self._damaged = self._seen = False  # another program changed rules of a whole node; and a pass has seen it
        self._expected = 0  # repairs of this life
        self._left: tuple[int, bool] = (-1, False)  # the rules that the last pass left, and whether as desired
        self._failed = 0.0  # when something that was to fail did, or was still to
        self._failing = False
        self._behind = False  # others had written when the last pass ended, and their events had come
        self._writes: list[tuple[float, str]] = []  # of others, since the agent last left everything right
        self._right = True  # it did, and no other program has written since
        self._own: float | None = None  # when it last wrote legacy tables itself
        self._healing: tuple[float, int] | None = None  # until when how often the connections are to be read
        self._start()

    def _start(self) -> None:
        self.agent = Agent(self.node, self.time, self.wanted, backend=self.backend)
        run_pass = self.agent.worker.run_pass

        def watched(snapshot: SourceSnapshot, backend: Backend, **how: bool) -> PassResult:
            due = self.node.due(snapshot, backend)
            commands = self.node.commands
            found = run_pass(snapshot, backend, **how)
            self._must(due or self.node.commands == commands, "a node that is as desired was written to")
            self._pass_ended(found, due)
            return found

        reporter = self.agent.loop._reporter
        damaged = reporter.damaged

        def blamed(done: PassResult, blame: Blame, wall: float) -> None:
            self._blamed(done, blame)
            damaged(done, blame, wall)

        self.agent.worker.run_pass = watched  # type: ignore[method-assign]
        reporter.damaged = blamed  # type: ignore[method-assign]
        self._stood = self._damaged = self._seen = False
        self._expected, self._healing = 0, None
        self._writes.clear()
        self._behind = False
        self._born = self.time.now

    def _must(self, holds: bool, words: str) -> None:
        if not holds:
            self.node.broken.append(words)

    def _blamed(self, done: PassResult, blame: Blame) -> None:
        name, first = blame.suspect.name, min((when for when, _ in self._writes), default=done.ended)
        known = not name or name.startswith("unknown") or name in {who for _, who in self._writes}
        self._must(bool(self._writes), "damage was reported, and no program has written anything")
        self._must(known, f"{name} was named, who has written nothing")
        lasted = done.ended - first
        self._must(-1e-6 <= blame.duration <= lasted + 1e-6, f"{blame.duration:.3f} s of damage in {lasted:.3f} s")

    def _wrote(self, name: str) -> None:
        """Another program wrote; ``_blamed`` compares with this later."""
        if self._right:
            self._writes.clear()
            if self._own is not None:  # in the legacy tables the agent itself looks like another program
                self._writes.append((self._own, "hitless"))
            self._right, self._own = False, None
        self._writes.append((self.time.now, name))

    def _pass_ended(self, done: PassResult, due: bool) -> None:
        self.tally["passes"] += 1
        whole = self._whole()
        self._left = (self.node.version, whole) if self.node.seen == self.node.version else (-1, whole)
        self._behind = any(one.generation > done.generation and one.touched & _OURS for one in self.node.events.waiting)
        settled = done.result.settled
        if self._damaged and settled:
            self._expected += bool(done.result.applied)  # else another program repaired it before
            self.tally["damages repaired"] += bool(done.result.applied)
            self._damaged = False
        self._seen = self._damaged
        self._stood = settled and not done.bridged
        self._damaged = self._damaged or (self._stood and not whole)  # another program wrote after its last observation
        self._right = self._right or (settled and self.node.seen == self.node.version)
        if any(one.backend is Backend.LEGACY for one in done.result.applied):
            self._own = done.begun
        if done.opened and settled and self.wanted.masquerade:
            self._healing = self.time.now + _HEALED, self.node.flows.dumps + 2

    # --- what happens

    def step(self, action: str, **values: Any) -> None:
        """One thing, and what must hold behind it."""
        self.tally[action] += 1
        self.tally["steps"] += 1
        news, passes = self._news(action), self.tally["passes"]
        try:
            getattr(self, action)(**values)
            self.agent.turn()
        except Death:
            self._restart()
            news = False
        assert not news or self.tally["passes"] > passes, f"{action}: no pass followed"
        calm = self.time.now - self._failed > _CALM and not self._failing and not self.node.fails
        assert not (calm and self._behind), "what was written after a pass's last observation was not compared"
        self.check()

    def _news(self, action: str) -> bool:
        """Whether a pass has to follow at once."""
        calm = self.time.now - self._failed > _CALM and self.agent.health.last_pass is not None
        if action == "events_arrive":
            return calm and any(one.pid != US and one.touched & _OURS for one in self.node.events.waiting)
        return calm and action == "events_are_lost"

    def time_goes_on(self, seconds: float) -> None:
        self.agent.sleep(seconds)

    def events_arrive(self) -> None:
        self.agent.deliver()

    def events_are_lost(self) -> None:
        self._wrote("unknown")  # its name is lost with the events
        self.node.events.lose()
        self.agent.deliver()

    def damage(self, number: int, name: str) -> None:
        texts = NATIVE_DAMAGE if self.backend.native else IPTABLES_DAMAGE
        whole = self._whole()
        try:
            self.node.other(self.backend, V4, texts[number % len(texts)], name, 77)
        except ProgramError:  # what it wanted to undo is not there
            return
        self._wrote(name)
        self.node.forget()
        self._damaged = self._damaged or (self._stood and whole and not self._whole())

    def foreign(self, number: int) -> None:
        backend, text = FOREIGN[number % len(FOREIGN)]
        if self._holds(backend, text):  # each once: the rules stay few, and are met again
            return
        whole = self._whole()
        try:
            self.node.other(backend, V4, text, "admin", 88)
        except ProgramError:
            return
        self._wrote("admin")
        self.node.forget()
        self._damaged = self._damaged or (self._stood and whole and not self._whole())

    def _holds(self, backend: Backend, text: str) -> bool:
        """Whether the last rule of the chain that it appends to is of this kind already."""
        table, _, rest = text.removeprefix("*").partition("\n")
        chain = next((line.split()[1] for line in rest.splitlines() if line.startswith("-A")), "")
        return any(
            rule.steps[:1] == (Source(ip_network(rest.split(" -s ")[1].split()[0])),)
            for one in self.node.ruleset().tables
            if chain and one.name == table and one.legacy == backend.legacy and chain in one.chains
            for rule in one.chains[chain].rules
        )

    def another_repairs(self) -> None:
        """As flanneld's own resync does."""
        observed = FakeKernel.observe(self.node, tuple(self.wanted.networks))
        for transaction in plan(desired_state(self.wanted, self.backend), observed).transactions:
            self.node.other(transaction.backend, transaction.family, transaction.text, "flanneld", 99)
            self._wrote("flanneld")
        self.node.forget()

    def somebody_writes_meanwhile(self, what: str, number: int, name: str) -> None:
        self.node.meanwhile = {
            "damage": lambda: self.damage(number, name),
            "foreign": lambda: self.foreign(number),
            "repair": self.another_repairs,
        }[what]

    def a_storm(self, number: int, times: int) -> None:
        """Somebody undoes our rules faster than a fight is answered at once."""
        for turn in range(times):
            self.damage(number + turn, "firewalld")
            self.agent.deliver()
            self.agent.sleep(0.05)
        self._failed = self.time.now

    def a_program_fails(self, times: int) -> None:
        self.node.fail_next(ProgramError(("iptables-restore",), 2, "refused"), times)

    def the_lock_is_busy(self, times: int) -> None:
        self.node.fail_next(LockBusy(("iptables-restore",), 4, "held"), times)

    def a_reading_fails(self, times: int) -> None:
        self.node.fail_reads(KernelError("read", "rules"), times)

    def a_reading_takes_long(self, seconds: float) -> None:
        self.time.reading = seconds

    def configuration(self, number: int) -> None:
        wanted = CONFIGURATIONS[number]
        if wanted != self.wanted:
            self.wanted = wanted
            self.agent.loop.desire(self.wanted, native=False)
            self._stood, self._damaged = False, self._seen  # what no pass has seen yet is a part of the change
            self._healing = None
            passes = self.tally["passes"]
            self.agent.turn()
            calm = self.time.now - self._failed > _CALM
            assert not calm or self.tally["passes"] > passes, "a new configuration, and no pass followed"

    def death(self, when: str) -> None:
        if when == "now":
            raise Death("between two steps")
        self.node.die_at(self.node.commits, before=when == "before the next commit")

    def close(self) -> None:
        self.agent.kill()

    def _restart(self) -> None:
        self.tally["deaths"] += 1
        self.agent.kill()
        self.node.die_at(None)
        self.node.meanwhile = None
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
        assert not self.node.broken, self.node.broken[0]
        if self.node.fails or self._failing:
            self._failed = self.time.now
        self._failing = self.node.fails
        gaps = self.agent.metrics.total("hitless_agent_gap_seconds_total")
        assert gaps <= 2 * (self.time.now - self._born) + 1e-6, f"{gaps:.1f} s of gaps since {self._born:.1f}"
        if self._healing is not None and self.time.now >= self._healing[0]:
            dumps, self._healing = self._healing[1], None
            assert self.node.flows.dumps >= dumps, "flows were not freed again after a gap"
        assert self.repairs == self._expected, f"{self.repairs} repairs were reported of {self._expected}"
        version, right = self._left
        if self.agent.ready() and self.node.version == version:
            assert right, "ready, although the last pass left something undone"
            self.tally["ready"] += 1

    def settle(self) -> None:
        """The faults end: the node comes to be as desired, and is said to be ready."""
        self.node.heal_faults()
        self.node.meanwhile = None
        self.agent.deliver()
        for _ in range(40):
            self.agent.sleep(5.0)
            self.agent.deliver()
            if self._whole() and self.agent.ready():
                break
        assert self._whole(), "the node did not come to be as desired"
        assert self.agent.ready(), self.agent.health.reasons(self.time.now)
        commits, passes = self.node.commits, self.tally["passes"]
        self.agent.sleep(60.0)
        assert self.node.commits == commits, "it goes on writing"
        assert self.tally["passes"] - passes <= 60.0 / RESYNC + 2, "there are too many passes"
        assert not self.node.broken, self.node.broken[0]
        self.tally["settled"] += 1


_NUMBERS = range(len(IPTABLES_DAMAGE))
_NAMES = ("firewalld", "iptables", "kube-proxy", "")
ACTIONS = (
    Action("time_goes_on", 30, {"seconds": (0.01, 0.05, 0.3, 0.6, 1.1, 5.0, 12.0)}),
    Action("events_arrive", 25),
    Action("damage", 14, {"number": _NUMBERS, "name": _NAMES}),
    Action("foreign", 8, {"number": range(len(FOREIGN))}),
    Action("another_repairs", 4),
    Action(
        "somebody_writes_meanwhile",
        8,
        {"what": ("damage", "foreign", "repair"), "number": _NUMBERS, "name": _NAMES},
    ),
    Action("a_storm", 0.6, {"number": _NUMBERS, "times": (3, 30)}),
    Action("events_are_lost", 3),
    Action("a_program_fails", 5, {"times": (1, 1, 2, 5)}),
    Action("the_lock_is_busy", 4, {"times": (1, 3)}),
    Action("a_reading_fails", 4, {"times": (1, 1, 3)}),
    Action("a_reading_takes_long", 3, {"seconds": (0.0, 0.2, 3.0)}),
    Action("configuration", 3, {"number": range(len(CONFIGURATIONS))}),
    Action("death", 4, {"when": ("now", "before the next commit", "after the next commit")}),
)
KIND = Kind(World, ACTIONS, {"backend": tuple(Backend)}, 200, ("deaths", "damages repaired", "ready", "settled"))
