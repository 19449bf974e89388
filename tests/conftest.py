"""Settings and checks for all tests.

Hypothesis draws new examples in a developer's run, and in CI (``CI`` or ``REQUIRE_KERNEL`` is set) the same ones for
the same commit: the result does not change from run to run, and a failure can be reproduced by setting the variable. To
explore, without it::

    pytest tests/unit                               # new examples; failures are kept in .hypothesis/ and tried first
    pytest tests/unit --hypothesis-seed=7           # others, the same each time
    pytest tests/unit --hypothesis-profile=explore  # fifty times as many

What an exploration finds becomes an ``@example`` or a test.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import pkgutil
import signal
from collections.abc import Iterator

import pytest
import tools
from hypothesis import HealthCheck, is_hypothesis_test, settings
from tests import excuses

import hitless

IN_CI = any(os.environ.get(name) for name in ("CI", "REQUIRE_KERNEL"))

# No deadline: on a busy machine an example, and drawing it (too_slow), may take long; pytest's timeout ends a hang. The
# other health checks count examples, and stay.
settings.register_profile("hitless", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=IN_CI)
settings.register_profile("explore", settings.get_profile("hitless"), derandomize=False, max_examples=5000)
settings.load_profile("hitless")


# A shell starts background jobs with SIGINT ignored, and programs inherit that: here they must be interruptible.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Load all modules: Hypothesis also draws constants from loaded ones, and the examples must be the same in any
    order of tests, on any of xdist's workers."""
    if IN_CI and any(isinstance(item, pytest.Function) and is_hypothesis_test(item.obj) for item in session.items):
        for package in (hitless, tools):
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith(".__main__"):
                    importlib.import_module(module.name)


class _AsyncioErrors(logging.Handler):
    """asyncio's log of tasks that were not awaited: exceptions never retrieved, tasks destroyed while pending."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


@pytest.fixture(autouse=True)
def no_task_is_forgotten() -> Iterator[None]:
    """asyncio only logs such a defect: here it fails the test."""
    logger = logging.getLogger("asyncio")
    errors = _AsyncioErrors()
    logger.addHandler(errors)
    try:
        yield
        gc.collect(1)  # a task with a traceback is a cycle: without this the log came in another test, or never
    finally:
        logger.removeHandler(errors)
    assert not errors.messages, "\n".join(errors.messages)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    """A worker of xdist has ended: take over what it excused."""
    excuses.CHECKS.update(getattr(node, "workeroutput", {}).get("excused", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of a worker: hand on what was excused."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["excused"] = dict(excuses.CHECKS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many checks were excused by a tool's own lateness."""
    for number, line in enumerate(excuses.lines(excuses.CHECKS)):
        if not number:
            terminalreporter.section("excused")
        terminalreporter.write_line(line)
