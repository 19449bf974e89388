"""Anything may be where a file should be: all but regular files of ours is refused at once."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hitless.cli.output_paths import write
from hitless.errors import HitlessError, InputError, MissingError
from hitless.evidence.log import LogWriter
from hitless.evidence.log import read as read_log
from hitless.guard import primaries
from hitless.guard.journal import Journal
from hitless.guard.locking import Lock
from hitless.guard.status import read as read_status
from hitless.kernel import files
from hitless.kube.kubeconfig import merged
from hitless.sources import read_netconf
from hitless.sources.subnets import read_subnet_file, write_subnet_file
from hitless.watch.profiles import load

HANG = 60


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte


def loop(path: Path) -> None:
    path.symlink_to(path)


KINDS = [fifo, device, directory, listener, endless, loop]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    "read",
    [
        read_netconf, read_subnet_file, read_log, lambda path: merged([path]), lambda path: primaries.load(str(path)),
        lambda path: load(str(path)),
    ],
    ids=["net-conf.json", "subnet.env", "event log", "kubeconfig", "guard profile", "watch profile"],
)  # fmt: skip
def test_what_is_no_plain_file_is_refused_with_its_name_and_nothing_waits(
    tmp_path: Path, make: Callable[[Path], None], read: Callable[[Path], object]
) -> None:
    path = tmp_path / "odd.toml"
    make(path)
    with pytest.raises(HitlessError) as caught:
        read(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 600


def test_a_link_to_a_plain_file_is_followed(tmp_path: Path) -> None:
    """A ConfigMap's files are links to links."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "net-conf.json").write_text('{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}')
    (tmp_path / "..data").symlink_to("data")
    (tmp_path / "net-conf.json").symlink_to("..data/net-conf.json")
    assert read_netconf(tmp_path / "net-conf.json").overlay == "vxlan"


def test_reading_stops_at_the_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert files.read(tmp_path / "a", most=100) == b"x" * 100
    with pytest.raises(OSError, match="longer than 99 bytes"):
        files.read(tmp_path / "a", most=99)


@pytest.mark.parametrize("make", [fifo, device, loop, endless])
def test_subnet_env_replaces_what_stands_there_and_writes_into_nothing_else(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "subnet.env"
    make(path)
    make(tmp_path / ".subnet.env.new")  # the draft's place too
    assert write_subnet_file(path, "FLANNEL_MTU=1450\n")
    assert path.read_text() == "FLANNEL_MTU=1450\n" and stat.S_ISREG(path.lstat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not (tmp_path / ".subnet.env.new").exists()


def test_a_hard_link_is_not_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody else's\n")
    for name in ("subnet.env", "journal", "lock", "out"):
        os.link(other, tmp_path / name)
    write_subnet_file(tmp_path / "subnet.env", "FLANNEL_MTU=1450\n")
    write(tmp_path / "out", "a report")
    journal = Journal(tmp_path / "journal")
    journal.write({"type": "gap"})  # type: ignore[arg-type]  # any record will do
    assert journal.failed == 1 and "hard link" in journal.problem
    with pytest.raises(InputError, match="hard link"), Lock(tmp_path / "lock"):
        pass
    assert other.read_text() == "somebody else's\n"


@pytest.mark.parametrize("make", [fifo, device, directory, loop, listener])
def test_the_guard_s_lock_and_journal_are_plain_files_or_not_used(tmp_path: Path, make: Callable[[Path], None]) -> None:
    for name in ("lock", "state.json", "journal"):
        make(tmp_path / name)
    journal = Journal(tmp_path / "journal")
    journal.write({"type": "gap"})  # type: ignore[arg-type]  # any record will do
    assert journal.failed == 1 and str(tmp_path / "journal") in journal.problem
    with pytest.raises(InputError, match=str(tmp_path / "lock")), Lock(tmp_path / "lock"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_somebody_else_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    os.chown(tmp_path / "journal", 12345, 12345)
    with pytest.raises(OSError, match="belongs to user 12345"):
        files.own(tmp_path / "journal", os.O_RDWR)


def test_an_event_log_is_made_new_or_not_at_all(tmp_path: Path) -> None:
    for make in KINDS:
        path = tmp_path / make.__name__
        make(path)
        with pytest.raises((InputError, MissingError)):
            LogWriter(path)


def test_a_fifo_for_the_report_that_nobody_reads_is_said_and_one_that_is_read_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "report"
    os.mkfifo(path)
    with pytest.raises(MissingError, match="FIFO without a reader"):
        write(path, "a report")
    reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE)
    try:
        for _ in range(1000):
            try:
                write(path, "a report")
                break
            except MissingError:
                continue  # cat is not there yet
        assert reader.communicate(timeout=HANG)[0] == b"a report"
    finally:
        reader.kill()
        reader.wait()
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_dev_stdout_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    """Also where it leads to a file: nothing of ours is in /dev and /proc."""
    target = tmp_path / "target"
    code = (
        "from pathlib import Path; from hitless.cli.output_paths import write; "
        "write(Path('/proc/self/fd/1'), 'a report')"
    )
    with target.open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True, timeout=HANG)
    assert target.read_text() == "a report"


def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "subnet.env"
    write_subnet_file(path, "old\n")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_subnet_file(path, "new\n")
    monkeypatch.undo()
    assert path.read_text() == "old\n" and [one.name for one in tmp_path.iterdir()] == ["subnet.env"]


def test_the_status_of_an_odd_run_dir_comes_at_once(tmp_path: Path) -> None:
    for make in KINDS:
        place = tmp_path / make.__name__
        place.mkdir()
        make(place / "state.json")
        try:
            read_status(place)
        except HitlessError:
            continue  # this process may not read the kernel's tables
