"""When something is tried again, and when not: virtual time, no network."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless import retry


class Time:
    """A clock that only sleeping moves, and every attempt by what it takes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def policy(time: Time, told: list[retry.Retry] | None = None, **more: object) -> retry.Policy:
    hooks = () if told is None else (told.append,)
    given: dict[str, object] = {"budget": None, "draw": lambda _, most: most, **more}
    return retry.Policy(clock=time.clock, sleep=time.sleep, hooks=hooks, **given)  # type: ignore[arg-type]


def failing(
    time: Time, error: Callable[[], BaseException], takes: float = 2.0, until: float = 1e9
) -> Callable[[], str]:
    def action() -> str:
        if time.now >= until:
            return "answer"
        time.now += takes
        raise error()

    return action


def unreachable() -> OSError:
    return OSError(errno.EHOSTUNREACH, "No route to host")


@given(st.floats(0.1, 40), st.floats(0.0, 2.0))
def test_a_gap_that_ends_before_the_deadline_costs_no_request(gap: float, takes: float) -> None:
    time = Time()
    action = failing(time, unreachable, takes, until=time.now + gap)
    assert policy(time).on_gap()(action)() == "answer"


@given(st.floats(0.5, 60), st.floats(0.0, 2.0))
def test_nothing_begins_after_the_deadline(deadline: float, takes: float) -> None:
    time = Time()
    begun: list[float] = []

    def action() -> None:
        begun.append(time.now)
        time.now += takes
        raise unreachable()

    with pytest.raises(OSError, match="No route to host"):
        policy(time, deadline=deadline).on_gap()(action)()
    assert all(at - begun[0] <= deadline + 1e-9 for at in begun)  # sums of floats


def test_waits_grow_to_the_longest_and_are_drawn_from_zero() -> None:
    time = Time()
    drawn: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return most

    with pytest.raises(OSError):
        policy(time, draw=draw, attempts=8).on_gap()(failing(time, unreachable, 0.0))()
    assert [most for _, most in drawn] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])
    assert {least for least, _ in drawn} == {0.0}
    assert time.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        socket.gaierror(socket.EAI_NONAME, "unknown"),
        ssl.SSLCertVerificationError(1, "certificate"),
        OSError(errno.EMFILE, "too many files"),
        OSError(errno.EADDRNOTAVAIL, "no such address here"),
        PermissionError(errno.EPERM, "not permitted"),
        ValueError("a defect"),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        ExceptionGroup("both", [unreachable(), ConnectionRefusedError(errno.ECONNREFUSED, "refused")]),
    ],
    ids=repr,
)
def test_what_is_no_gap_is_raised_at_once(error: BaseException) -> None:
    time, told = Time(), list[retry.Retry]()
    with pytest.raises(type(error)) as caught:
        policy(time, told).on_gap(repeatable=True)(failing(time, lambda: error, 0.0))()
    assert caught.value is error and time.slept == [] and told == []


@pytest.mark.parametrize(
    ("error", "gap"),
    [
        (OSError(errno.ETIMEDOUT, ""), retry.GapKind.CONNECT),
        (OSError(errno.ENETUNREACH, ""), retry.GapKind.CONNECT),
        (socket.gaierror(socket.EAI_AGAIN, ""), retry.GapKind.DNS),
        (ConnectionResetError(errno.ECONNRESET, ""), retry.GapKind.BROKEN),
        (ExceptionGroup("both", [unreachable(), OSError(errno.ETIMEDOUT, "")]), retry.GapKind.CONNECT),
        (ExceptionGroup("both", [unreachable(), BrokenPipeError(errno.EPIPE, "")]), retry.GapKind.BROKEN),
    ],
    ids=repr,
)
def test_the_kind_of_a_gap(error: BaseException, gap: retry.GapKind) -> None:
    assert retry.classify(error) is gap
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = error
    assert retry.classify(wrapped) is gap


def test_an_error_that_is_its_own_cause_ends() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert retry.classify(first) is None


def test_what_broke_in_use_is_repeated_only_where_both_sides_say_so() -> None:
    def broken() -> ConnectionResetError:
        return ConnectionResetError(errno.ECONNRESET, "reset")

    for repeatable, asked, again in ((True, True, True), (True, False, False), (False, True, False)):
        time, told = Time(), list[retry.Retry]()
        action = failing(time, broken, 0.1, until=time.now + 1)
        decorated = policy(time, told, broken=asked).on_gap(repeatable=repeatable)(action)
        if again:
            assert decorated() == "answer"
        else:
            with pytest.raises(ConnectionResetError) as caught:
                decorated()
            assert len(told) == 1 and told[0].wait is None and "connection broke" in told[0].why
            assert "not tried again" in caught.value.__notes__[0]


def test_a_time_out_of_unknown_phase_needs_leave() -> None:
    time = Time()
    action = failing(time, lambda: TimeoutError("timed out"), 0.1, until=time.now + 1)
    with pytest.raises(TimeoutError):
        policy(time).on_gap()(action)()
    assert policy(time).on_gap(repeatable=True)(action)() == "answer"


def test_coroutines_are_retried_too() -> None:
    calls = 0

    @retry.Policy(wait_initial=0.001, wait_max=0.001, budget=None, hooks=()).on_gap()
    async def ask() -> str:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise unreachable()
        return "answer"

    assert asyncio.run(ask()) == "answer" and calls == 4


def test_an_empty_budget_ends_retries_and_fills_again() -> None:
    time, told = Time(), list[retry.Retry]()
    budget = retry.Budget(per_second=1, share=0, most=3, clock=time.clock)
    strict = policy(time, told, budget=budget, wait_initial=0.001, wait_max=0.001)
    with pytest.raises(OSError) as caught:
        strict.on_gap()(failing(time, unreachable, 0.0))()
    assert [one.wait is None for one in told] == [False, False, False, True]
    assert told[-1].why == "the retry budget is spent" and "budget" in caught.value.__notes__[0]
    time.now += 10
    assert [budget.take() for _ in range(4)] == [True, True, True, False]


def test_a_hook_that_fails_is_logged_and_the_request_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()

    def hook(_: retry.Retry) -> None:
        raise RuntimeError("the metrics server is down")

    chosen = retry.Policy(clock=time.clock, sleep=time.sleep, budget=None, hooks=(hook, retry.log_retry))
    with caplog.at_level(logging.WARNING, "hitless.retry"):
        assert chosen.on_gap()(failing(time, unreachable, 1.0, until=time.now + 1))() == "answer"
    assert "metrics server" in caplog.text and "attempt 1 failed" in caplog.text


@pytest.mark.parametrize("field", ["deadline", "connect_timeout", "wait_initial", "wait_max"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_policy_refuses_what_makes_no_sense(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        retry.Policy(**{field: value})  # type: ignore[arg-type]
