"""Who holds the lock, and what is not taken for nobody."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from hitless.errors import HitlessError, MissingError
from hitless.guard import locking, status


def test_nobody_and_somebody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert locking.holder(path) == 0
    with locking.Lock(path):
        assert locking.holder(path) == os.getpid()
    assert locking.holder(path) == 0


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_lock_that_cannot_be_read_is_not_nobodys(
    tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> int:
        raise error

    monkeypatch.setattr("os.open", fails)
    for ask in (locking.holder, locking.stop):
        with pytest.raises(MissingError, match="cannot tell whether a guard runs"):
            ask(tmp_path / "lock")
    with pytest.raises(MissingError, match="cannot tell whether a guard runs"):
        status.read(tmp_path)


@pytest.mark.parametrize("words", [b"", b"nobody\n", "²\n".encode(), b"9" * 5000])
def test_a_holder_without_a_number_is_not_nobody(tmp_path: Path, words: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "_NAMELESS", 0.05)
    path = tmp_path / "lock"
    path.write_bytes(words)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for ask in (locking.holder, locking.stop):
            with pytest.raises(MissingError, match="has not written its number"):
                ask(path)


def test_a_holder_that_is_another_process_here_is_left_alone(tmp_path: Path) -> None:
    """A number that was written in another pid namespace, or that was given to somebody else since."""
    path = tmp_path / "lock"
    child = os.fork()
    if not child:
        os.close(os.open("/dev/null", os.O_RDONLY))
        os.execvp("sleep", ["sleep", "60"])
    try:
        with path.open("w+b") as file:
            os.set_inheritable(file.fileno(), False)
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{child}\n".encode())
            file.flush()
            with pytest.raises(HitlessError, match="nothing was removed"):
                locking.stop(path)
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "a stranger was ended"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
