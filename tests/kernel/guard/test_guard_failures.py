"""A part of the guard that fails in a way that nobody foresaw ends the guard, and never its standby."""

from __future__ import annotations

import json
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import HANG, World, until, world
from tests.kernel.guard.test_guard_hardening import NET_ADMIN_ONLY, flush, standby
from tests.kernel.guard.test_guard_limits import translated

from hitless.errors import Defect
from hitless.kernel import netlink, processes
from hitless.kernel.nftables.mirror import Mirror
from hitless.kernel.nftables.receiving import Receiver
from hitless.model.families import Family
from hitless.observe.rules import RulesObserver

pytestmark = pytest.mark.kernel

BROKEN = """
import os, sys
from hitless.guard import loop
from hitless.kernel.nftables import mirror
part, kind, sign = sys.argv[1:4]
error = {"MemoryError": MemoryError, "RecursionError": RecursionError, "RuntimeError": RuntimeError}[kind]
owner, name = {"mirror": (mirror.Mirror, "next"), "loop": (loop.GuardLoop, "_timely")}[part]
old = getattr(owner, name)
def broken(self, *arguments):
    if os.path.exists(sign):
        raise error("a defect")
    return old(self, *arguments)
setattr(owner, name, broken)
from hitless.cli import main
main(["guard", *sys.argv[4:]])
"""


def broken(made: World, part: str, kind: str, sign: Path) -> processes.Process:
    """A guard of which a part breaks as soon as the file ``sign`` is there."""
    journal = str(made.folder / "journal.jsonl")
    with (made.folder / "guard.log").open("ab") as log:
        process = processes.start(
            [*NET_ADMIN_ONLY, sys.executable, "-c", BROKEN, part, kind, str(sign), "--journal", journal],
            namespace=made.node.namespace,
            stderr=log,
        )
    made.started.append(process)
    return process


@pytest.mark.parametrize(("part", "kind"), [("mirror", "MemoryError"), ("loop", "RecursionError")])
def test_a_part_that_dies_ends_the_guard_and_is_told(tmp_path: Path, part: str, kind: str) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        guard = broken(made, part, kind, tmp_path / "break")
        made.until_state("standing by")
        before = standby(made)
        (tmp_path / "break").touch()
        assert guard.wait(timeout=HANG) == 3
        assert kind in made.log().splitlines()[-1]
        assert "Traceback" not in made.log()
        flush(made)
        assert standby(made) == before
        assert translated(made)
        code, words = made.command("status")
        assert (code, words.startswith("unknown: no guard runs")) == (2, True), words
        assert "the guard ended by a failure, its standby works on: " in words
        assert kind in words
        made.guard()  # the next one bridges at once, and nothing is left of the failure
        made.until_state("carrying")
        assert made.command("status")[0] == 0


def test_whatever_ends_a_thread_comes_out_of_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The thread of the events, one floor below: its own port would have made an error of ours of it."""
    receive: Callable[..., bytes | None] = netlink.Socket.receive
    with world(tmp_path) as made:
        for error in (MemoryError(), RecursionError("deep"), ValueError("x"), struct.error("short"), OSError(5, "I/O")):
            begin = threading.Event()

            def fails(
                self: netlink.Socket,
                *,
                wait: bool = True,
                begin: threading.Event = begin,
                error: Exception = error,
            ) -> bytes | None:
                if begin.is_set() and threading.current_thread().name == "nftables-events":
                    raise error
                return receive(self, wait=wait)

            monkeypatch.setattr(netlink.Socket, "receive", fails)
            with RulesObserver((Family.IPV4,), made.node.namespace) as observer:
                begin.set()
                made.on_node("nft", "add", "table", "ip", "x")
                with pytest.raises(Defect, match=type(error).__name__):
                    for _ in range(100):
                        observer.next(0.2)
            made.on_node("nft", "delete", "table", "ip", "x")


def test_a_mirror_whose_thread_died_can_be_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(self: Receiver) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Receiver, "_follow", fails)
    with world(tmp_path) as made:
        seen = Mirror(made.node.namespace, (Family.IPV4,))
        with pytest.raises(Defect, match="a defect"):
            seen.next(HANG)
        fd = seen._receiver._socket.fileno()
        assert Path(f"/proc/self/fd/{fd}").exists()
        seen.close()
        assert seen._receiver._socket.fileno() == -1


def test_a_guard_that_stands_still_is_told(tmp_path: Path) -> None:
    """Its state says ``whole`` for ever; the time of the file says that nobody looks."""
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        guard = made.guard()
        made.until_state("standing by")
        assert made.command("status")[0] == 0
        state = made.node.root / "run/hitless-guard/state.json"
        made.on_node("kill", "-STOP", str(guard.pid))
        made.on_node("touch", "-d", "5 minutes ago", "/run/hitless-guard/state.json")
        code, words = made.command("status", "--json")
        assert code == 2
        assert "has not turned for" in json.loads(words)["problem"]
        made.on_node("kill", "-CONT", str(guard.pid))
        until(lambda: made.command("status")[0] == 0, "the guard being back")
        assert state.exists()
