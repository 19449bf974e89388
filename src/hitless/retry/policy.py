"""How long, how often and what is tried again.

Problem: a retry that is too quick hits the same gap, one that is too patient waits for a flow that stays dead, one that
repeats a payment does harm. Promise: a ``Policy`` is a frozen value with defaults for a network agent's restart: an
attempt to connect gives up after 2 s (a flow that began in the gap stays dead, however long one waits), attempts go on
until ``deadline``, with full jitter between them, paid from a budget; what may have reached the server is repeated only
where that is safe. tenacity does the counting; stamina was the model of the defaults.
"""

from __future__ import annotations

import functools
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

import tenacity

from hitless.retry.budgets import Budget
from hitless.retry.gaps import GapKind, classify

__all__ = ["DEFAULT", "IDEMPOTENT", "Policy", "Retry", "log_retry", "refuse_fixed_port", "run", "run_async"]

_T = TypeVar("_T")
_P = ParamSpec("_P")
_log = logging.getLogger("hitless.retry")

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods that may be repeated (RFC 9110, section 9.2.2)."""

_SHARED = Budget()


@dataclass(frozen=True, slots=True)
class Retry:
    """What a hook receives, before the wait or when no further attempt is made.

    ``name``: of the function, method and URL, or address. ``attempt``: the number of the one that failed, from 1.
    ``gap``: ``None`` where the error is none of a gap's. ``wait``: seconds until the next attempt, ``None`` when there
    is none; then ``why`` says what ended it.
    """

    name: str
    attempt: int
    error: BaseException
    gap: GapKind | None
    elapsed: float
    wait: float | None
    why: str = ""


def log_retry(retry: Retry) -> None:
    """The default hook: a line in the logger ``hitless.retry``; giving up is an error, a retry a warning."""
    kind = type(retry.error).__name__
    if retry.wait is not None:
        text = "%s: attempt %d failed after %.1f s (%s); the next one, on a new connection, in %.2f s"
        _log.warning(text, retry.name, retry.attempt, retry.elapsed, kind, retry.wait)
    else:
        text = "%s: attempt %d failed after %.1f s (%s); not tried again: %s"
        _log.error(text, retry.name, retry.attempt, retry.elapsed, kind, retry.why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When to try again.

    ``deadline``: seconds for all attempts together, waiting included. ``attempts``: at most so many (``None``: as many
    as fit). ``connect_timeout``: seconds for one attempt to connect. ``wait_initial``, ``wait_max``: the n-th wait is
    drawn from 0 to ``wait_initial * 2**(n-1)``, at most ``wait_max``. ``methods``: HTTP methods that may be repeated;
    the others are sent once. ``unsent``: methods outside of ``methods`` are repeated where nothing had been sent.
    ``broken``: what is safe to repeat is repeated also after a connection broke in use. ``hooks`` are called for each
    failed attempt of a gap; what they raise is logged and goes no further.
    """

    deadline: float = 45.0
    attempts: int | None = None
    connect_timeout: float = 2.0
    wait_initial: float = 0.1
    wait_max: float = 2.0
    methods: frozenset[str] = IDEMPOTENT
    unsent: bool = False
    broken: bool = False
    budget: Budget | None = field(default=_SHARED)
    hooks: tuple[Callable[[Retry], None], ...] = (log_retry,)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[float, float], float] = random.uniform

    def __post_init__(self) -> None:
        for name in ("deadline", "connect_timeout", "wait_initial", "wait_max"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}: a number of seconds above 0 is expected")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts!r}: 1 or more is expected, or None for as many as fit")
        object.__setattr__(self, "methods", frozenset(one.upper() for one in self.methods))

    def allows(self, gap: GapKind | None, *, repeatable: bool) -> bool:
        """Whether a request that met this gap may be sent again; ``repeatable``: doing it twice does no harm."""
        if gap is None:
            return False
        if gap is GapKind.BROKEN:
            return self.broken and repeatable
        return repeatable or self.unsent

    def allows_request(self, method: str, *, whole: bool) -> Callable[[GapKind], bool]:
        """The same for an HTTP request; ``whole``: its body is held and can be sent again."""
        repeatable = method.upper() in self.methods
        return lambda gap: whole and self.allows(gap, repeatable=repeatable)

    def on_gap(self, *, repeatable: bool = False) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
        """Decorate a function, plain or ``async``, to be called again where a gap kept it from connecting.

        It must make its connection itself, so that the next call makes a new one. ``repeatable`` says that it may be
        called again also where something may have been sent: then ``broken`` counts, and a plain ``TimeoutError``,
        which does not show whether it came while connecting.
        """

        def decorate(function: Callable[_P, _T]) -> Callable[_P, _T]:
            def judge(error: BaseException) -> GapKind | None:
                return classify(error) or (GapKind.CONNECT if repeatable and type(error) is TimeoutError else None)

            name = getattr(function, "__qualname__", repr(function))
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def asynchronous(*args: _P.args, **kwargs: _P.kwargs) -> Any:
                    call = cast(Callable[[], Awaitable[Any]], functools.partial(function, *args, **kwargs))
                    # a function that was decorated is one that may be called again where nothing was sent
                    return await run_async(self, lambda _: call(), name=name, allowed=allowed, judge=judge)

                return cast(Callable[_P, _T], asynchronous)

            @functools.wraps(function)
            def plain(*args: _P.args, **kwargs: _P.kwargs) -> _T:
                return run(self, lambda _: function(*args, **kwargs), name=name, allowed=allowed, judge=judge)

            return plain

        def allowed(gap: GapKind) -> bool:
            return gap is not GapKind.BROKEN or self.allows(gap, repeatable=repeatable)

        return decorate


