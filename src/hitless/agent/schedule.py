"""What is due when. Pure: time comes in, and nothing is done here.

Problem: damage must be repaired within milliseconds, a fight or a failure must not become a loop at full speed, and
what costs much must not be asked often. Promise: a look at our own rules is due at once when something called for it,
but never before a fight's delay or a retry's gap is over, and otherwise every ``resync`` seconds; healing is due at
once after a repair and twice again; the question what becomes of the pods' packets is due every second, at once behind
a repair, soon after somebody else's change, and takes a fiftieth of the time at most (what took long once, as the first
reading does, does not count: only what does so again). Comparisons and evaluations that take long are made
more seldom. Next stage: ``loop``.
"""

from __future__ import annotations

from hitless.agent.reloads import Reload
from hitless.agent.retries import Retries

__all__ = ["GRACE", "AgentSchedule"]

GRACE = 10.0  # seconds over three missed comparisons before the last one is called stale
_BACKEND_EVERY = 60.0  # seconds between looks at which backend the kubelet uses
_HEAL = (0.0, 0.05, 0.12)  # at once, and again: packets under way at the commit may still bind to the old rules
_RETRY = 0.5  # after a failure, unless an event comes first
_PULSE = 1.0  # seconds between questions whether anything else that pods' packets meet has changed
_PULSE_LEAST = 0.1  # from a change of somebody else's rules to the question what it means
_PULSE_SHARE = 50  # and such questions take a fiftieth of the time, however often others write
_FAILED_SHARE = 3  # a question that failed is asked again after so many times what it took
_SHARE = 400  # full comparisons may take a 400th of the time: in legacy they cost up to 0.1 s
_WHOLE_EVERY = 30.0  # seconds at least between evaluations that no change calls for; changes are noticed by the pulse
_WHOLE_SHARE = 2000  # and such evaluations may take a 2000th of the time
_IDLE = 3600.0  # while there is nothing to do


class AgentSchedule:
    """Times of one loop. ``reload``: whether somebody is at work on whole tables."""

    def __init__(self, resync: float) -> None:
        self._resync = resync
        self.reload = Reload()
        self._retries = Retries()
        self._look = self._not_before = 0.0
        self._called = self._stirred = False  # since the last look, or judgement, began
        self._backend = 0.0
        self._judge = 0.0
        self._asks: float | None = None  # when to ask about the pods' packets whatever has changed
        self._asking = 0.0  # seconds that the last answer took
        self._pulse = self._pulse_after = 0.0
        self._heals: list[float] = []

    # --- what calls for something

    def call(self) -> None:
        """Our rules may have changed: look as soon as may be."""
        self._called = True

    def stir(self, now: float) -> bool:
        """Somebody else's rules have changed: ask soon what that means. Whether that is sooner than it was."""
        self._stirred = True
        before, self._pulse = self._pulse, min(self._pulse, max(now + _PULSE_LEAST, self._pulse_after))
        return self._pulse < before

    def anew(self) -> None:
        """There is something else to do: what failed before does not count, and the backend is chosen again."""
        self._retries.anew()
        self._called, self._backend = True, 0.0

    # --- what is due

    def pause(self, now: float, *, looks: bool, judges: bool) -> float:
        """Seconds until something is due. A fight's delay holds looks back, not healing."""
        times = [self._look_at() if looks else now + _IDLE, *self._heals[:1]]
        if judges:
            times.append(self._pulse if self._asks is None else min(self._pulse, self._asks))
        return max(0.0, min(times) - now)

    def look_due(self, now: float) -> bool:
        """Whether to look at our own rules."""
        return now >= self._look_at()

    def judge_due(self, now: float) -> bool:
        """Whether the pods' packets are asked about after a look even though nothing calls for it."""
        return now >= self._judge

    def pulse_due(self, now: float) -> bool:
        """Whether to see if the answer about the pods' packets may have changed."""
        return now >= self._pulse

    def asks(self, now: float) -> bool:
        """Whether to ask about the pods' packets whatever has changed."""
        return self._asks is not None and now >= self._asks

    def backend_due(self, now: float) -> bool:
        """Whether to choose the backend again: the kubelet may come after us, or change its mind."""
        return now >= self._backend

    @property
    def heals(self) -> bool:
        """Whether to heal once more, now or later."""
        return bool(self._heals)

    def take_heal(self, now: float) -> bool:
        """Whether to heal; that time is then used up."""
        if self._heals and self._heals[0] <= now:
            del self._heals[0]
            return True
        return False

    def _look_at(self) -> float:
        return max(0.0 if self._called else self._look, self._not_before, self._retries.not_before)

    # --- what was done

    def looking(self, now: float) -> None:
        """A look begins; where it comes to nothing the next one follows soon."""
        self._called, self._look = False, now + _RETRY

    def looked(self, now: float, cost: float, *, clean: bool, bridged: bool) -> float:
        """A look is over, and took ``cost`` seconds; the longest time between two of them from now on. ``clean``:
        everything is right; ``bridged``: all is done that can be while tables are reloaded."""
        period = max(self._resync, cost * _SHARE)
        self._look = self.reload.due if bridged else now + (period if clean else _RETRY)
        return period

    def chosen(self, now: float) -> None:
        """The backend was chosen."""
        self._backend = now + _BACKEND_EVERY

    def ask(self) -> None:
        """Ask about the pods' packets as soon as may be, whatever has changed."""
        self._asks = 0.0

    def judging(self, *, whole: bool) -> None:
        """The pods' packets are asked about: what is stirred from now on may be too late for the answer. ``whole``:
        whatever has changed."""
        self._stirred = False
        if whole:
            self._asks = None

    def judged(self, now: float, cost: float, *, asked: bool, answered: bool) -> None:
        """The pods' packets were asked about; not ``asked``: only if anything had changed. ``answered``: they were
        judged."""
        if answered:
            cost, self._asking = min(cost, self._asking), cost
        self._pulse_after = now + max(_PULSE_LEAST, _PULSE_SHARE * cost)
        self._pulse = self._pulse_after if self._stirred else max(now + _PULSE, self._pulse_after)
        if asked:
            self._judge = now + max(_WHOLE_EVERY, _WHOLE_SHARE * cost)

    def not_judged(self, now: float, cost: float) -> None:
        """That failed: ask again later."""
        self._asks = self._pulse = self._pulse_after = now + max(_PULSE, _FAILED_SHARE * cost)

    def confirm(self) -> None:
        """The answer is another one: look, and ask again behind that."""
        self._look = self._judge = 0.0

    def repaired(self, now: float, *, healed: bool) -> None:
        """Rules were made: flows that were bound without them are to be freed. ``healed``: once it was done."""
        self._heals = [now + pause for pause in (_HEAL[1:] if healed else _HEAL)]

    def slow_down(self, now: float, delay: float) -> None:
        """A fight: the next repair comes no sooner."""
        self._not_before = now + delay

    def failed(self, now: float) -> None:
        """A try failed: after some, the next ones come more and more seldom."""
        self._retries.failed(now)

    def worked(self) -> None:
        """A try did not fail."""
        self._retries.anew()
