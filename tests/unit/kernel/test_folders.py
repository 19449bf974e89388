"""Which files of a directory changed: named by inotify, or all of them where inotify does not report them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.kernel.folders import Changed, FolderWatch

HANG = 20.0


def until(watch: FolderWatch, right: Callable[[Changed], bool]) -> list[Changed]:
    """What it reports, until the first report that fits."""
    reported: list[Changed] = []
    end = time.monotonic() + HANG
    while not reported or not right(reported[-1]):
        assert time.monotonic() < end, reported
        watch.wait()
        reported.append(watch.changed())
    return reported


def test_the_first_time_everything_has_to_be_read_and_then_what_changed(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch:
        assert watch.changed().whole
        watch.took(0.0)
        assert watch.changed() == Changed()
        (tmp_path / "a").write_text("1")
        reported = until(watch, lambda one: "a" in one.names)
        assert not any(one.whole for one in reported)
        (tmp_path / "b").write_text("1")
        (tmp_path / "b").rename(tmp_path / "c")
        reported = until(watch, lambda one: "c" in one.names)
        assert "b" in {name for one in reported for name in one.names} and not any(one.whole for one in reported)
        (tmp_path / "a").unlink()
        assert not any(one.whole for one in until(watch, lambda one: "a" in one.names))


@pytest.mark.slow
def test_without_inotify_a_change_is_noticed_by_the_directorys_time(tmp_path: Path) -> None:
    with FolderWatch(tmp_path, inotify=False) as watch:
        until(watch, lambda one: one.whole)
        watch.took(0.0)
        until(watch, lambda one: one == Changed())
        (tmp_path / "a").write_text("1")
        until(watch, lambda one: one.whole)


@pytest.mark.parametrize("inotify", [True, False])
def test_everything_is_read_now_and_then_and_less_often_the_longer_it_takes(tmp_path: Path, inotify: bool) -> None:
    now = 1000.0
    os.utime(tmp_path, (1000, 1000))
    with FolderWatch(tmp_path, clock=lambda: now, inotify=inotify) as watch:
        assert watch.changed().whole
        watch.took(0.0)
        usual = 30.0 if inotify else 5.0
        now += usual - 0.1
        assert not watch.changed().whole
        now += 0.2
        assert watch.changed().whole
        watch.took(1.0)
        now += 399.0
        assert not watch.changed().whole
        now += 2.0
        assert watch.changed().whole
        watch.took(0.0)
        watch.again()
        assert watch.changed().whole


def test_a_directory_in_the_place_of_the_old_one_is_followed(tmp_path: Path) -> None:
    folder, other = tmp_path / "leases", tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("1")
    with FolderWatch(folder) as watch:
        assert watch.changed().whole and folder.is_dir()  # it is made
        watch.took(0.0)
        folder.rename(tmp_path / "away")
        other.rename(folder)
        until(watch, lambda one: one.whole)
        watch.took(0.0)
        (folder / "a").write_text("1")
        assert not until(watch, lambda one: "a" in one.names)[-1].whole
        (tmp_path / "away" / "b").write_text("1")
        (folder / "c").write_text("1")
        assert not any("b" in one.names for one in until(watch, lambda one: "c" in one.names))


def test_a_directory_that_goes_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "leases"
    with FolderWatch(folder) as watch:
        assert watch.changed().whole
        watch.took(0.0)
        folder.rmdir()
        until(watch, lambda one: one.whole)
        assert folder.is_dir()


def test_wake_ends_a_wait_also_when_it_came_before(tmp_path: Path) -> None:
    with FolderWatch(tmp_path) as watch:
        watch.wake()
        watch.wait(HANG)
        thread = threading.Thread(target=watch.wait, args=(HANG,))
        begun = time.monotonic()
        thread.start()
        watch.wake()
        thread.join(HANG)
        assert not thread.is_alive() and time.monotonic() - begun < HANG
    watch.wake()  # after the end: nothing
    watch.close()
