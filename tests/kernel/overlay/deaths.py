"""A life of the overlay's worker in a child process, on a real kernel, which may be killed at any of its writes.

``story`` names the transitions: those of the unit tests, which run on the fake kernel, and some that begin with nothing
or with damage. ``tried`` goes through one of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tests.kernel.nftables.nodes import Node, node, programs
from tests.unit.overlay.test_transitions import TRANSITIONS, kept
from tests.unit.overlay.worlds import NETWORKS, UNDERLAY, cluster, unreached

from hitless.agent.overlay.worker import Worker
from hitless.kernel.links import Links, features
from hitless.kernel.links.scope import Scope
from hitless.kernel.namespaces import Namespace
from hitless.kernel.rtnetlink import formats
from hitless.model.links import (
    Device,
    DeviceAddress,
    ForwardingEntry,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Verb,
    is_overlay_device,
)
from hitless.model.overlay import HostGw, OverlaySnapshot
from hitless.testing.fake_links import FakeLinks

SCOPE = Scope(tuple(NETWORKS.values()))
GAPS = frozenset(("this node's hardware address", "GBP"))
"""Transitions in which the kernel itself forgets peers for a moment (docs/overlay.md)."""
_TURNS = 5
_READS = frozenset((formats.GETLINK, formats.GETADDR, formats.GETROUTE, formats.GETNEIGH))
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Life:
    """``writes`` that were made, and ``lost``: peers without a way after one of them; ``killed``: by ourselves."""

    writes: int = 0
    lost: tuple[str, ...] = ()
    settled: bool = False
    killed: bool = False


class _Gate:
    """Passes each write to the kernel by itself; dies before or after one of them."""

    def __init__(self, die: tuple[int, bool] | None, look: Callable[[], None]) -> None:
        self._die, self._look, self.writes = die, look, 0

    def write(self, act: Callable[[], _T]) -> _T:
        if self._die == (self.writes, True):
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return act()
        finally:
            number, self.writes = self.writes, self.writes + 1
            self._look()
            if self._die == (number, False):
                os.kill(os.getpid(), signal.SIGKILL)

    def guard(self, links: Links) -> None:
        """Put it in front of everything that writes."""
        door = links._socket
        request, requests, switch, sysctl = (
            door.request,
            door.requests,
            features.switch,
            features.accept_no_advertisements,
        )

        def one(kind: int, flags: int, payload: bytes, *, operation: str, subject: str) -> object:
            def act() -> object:
                return request(kind, flags, payload, operation=operation, subject=subject)

            return act() if kind in _READS else self.write(act)

        def many(parts: Sequence[tuple[int, int, bytes]], *, operation: str, subject: str) -> object:
            found: list[object] = []
            for part in parts:
                found += self.write(partial(requests, [part], operation=operation, subject=subject))
            return found

        door.request, door.requests = one, many  # type: ignore[method-assign,assignment]
        features.switch = lambda *words: self.write(lambda: switch(*words))
        features.accept_no_advertisements = lambda *words: self.write(lambda: sysctl(*words))


def live(
    place: Namespace, snapshot: OverlaySnapshot, watched: OverlaySnapshot | None, die: tuple[int, bool] | None = None
) -> Life:
    """A start of the agent's overlay with this snapshot, in a process of its own. ``watched``: the peers that may not
    be without a way after any write."""
    told, say = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(told)
            os.write(say, json.dumps(_life(place, snapshot, watched, die)).encode())
        except BaseException as error:  # noqa: BLE001 - the child's border: the parent says it
            os.write(say, json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        finally:
            os._exit(0)
    os.close(say)
    with os.fdopen(told, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Life(killed=True)
    found = json.loads(text)
    assert "error" not in found, found["error"]
    return Life(found["writes"], tuple(found["lost"]), found["settled"])


def _life(
    place: Namespace, snapshot: OverlaySnapshot, watched: OverlaySnapshot | None, die: tuple[int, bool] | None
) -> dict[str, object]:
    lost: list[str] = []
    now = [0.0]

    def clock() -> float:
        now[0] += 0.001
        return now[0]

    with Links(place) as links, Links(place) as eyes:

        def look() -> None:
            if watched is not None and die is None:  # up to its death a life is the same as the whole one
                lost.extend(f"after write {gate.writes}: {one}" for one in unreached(seen(eyes), watched))

        gate = _Gate(die, look)
        gate.guard(links)
        worker = Worker(links, clock)
        worker.desire(snapshot, None)
        turn = worker.turn()
        for _ in range(_TURNS):
            if not turn.left and not turn.done:
                break
            turn = worker.turn()
        settled = not turn.left and not turn.refused and not turn.done
    return {"writes": gate.writes, "lost": lost, "settled": settled}


def seen(eyes: Links) -> FakeLinks:
    """What the kernel has, as something that can be asked for ways."""
    found = FakeLinks(UNDERLAY)
    found.objects = dict(objects(eyes))
    return found


def objects(eyes: Links) -> dict[Key, LinkObject]:
    """What of the kernel is the overlay's; without the addresses that the kernel gives."""
    found: dict[Key, LinkObject] = {}
    for key, one in eyes.observe(SCOPE).objects.items():
        if isinstance(one, Device) and not is_overlay_device(one.name):
            continue
        if isinstance(one, DeviceAddress) and one.address.is_link_local:
            continue
        if isinstance(one, Neighbour | ForwardingEntry) and not one.permanent:
            continue  # what it has learned itself
        found[key] = one
    return found


