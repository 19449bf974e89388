"""What holds for every test."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

# no wall-clock asserts: on a busy machine an example may take as long as it likes (pytest's own timeout bounds a hang)
settings.register_profile("hitless", deadline=None)
settings.load_profile("hitless")


# A shell starts what it puts into the background with SIGINT ignored, and programs inherit that: ours are to be
# interrupted as at a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Complaints(logging.Handler):
    """What asyncio says of tasks that nobody waited for: exceptions never retrieved, tasks destroyed while pending."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture(autouse=True)
def no_task_is_forgotten() -> Iterator[None]:
    """asyncio only logs such a defect, on a standard error that nobody reads: here it fails the test."""
    logger = logging.getLogger("asyncio")
    complaints = _Complaints()
    logger.addHandler(complaints)
    try:
        yield
        gc.collect(1)  # a task with a traceback is a cycle: without this it would complain in another test, or never
    finally:
        logger.removeHandler(complaints)
    assert not complaints.said, "\n".join(complaints.said)
