"""When each step of the agent's loop is due. Pure: the time is an argument, and nothing is done here.

Problem: damage must be repaired within milliseconds, a fight or a failure must not become a loop at full speed, and
expensive questions must be rare. Promise:

- A pass over our own rules is due at once when an event requests it, but never before the delay of a fight or of a
  retry is over, and otherwise every ``resync`` seconds.
- Healing is due right after a repair and twice again.
- An evaluation of what becomes of the pods' packets is due right after a repair. A check whether anything changed that
  could alter its result is due every second, and sooner after other programs' commits. These take a fiftieth of the
  time at most; a single long one, such as the first read, does not count.
- Full passes and evaluations are less frequent where they take long.

Next stage: ``loop``.
"""

from __future__ import annotations

from hitless.agent.reloads import Reload
from hitless.agent.retries import Retries

__all__ = ["GRACE", "AgentSchedule"]

GRACE = 10.0  # seconds over three missed passes before the last one counts as stale
_BACKEND_EVERY = 60.0  # seconds between checks of which backend the kubelet uses
_HEAL = (0.0, 0.05, 0.12)  # at once, and again: packets under way at the commit may still bind to the old rules
_RETRY = 0.5  # after a failure, unless an event comes first
_CHECK = 1.0  # seconds between checks whether an evaluation could have another result
_CHECK_LEAST = 0.1  # from another program's commit to that check
_CHECK_SHARE = 50  # checks and the evaluations that they cause take a fiftieth of the time, however often others write
_FAILED_SHARE = 3  # a failed evaluation is repeated after so many times what it took
_SHARE = 400  # full passes may take a 400th of the time: with iptables-legacy they cost up to 0.1 s
_FULL_EVERY = 30.0  # seconds at least between evaluations that no change requests; changes are noticed by the check
_FULL_SHARE = 5000  # and such evaluations may take a 5000th of the time,
_FULL_MOST = 3600.0  # seconds at most between them: a slow one, on a busy machine, must not postpone the next for long
_IDLE = 3600.0  # while there is nothing to do


class AgentSchedule:
    """Times of one loop. ``reload``: whether another program is reloading whole tables."""

    def __init__(self, resync: float) -> None:
        self._resync = resync
        self.reload = Reload()
        self._retries = Retries()
        self._next_pass = self._not_before = 0.0
        self._requested = False  # a pass, since the last one began
        self._foreign = False  # other programs committed since the last check or evaluation began
        self._backend = 0.0
        self._next_full = 0.0
        self._evaluate_at: float | None = None  # when to evaluate regardless of what has changed
        self._evaluation_cost = 0.0  # seconds that the last evaluation took
        self._next_check = self._check_not_before = 0.0
        self._heals: list[float] = []

    # --- requests

    def request_pass(self) -> None:
        """Our rules may have changed: compare as soon as possible."""
        self._requested = True

    def foreign_change(self, now: float) -> bool:
        """Other programs' rules have changed: check soon what that means. Whether the next check is sooner now."""
        self._foreign = True
        before = self._next_check
        self._next_check = min(before, max(now + _CHECK_LEAST, self._check_not_before))
        return self._next_check < before

    def restart(self) -> None:
        """There is another desired state: earlier failures do not count, and the backend is chosen again."""
        self._retries.reset()
        self._requested, self._backend = True, 0.0

    def request_evaluation(self) -> None:
        """Evaluate the pods' packets as soon as possible, regardless of what has changed."""
        self._evaluate_at = 0.0

    # --- what is due

    def pause(self, now: float, *, passes: bool, evaluates: bool) -> float:
        """Seconds until something is due. A fight's delay postpones passes, not healing."""
        times = [self._pass_at() if passes else now + _IDLE, *self._heals[:1]]
        if evaluates:
            times.append(self._next_check if self._evaluate_at is None else min(self._next_check, self._evaluate_at))
        return max(0.0, min(times) - now)

    def pass_due(self, now: float) -> bool:
        """Whether to compare our own rules."""
        return now >= self._pass_at()

    def full_evaluation_due(self, now: float) -> bool:
        """Whether an evaluation follows a pass although nothing requests it."""
        return now >= self._next_full

    def check_due(self, now: float) -> bool:
        """Whether to check if the result of the last evaluation may have changed."""
        return now >= self._next_check

    def evaluation_due(self, now: float) -> bool:
        """Whether to evaluate regardless of what has changed."""
        return self._evaluate_at is not None and now >= self._evaluate_at

    def backend_due(self, now: float) -> bool:
        """Whether to choose the backend again: the kubelet may start after us, or change its backend."""
        return now >= self._backend

    @property
    def heals(self) -> bool:
        """Whether another healing is planned."""
        return bool(self._heals)

    def take_heal(self, now: float) -> bool:
        """Whether to heal now; that time is then used up."""
        if self._heals and self._heals[0] <= now:
            del self._heals[0]
            return True
        return False

    def _pass_at(self) -> float:
        return max(0.0 if self._requested else self._next_pass, self._not_before, self._retries.not_before)

    # --- what was done

    def pass_begun(self, now: float) -> None:
        """A pass begins; should it fail, the next one follows soon."""
        self._requested, self._next_pass = False, now + _RETRY

    def pass_ended(self, now: float, cost: float, *, clean: bool, bridged: bool) -> float:
        """A pass took ``cost`` seconds. Returns the longest time between two passes from now on. ``clean``: the rules
        are as desired; ``bridged``: all is done that can be done while tables are reloaded."""
        period = max(self._resync, cost * _SHARE)
        self._next_pass = self.reload.due if bridged else now + (period if clean else _RETRY)
        return period

    def backend_chosen(self, now: float) -> None:
        """The backend was chosen."""
        self._backend = now + _BACKEND_EVERY

    def evaluation_begun(self, *, full: bool) -> None:
        """A check or evaluation begins: commits from now on may be too late for it. ``full``: regardless of what has
        changed."""
        self._foreign = False
        if full:
            self._evaluate_at = None

    def evaluation_ended(self, now: float, cost: float, *, full: bool, evaluated: bool) -> None:
        """It took ``cost`` seconds. ``evaluated``: false if it was a check that found no change."""
        if evaluated:
            cost, self._evaluation_cost = min(cost, self._evaluation_cost), cost
        self._check_not_before = now + max(_CHECK_LEAST, _CHECK_SHARE * cost)
        self._next_check = self._check_not_before if self._foreign else max(now + _CHECK, self._check_not_before)
        if full:
            self._next_full = now + min(max(_FULL_EVERY, _FULL_SHARE * cost), _FULL_MOST)

    def evaluation_failed(self, now: float, cost: float) -> None:
        """It ended with an error: try again later."""
        self._evaluate_at = self._next_check = self._check_not_before = now + max(_CHECK, _FAILED_SHARE * cost)

    def confirm(self) -> None:
        """An evaluation had another result than before: compare our rules, then evaluate again."""
        self._next_pass = self._next_full = 0.0

    def repaired(self, now: float, *, healed: bool) -> None:
        """Rules were written: flows that were bound without them must be freed. ``healed``: that was done once."""
        self._heals = [now + pause for pause in (_HEAL[1:] if healed else _HEAL)]

    def slow_down(self, now: float, delay: float) -> None:
        """A fight: the next pass comes no sooner."""
        self._not_before = now + delay

    def failed(self, now: float) -> None:
        """A pass failed: after some failures the delay grows."""
        self._retries.failed(now)

    def succeeded(self) -> None:
        """A pass did not fail."""
        self._retries.reset()