def clear(place: Namespace) -> None:
    """Nothing of an overlay is there any more."""
    with Links(place) as links:
        state = LinkState(objects(links))
        going = [one for one in state.objects.values() if isinstance(one, Device | Route)]
        going.sort(key=lambda one: isinstance(one, Device))
        for one in going:
            links.apply([LinkChange(Verb.REMOVE, one, one)])
        assert not objects(links)


@dataclass(frozen=True, slots=True)
class Story:
    """The snapshots that lead to the beginning, the one that is gone to, and damage while nobody looks."""

    history: tuple[OverlaySnapshot, ...]
    after: OverlaySnapshot
    damage: tuple[str, ...] = ()


STORIES: dict[str, Story] = {
    "first start": Story((), cluster()),
    "first start, host-gw": Story((), cluster(HostGw())),
    "devices deleted": Story((cluster(),), cluster(), ("link del flannel.1", "link del flannel-v6.1")),
    "devices switched off": Story((cluster(),), cluster(), ("link set flannel.1 down", "link set flannel-v6.1 down")),
    "a route deleted and one changed": Story(
        (cluster(),),
        cluster(),
        ("route del 10.42.2.0/24", "route replace 10.42.3.0/24 via 192.0.2.99", "-6 route del fd42:0:0:2::/64"),
    ),
} | {
    name: Story((cluster(), before) if name == "VNI, the last peers follow" else (before,), after)
    for name, (before, after) in TRANSITIONS.items()
}


@contextlib.contextmanager
def place() -> Iterator[Node]:
    """A node with the outer interface of the unit tests' cluster."""
    programs("ip")
    with node() as made:
        lines = "link add eth0 type veth peer name other\nlink set other up\nlink set eth0 up\n"
        lines += "addr add 192.0.2.1/24 dev eth0\naddr add fd00::1/64 dev eth0 nodad\n"
        made.run("ip", "-batch", "-", stdin=lines)
        yield made


@dataclass(frozen=True, slots=True)
class Tally:
    """``writes`` of the whole transition, ``deaths`` that were tried, and what was wrong after them."""

    writes: int
    deaths: int
    wrong: tuple[str, ...]


def tried(made: Node, name: str, every: int = 1) -> Tally:
    """One story: whole, then with a death before and after every write (or every so many of them); each time the next
    start has to lead to the same state, and no peer of both may be without a way meanwhile."""
    story, place = STORIES[name], made.namespace
    after, before = story.after, story.history[-1] if story.history else None
    watched = kept(after, before) if before is not None and name not in GAPS and not story.damage else None
    wrong: list[str] = []

    def prepare() -> None:
        clear(place)
        for one in story.history:
            assert live(place, one, None).settled
        for words in story.damage:
            made.run("ip", *words.split())

    prepare()
    whole = live(place, after, watched)
    wrong += [f"whole: {one}" for one in whole.lost] + ([] if whole.settled else ["whole: it does not settle"])
    with Links(place) as eyes:
        target = objects(eyes)
    wrong += [f"whole: {one}" for one in unreached(_state(target), after)]
    deaths = 0
    for number in range(0, whole.writes, every):
        for early in (True, False):
            where = f"{'before' if early else 'after'} write {number}"
            prepare()
            if not live(place, after, None, (number, early)).killed:
                wrong.append(f"{where}: it was not reached")
                continue
            deaths += 1
            again = live(place, after, watched)
            wrong += [f"killed {where}, then {one}" for one in again.lost]
            wrong += [] if again.settled else [f"killed {where}: the next start does not settle"]
            with Links(place) as eyes:
                found = objects(eyes)
            if found != target:
                differing = sorted(
                    str(key) for key in found.keys() | target.keys() if found.get(key) != target.get(key)
                )
                wrong.append(f"killed {where}: another state: {', '.join(differing)}")
    return Tally(whole.writes, deaths, tuple(wrong))


def _state(found: dict[Key, LinkObject]) -> FakeLinks:
    made = FakeLinks(UNDERLAY)
    made.objects = dict(found)
    return made
