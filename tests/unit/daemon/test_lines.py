"""The log's stream: nobody waits for who reads it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from hitless.daemon.lines import LineWriter


def test_lines_come_out_whole_and_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hitless.daemon.lines._PATIENCE", 60.0)  # a disk that is slow is another story
    with (tmp_path / "log").open("wb") as file, LineWriter(file.fileno()) as lines:
        for number in range(100):
            assert lines.write(f"{number} ü \udc80\n") > 0
    assert (tmp_path / "log").read_text().splitlines() == [f"{number} ü \\udc80" for number in range(100)]


@contextmanager
def stuck() -> Iterator[tuple[IO[str], int]]:
    """A pipe that is full: its reader, and the descriptor on which its writer waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"old\n" * 1024)
    os.set_blocking(writing, True)
    with open(reading) as reader:  # noqa: PTH123 - a descriptor
        yield reader, writing


def being_written(lines: LineWriter) -> None:
    """Wait until the first line has left the queue: the thread has begun, and waits for the reader."""
    while not lines._queue.empty():
        time.sleep(0.001)


def test_a_reader_that_stops_blocks_no_writer_and_lost_lines_are_counted() -> None:
    with stuck() as (reader, writing):
        lines = LineWriter(writing, most=10)
        lines.write("0\n")
        being_written(lines)
        for number in range(1, 100):
            lines.write(f"{number}\n")
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.extend(line for line in reader if line != "old\n"))
        thread.start()
        while not any("lines lost" in line for line in found):
            lines.write("again\n")
            time.sleep(0.001)
        lines.close()
        os.close(writing)
        thread.join()
    kept = [int(line) for line in found if line[0].isdigit()]
    assert kept == list(range(11))
    lost = next(line for line in found if "lines lost" in line)
    assert json.loads(lost)["level"] == "warning"
    assert int(json.loads(lost)["event"].split()[0]) >= 100 - len(kept)


@pytest.mark.slow
def test_the_end_does_not_wait_for_such_a_reader() -> None:
    with stuck() as (reader, writing):
        lines = LineWriter(writing, most=3)
        lines.write("x\n")
        being_written(lines)
        for _ in range(9):
            lines.write("x\n")
        lines.close()
        assert lines.closed
        while reader.readline() != "x\n":
            pass  # lets the thread go on, which ends then
        lines._thread.join()
        os.close(writing)


def test_a_closed_log_is_ignored() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with LineWriter(writing) as lines:
        lines.write("x\n")
    os.close(writing)
