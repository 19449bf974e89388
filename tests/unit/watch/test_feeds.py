"""The watch's feed: two paths of the kernel become one series of steps. Mirror and poller are doubles."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Queue

import pytest
from tests.unit.guard.flannels import nat

from hitless.errors import HitlessError, KernelError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables.changes import TableChange
from hitless.kernel.nftables.mirror import Update
from hitless.kernel.nftables.wire import FAMILIES
from hitless.kernel.xtables.polling import Snapshot
from hitless.model.events import Writer
from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset
from hitless.watch import feeds
from hitless.watch.feeds import Feed

V4 = Family.IPV4
CHAIN = ("ip", "nat", "FLANNEL-POSTRTG")
LEGACY, EMPTIED = nat(legacy=True), nat(chain=(), legacy=True)
FLANNELD = Writer(7, "flanneld")
IP = next(number for number, name in FAMILIES.items() if name == "ip")


class Mirror:
    """nf_tables as the test says."""

    def __init__(self, *_: object, **__: object) -> None:
        self.current, self.generation, self.committed, self.waiting = nat(), 5, 5, 2
        self.updates: deque[Update] = deque()
        self.verified: deque[Update | None] = deque()
        self.lag = self.woken = 0
        self.closed = False
        self.during: Callable[[], None] = lambda: None
        kernel.mirror = self

    def next(self, timeout: float | None = None) -> Update | None:
        self.during()
        return self.updates.popleft() if self.updates else None

    def verify(self, chains: object) -> Update | None:
        return self.verified.popleft()

    def sets_used(self, *chain: str) -> frozenset[str]:
        return frozenset(chain[2:])

    def take_lag(self) -> int:
        return self.lag

    def wake(self) -> None:
        self.woken += 1

    def close(self) -> None:
        self.closed = True


class Poller:
    """The legacy tables as the test says; ``wait`` returns what is put into ``seen``."""

    def __init__(self, *_: object, **__: object) -> None:
        self.seen: Queue[Snapshot | Exception | None] = Queue()
        self.left: list[Snapshot] = []
        self.closed = False
        kernel.poller = self
        if kernel.unreadable is not None:
            self.snapshot = self._refuse  # type: ignore[method-assign]

    def _refuse(self) -> Snapshot:
        assert kernel.unreadable is not None
        raise kernel.unreadable

    def snapshot(self) -> Snapshot:
        return Snapshot(1, 0, LEGACY, ((V4, "nat"),))

    def wait(self) -> Snapshot | None:
        found = self.seen.get()
        if isinstance(found, Exception):
            raise found
        return found

    def wake(self) -> None:
        self.seen.put(None)

    def last(self) -> list[Snapshot]:
        return self.left

    def take_lag(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True


class Tables:
    """Which legacy tables there are."""

    def __init__(self, namespace: Namespace, family: Family) -> None:
        if family is not V4:
            raise KernelError("open", "the legacy tables of IPv6", 97)

    def __enter__(self) -> Tables:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""

    def present(self, name: str) -> bool:
        return kernel.legacy and name == "nat"


class Surroundings:
    def __init__(self, *_: object) -> None:
        self.closed = False
        kernel.surroundings = self

    def close(self) -> None:
        self.closed = True


class Kernel:
    """What the last feed was made of."""

    mirror: Mirror
    poller: Poller
    surroundings: Surroundings
    legacy = False
    unreadable: HitlessError | None = None


kernel = Kernel()


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.legacy, kernel.unreadable = False, None
    for name, double in (
        ("Mirror", Mirror), ("Poller", Poller), ("Tables", Tables), ("NodeSurroundings", Surroundings)
    ):  # fmt: skip
        monkeypatch.setattr(feeds, name, double)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def polled(feed: Feed) -> bool:
    return feed.legacy


def behind(feed: Feed) -> bool:
    return feed.behind


def update(**more: object) -> Update:
    change = TableChange((IP, "nat"), chains={"FLANNEL-POSTRTG"}, hooks={"postrouting"}, sets={"pods"})
    values = {"t": 10, "ruleset": nat(), "generation": 6, "changes": (change,), "pid": 7, "comm": "flanneld", **more}
    return Update(**values)  # type: ignore[arg-type]


def emptied(writer: Writer | None = FLANNELD) -> Snapshot:
    return Snapshot(20, 15, EMPTIED, ((V4, "nat"),), writer)


def test_a_commit_is_a_step_with_its_writer_and_what_it_touched() -> None:
    with Feed(HERE) as feed:
        kernel.mirror.updates.append(update())
        step = feed.next(1.0)
        assert step is not None and step.changes is not None
        assert (step.t, step.generation, step.writer, step.lost) == (10, 6, FLANNELD, False)
        (change,) = step.changes
        assert (change.family, change.table, change.backend) == ("ip", "nat", Backend.NFT)
        assert (*change.chains, *change.sets, *change.hooks) == ("FLANNEL-POSTRTG", "pods", "postrouting")
        assert feed.next(1.0) is None
        assert (feed.generation, feed.backlog, feed.legacy) == (5, 2, False)
        assert feed.sets_used(CHAIN) == {"FLANNEL-POSTRTG"}
        feed.wake()
        assert kernel.mirror.woken == 1
    assert kernel.mirror.closed and kernel.surroundings.closed


def test_a_full_read_says_why_and_has_no_writer() -> None:
    with Feed(HERE, (V4,), (Backend.NFT,)) as feed:
        kernel.mirror.updates.append(update(changes=None, pid=0, comm="", lost=True, reason="dropped", noticed=4))
        step = feed.next()
        assert step is not None
        assert (step.changes, step.writer, step.lost, step.reason, step.noticed) == (None, None, True, "dropped", 4)
        kernel.mirror.verified.extend([None, update(changes=None, reason="it differs")])
        assert feed.verify([CHAIN]) is None
        differs = feed.verify([CHAIN])
        assert differs is not None and differs.reason == "it differs"


def test_the_legacy_path_is_polled_once_it_has_tables() -> None:
    with Feed(HERE) as feed:
        assert not polled(feed) and feed.find_legacy() is None
        kernel.legacy = True
        step = feed.find_legacy()
        assert step is not None and step.changes is None and "polled from now on" in step.reason
        assert polled(feed) and feed.find_legacy() is None
        assert feed.current.tables == (*nat().tables, *LEGACY.tables)
        assert feed.take_lag() == 3
        kernel.mirror.lag = 9
        assert feed.take_lag() == 9
    assert kernel.poller.closed


def test_where_no_backend_is_legacy_its_tables_are_not_looked_for() -> None:
    kernel.legacy = True
    with Feed(HERE, (V4,), (Backend.NFT,)) as feed:
        assert not polled(feed)


def test_a_legacy_change_is_compared_rule_by_rule_in_the_followed_chains() -> None:
    kernel.legacy = True
    with Feed(HERE) as feed:
        feed.follow = frozenset({CHAIN, ("ip6", "nat", "POSTROUTING")})
        kernel.poller.seen.put(emptied())
        until(lambda: kernel.mirror.woken)
        step = feed.next(1.0)
        assert step is not None and step.changes is not None and step.writer == FLANNELD
        (change,) = step.changes
        assert (change.backend, change.chains, change.removed, change.added) == (
            Backend.LEGACY, frozenset({"FLANNEL-POSTRTG"}), 6, 0,
        )  # fmt: skip
        assert feed.current.tables[-1:] == EMPTIED.tables


def test_what_the_poller_sees_while_the_mirror_waits_is_the_next_step() -> None:
    kernel.legacy = True
    with Feed(HERE) as feed:
        kernel.mirror.during = lambda: feed._snapshots.append(emptied(None))
        step = feed.next(1.0)
        assert step is not None and step.t == 20


def test_a_poller_that_fails_ends_the_feed() -> None:
    kernel.legacy = True
    with Feed(HERE) as feed:
        kernel.poller.seen.put(KernelError("read", "table nat", 12))
        until(lambda: kernel.mirror.woken)
        with pytest.raises(HitlessError, match="table nat"):
            feed.next(1.0)
        with pytest.raises(HitlessError, match="table nat"):
            feed.finish()


def test_the_last_changes_of_both_paths_are_waited_for() -> None:
    kernel.legacy = True
    with Feed(HERE) as feed:
        assert not behind(feed)
        kernel.mirror.committed = 6
        kernel.poller.left = [emptied()]
        feed.finish()
        assert behind(feed)
        assert feed.next(1.0) is not None  # of the poller
        assert behind(feed)
        kernel.mirror.generation = 6
        assert not behind(feed)
        kernel.mirror.generation = 7  # of somebody who wrote later
        assert not behind(feed)


def test_legacy_tables_that_cannot_be_read_leave_nothing_open() -> None:
    kernel.legacy, kernel.unreadable = True, KernelError("read", "table nat", 12)
    threads = threading.active_count()
    with pytest.raises(HitlessError, match="table nat"):
        Feed(HERE)
    assert kernel.mirror.closed and kernel.poller.closed
    assert threading.active_count() == threads


def test_the_rule_set_of_now_knows_the_nodes_facts() -> None:
    with Feed(HERE) as feed:
        assert feed.current == Ruleset(nat().tables, node=kernel.surroundings)  # type: ignore[arg-type]
