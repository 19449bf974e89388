"""Reading chains and sets that become of interest, as they are in the current generation.

Problem: a rule that becomes of interest refers to chains and sets of which only the names are known, and other programs
may commit while these are read. Promise: what was read is added to the state (``Replay.supply``) only if certainly no
commit between the state and the read changed it; what was read ahead of the state waits for its commit; what other
programs change too quickly is read later. Until then its contents are unknown. Next stage: ``mirror``.
"""

from __future__ import annotations

from collections.abc import Iterable

from hitless.errors import NotFound
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.nftables import dump
from hitless.kernel.nftables.interest import ObjectRef, identity
from hitless.kernel.nftables.receiving import Receiver, after
from hitless.kernel.nftables.replay import Replay, heads_only
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey

__all__ = ["CATCH_UP_S", "FETCH_AGAIN_S", "Fetcher"]

CATCH_UP_S = 0.2  # waiting for the events of commits during a read
FETCH_AGAIN_S = 0.1
_FETCHES = 4  # attempts to read a chain or set before it is put off
_MOST_KEPT = 48 << 20  # bytes of elements, over all sets


class Fetcher:
    """To be used by the thread that owns the replay."""

    def __init__(self, control: netlink.Socket, receiver: Receiver, replay: Replay, clock: Clock) -> None:
        self._control, self._receiver, self._replay, self._clock = control, receiver, replay, clock
        self._needs: list[tuple[TableKey, ObjectRef]] = []  # to be read later
        self._coming: list[tuple[int, TableKey, ObjectRef, ChainState | SetState]] = []  # read ahead of the state
        self._again_at = 0.0

    @property
    def waiting(self) -> bool:
        """Whether something is still to be read."""
        return bool(self._needs)

    @property
    def ahead(self) -> bool:
        """Whether something was read ahead of the state."""
        return bool(self._coming)

    @property
    def due(self) -> bool:
        """Whether it is time to read it."""
        return bool(self._needs) and self._clock.monotonic() >= self._again_at

    def forget(self) -> None:
        """Forget everything, because all rules will be read again."""
        self._needs.clear()
        self._coming.clear()

    def settle(self, needs: Iterable[tuple[TableKey, ObjectRef]]) -> bool:
        """Add what is of interest now to the state; returns whether anything was added. What cannot be read as of this
        generation is added later, and counts as unknown until then."""
        before = self._replay.state
        generation = before.generation
        for read_at, key, ref, found in [each for each in self._coming if not after(each[0], generation)]:
            self._coming.remove((read_at, key, ref, found))
            needs = (*needs, *self._replay.supply(key, ref, found))
        todo = list(needs)
        while todo:
            key, ref = todo.pop()
            if any((key, ref) == (each[1], each[2]) for each in self._coming):
                continue
            for _ in range(_FETCHES):
                try:
                    reading = dump.read_object(self._control, key, ref)
                except NotFound:
                    break  # it was deleted again, as a later commit will show
                except netlink.TornError:
                    continue
                if isinstance(reading.found, SetState) and not self._fits(reading.found):
                    reading.found.drop_as_too_large()
                what = identity(key, ref)
                if self._untouched(what, generation, reading.last):
                    todo += self._replay.supply(key, ref, reading.found)
                    break
                if self._untouched(what, reading.first, reading.last):
                    self._coming.append((reading.last, key, ref, reading.found))
                    break
            else:
                self._needs.append((key, ref))
                self._again_at = self._clock.monotonic() + FETCH_AGAIN_S
        return self._replay.state is not before

    def settle_ahead(self) -> bool:
        """Add what was read ahead of collapsed commits: they changed nothing else that is kept, and would only be
        reported with the next commit that does. Returns whether anything was added."""
        before, receiver = self._replay.state, self._receiver
        if not receiver.queue.empty() or after(receiver.mattered, before.generation):
            return False
        needs: list[tuple[TableKey, ObjectRef]] = []
        for each in list(self._coming):
            read_at, key, ref, found = each
            touched = receiver.touched.get(identity(key, ref), read_at)
            if not after(read_at, receiver.generation) and not after(touched, read_at):
                self._coming.remove(each)
                needs += self._replay.supply(key, ref, found)
        self.settle(needs)
        return self._replay.state is not before

    def fetch_late(self) -> bool:
        """Try again to read what could not be read; returns whether something was added, or does not exist any more."""
        needs, self._needs = self._needs, []
        self.settle(needs)
        return len(self._needs) != len(needs)

    def undisturbed(self, state: State, generation: int) -> bool:
        """Whether commits up to ``generation`` changed nothing that ``state`` (read meanwhile) keeps."""
        receiver = self._receiver
        if not receiver.caught_up(generation, CATCH_UP_S) or after(receiver.mattered, state.generation):
            # what this read shows as irrelevant must not disturb the next one
            receiver.skipped.update(heads_only(state))
            return False
        foreign = heads_only(state)
        return all(each in foreign for each, last in list(receiver.touched.items()) if after(last, state.generation))

    def _untouched(self, what: bytes, first: int, last: int) -> bool:
        """Whether no commit after ``first`` and up to ``last`` can have changed this chain or set."""
        if not after(last, first):
            return True
        receiver = self._receiver
        if not receiver.caught_up(last, CATCH_UP_S) or after(receiver.mattered, first):
            return False
        touched = receiver.touched.get(what)
        return touched is None or not after(touched, first)

    def _fits(self, found: SetState) -> bool:
        sets = (each for table in self._replay.state.tables.values() for each in table.sets.values())
        return found.kept and sum(each.size for each in sets if each.size) + found.size <= _MOST_KEPT