DEFAULT = Policy()
"""For a client that has no reason to differ."""


def refuse_fixed_port(source: tuple[Any, ...] | None) -> None:
    """Raise ``ValueError`` for a local address with a port of its own: it would repeat the dead flow."""
    if source is not None and source[1] != 0:
        raise ValueError(
            f"the source port {source[1]} is fixed: a repeated attempt would use the dead flow again; give port 0"
        )


class _Course:
    """The attempts of one request: what tenacity asks after each of them, in this order."""

    def __init__(
        self,
        policy: Policy,
        name: str,
        allowed: Callable[[GapKind], bool],
        judge: Callable[[BaseException], GapKind | None],
    ) -> None:
        self.policy, self.name, self._allowed, self._judge = policy, name, allowed, judge
        self._begin = policy.clock()
        self._gap: GapKind | None = None
        self._forbidden: BaseException | None = None
        if policy.budget is not None:
            policy.budget.request()

    def timeout(self) -> float:
        """Seconds that the next attempt may take to connect."""
        return max(0.001, min(self.policy.connect_timeout, self.policy.deadline - self._elapsed()))

    def again(self, error: BaseException) -> bool:
        self._gap = self._judge(error)
        if self._gap is None:
            return False
        if not self._allowed(self._gap):
            self._forbidden = error
        return True

    def wait(self, state: tenacity.RetryCallState) -> float:
        most = min(self.policy.wait_max, self.policy.wait_initial * 2 ** min(state.attempt_number - 1, 30))
        return self.policy.draw(0.0, most)

    def stop(self, state: tenacity.RetryCallState) -> bool:
        policy, why = self.policy, ""
        if self._forbidden is not None:
            why = "it may not be repeated" if self._gap is not GapKind.BROKEN else "a connection broke that was in use"
        elif policy.attempts is not None and state.attempt_number >= policy.attempts:
            why = f"all {policy.attempts} attempts are made"
        elif self._elapsed() + state.upcoming_sleep >= policy.deadline:
            why = f"the deadline of {policy.deadline:g} s"
        elif policy.budget is not None and not policy.budget.take():
            why = "the retry budget is spent"
        if why:
            error = _error(state)
            error.add_note(f"hitless.retry: not tried again after {state.attempt_number} attempts: {why}")
            self._call_hooks(state, None, why)
        return bool(why)

    def before_sleep(self, state: tenacity.RetryCallState) -> None:
        self._call_hooks(state, state.upcoming_sleep, "")

    def _elapsed(self) -> float:
        return self.policy.clock() - self._begin

    def _call_hooks(self, state: tenacity.RetryCallState, wait: float | None, why: str) -> None:
        retry = Retry(self.name, state.attempt_number, _error(state), self._gap, self._elapsed(), wait, why)
        for hook in self.policy.hooks:
            try:
                hook(retry)
            except Exception:  # noqa: BLE001 - a hook is the caller's code: the request goes on
                _log.exception("a hook of hitless.retry failed")


def _error(state: tenacity.RetryCallState) -> BaseException:
    outcome = state.outcome
    error = outcome.exception() if outcome is not None else None
    return error if error is not None else RuntimeError("an attempt that failed without an error")


def run(
    policy: Policy,
    action: Callable[[float], _T],
    *,
    name: str,
    allowed: Callable[[GapKind], bool],
    judge: Callable[[BaseException], GapKind | None] = classify,
) -> _T:
    """Call ``action`` with the seconds that it has to connect, until it returns or may not be called again."""
    course = _Course(policy, name, allowed, judge)
    retrying = tenacity.Retrying(
        stop=course.stop,
        wait=course.wait,
        retry=tenacity.retry_if_exception(course.again),
        before_sleep=course.before_sleep,
        sleep=policy.sleep,
        reraise=True,
    )
    return retrying(lambda: action(course.timeout()))


async def run_async(
    policy: Policy,
    action: Callable[[float], Awaitable[_T]],
    *,
    name: str,
    allowed: Callable[[GapKind], bool],
    judge: Callable[[BaseException], GapKind | None] = classify,
) -> _T:
    """The same for coroutines, under asyncio or trio; ``policy.sleep`` is not used."""
    course = _Course(policy, name, allowed, judge)
    retrying = tenacity.AsyncRetrying(
        stop=course.stop,
        wait=course.wait,
        retry=tenacity.retry_if_exception(course.again),
        before_sleep=course.before_sleep,
        reraise=True,
    )

    async def attempt() -> _T:
        return await action(course.timeout())

    return cast(_T, await retrying(attempt))
