"""The pod's side: what the tools say is kept whole and can be read from any byte on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hitless.cluster import relay
from hitless.errors import InputError, KernelError, NotFound
from hitless.kube.relay_exits import TAKEN_OVER

WRITER = """
import signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
n = 0
while not stop and n < int(sys.argv[1]):
    print('{"n":%d}' % n, flush=True); n += 1
    if n % 100 == 0: time.sleep(0.001)
while not stop and sys.argv[2:] == ["wait"]: time.sleep(0.01)
print('{"end":%d}' % n, flush=True)
"""

RUN = """
import sys
from pathlib import Path
from hitless.cluster.relay import Relay
folder, limit, *rest = sys.argv[1:]
tools = {name: [sys.argv[0] and "-c", open(folder + "/writer").read(), *words.split()]
         for name, _, words in (one.partition("=") for one in rest)}
sys.exit(Relay(Path(folder), tools, 60.0, int(limit), (sys.executable,)).run())
"""


def start(folder: Path, *tools: str, limit: int = 1 << 20) -> subprocess.Popen[bytes]:
    (folder / "writer").write_text(WRITER)
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), str(limit), *tools])


def finish(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(120)


def collect(folder: Path, offset: int = 0) -> bytes:
    path = folder / f"out{offset}"
    with path.open("wb") as out:
        assert relay.read(folder, offset, out.fileno()) == 0
    return path.read_bytes()


def test_every_line_of_every_tool_is_kept_in_order_and_read_again_from_any_byte(tmp_path: Path) -> None:
    process = start(tmp_path, "a=3000", "b=2000")
    whole = collect(tmp_path)
    assert finish(process) == 0
    lines = whole.decode().splitlines()
    for name, count in (("a", 3000), ("b", 2000)):
        own = [line.split("\t")[1] for line in lines if line.startswith(f"{name}\t")]
        assert own == [*(f'{{"n":{n}}}' for n in range(count)), f'{{"end":{count}}}']
    assert len(lines) == 5002
    assert collect(tmp_path, 12345) == whole[12345:]


def test_tools_end_on_request_and_write_their_last_words(tmp_path: Path) -> None:
    process = start(tmp_path, "a=10 wait")
    while not (tmp_path / "events").exists() or b'"n":9' not in (tmp_path / "events").read_bytes():
        time.sleep(0.01)
    relay.stop(tmp_path)
    assert collect(tmp_path).endswith(b'a\t{"end":10}\n')
    assert process.poll() is None, "it must stay until all was read: the driver says when"
    assert finish(process) == 0


def test_a_full_spool_stops_the_tools_and_says_so(tmp_path: Path) -> None:
    process = start(tmp_path, "a=1000000", limit=4096)
    last = collect(tmp_path).decode().splitlines()[-1]
    finish(process)
    assert last.startswith("relay\t")
    assert "full" in last


def test_a_tool_that_fails_is_named_with_its_words(tmp_path: Path) -> None:
    process = start(tmp_path, "a=none")
    last = collect(tmp_path).decode().splitlines()[-1]
    assert finish(process) == 1
    assert last.startswith("relay\t")
    assert "ValueError" in last


def test_reading_where_no_relay_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no relay has run"):
        relay.read(tmp_path, 0, wait=0.0)


def reader(folder: Path, out: int) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "hitless", "relay", "read", "--spool", str(folder)]
    return subprocess.Popen(words, stdout=out, stderr=subprocess.PIPE)


def test_a_reader_that_lost_its_connection_ends_when_another_one_begins(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b"a\t{}\n" * 100_000)  # more than a pipe holds: the first one is stuck in it
    stuck, following = os.pipe()
    first = reader(tmp_path, following)
    mark = tmp_path / "reader"
    while not mark.exists() or not mark.read_text():
        time.sleep(0.01)
    waiting = reader(tmp_path, subprocess.DEVNULL)
    words = first.communicate(timeout=120)[1]
    assert b"another reader has taken over" in words
    assert first.returncode == TAKEN_OVER
    (tmp_path / "done").touch()
    assert waiting.communicate(timeout=120)[1] == b""
    assert waiting.returncode == 0
    os.close(stuck)
    os.close(following)


def test_a_spool_that_cannot_be_written_any_more_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(b"a\t{}\n")
    (tmp_path / "done").touch()
    (tmp_path / "reader").mkdir()  # as a full disk: the mark cannot be made
    with (tmp_path / "out").open("wb") as out:
        assert relay.read(tmp_path, 0, out.fileno()) == 0
    assert (tmp_path / "out").read_bytes() == b"a\t{}\n"


def test_the_clock_answers_each_line_with_rising_times() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "hitless", "relay", "clock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = process.communicate(b"\n\n\n", timeout=120)
    times = [int(line) for line in out.split()]
    assert len(times) == 3
    assert times == sorted(times)
    assert abs(times[0] - time.time_ns()) < 60_000_000_000


IDENTITY = "4f2c" * 16


def process(proc: Path, pid: int, inside: str, born: int, group: str = f"cri-containerd-{IDENTITY}") -> None:
    """What /proc says of a process of the container."""
    entry = proc / str(pid)
    entry.mkdir()
    (entry / "cgroup").write_text(f"0::/../kubepods/{group}.scope\n")
    (entry / "status").write_text(f"Name:\tsleep\nNSpid:\t{pid}{inside}\n")
    (entry / "stat").write_text(f"{pid} (a) b) S {' '.join('0' * 18)} {born} 0 0\n")


@pytest.mark.parametrize("own", [True, False], ids=["its own process ids", "the host's"])
def test_a_container_is_signalled_at_its_first_process_only(tmp_path: Path, own: bool) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim, subprocess.Popen(["sleep", "60"]) as bystander:
        process(tmp_path, bystander.pid, "\t7" if own else "", 500)
        process(tmp_path, victim.pid, "\t1" if own else "", 400)
        process(tmp_path, 1, "", 100, f"crio-conmon-{IDENTITY}")
        assert relay.signal_container(f"containerd://{IDENTITY}", signal.SIGKILL, tmp_path) == victim.pid
        assert victim.wait(30) == -signal.SIGKILL
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [(PermissionError, KernelError, "another user"), (ProcessLookupError, NotFound, "just ended")],
)
def test_a_container_that_cannot_be_signalled_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError], kind: type[KernelError], said: str
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise error

    process(tmp_path, 4711, "\t1", 1)
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(kind, match=said):
        relay.signal_container(f"containerd://{IDENTITY}", signal.SIGKILL, tmp_path)


def test_a_container_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="hostPID"):
        relay.signal_container("containerd://" + "a" * 64, signal.SIGKILL, tmp_path)
    with pytest.raises(InputError):
        relay.signal_container("../1", signal.SIGKILL, tmp_path)
    assert os.getpid()
