"""What the drill's kernel tests share: running the command as users do, and knowing what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.excuses import check
from tests.kernel.lab.worlds import need

from hitless import lab
from hitless.evidence import read
from hitless.kernel.cpu_priority import stolen
from hitless.model import events as e

HANG = 300.0
"""Seconds after which a command counts as hung; the longest takes a quarter of it on a quiet machine."""

HITLESS = (sys.executable, "-m", "hitless")
BUSY = ("too busy", "half of its rate", "starved", "the far end was down")
"""What the verdict says of a machine that is too busy to measure on, or let a tool stand still."""
BUSY_MACHINE = "the machine was too busy to measure on"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def agent(self, name: str) -> dict[str, Any]:
        (found,) = [agent for agent in self.verdict()["agents"] if agent["agent"] == name]
        return dict(found)


def hitless(*words: str, timeout: float = HANG, environment: dict[str, str] | None = None) -> Result:
    """Run the command to its end."""
    need(lab.LabPlan())
    done = subprocess.run(
        [*HITLESS, *words], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def busy(agent: dict[str, Any]) -> bool:
    """Whether the drill reports that this machine was too busy to measure; a tool that was killed does not count."""
    reasons = " ".join(agent["reasons"])
    return agent["verdict"] == "inconclusive" and any(word in reasons for word in BUSY) and "by itself" not in reasons


def blamed(agent: dict[str, Any]) -> int:
    """How many losses tell of the agent: not those of a prober or a far end that this machine let stand still."""
    causes: dict[str, int] = agent["causes"]
    return int(agent["lost"]) - sum(causes.get(cause, 0) for cause in ("starved", "far_end_down"))


def unharmed(agent: dict[str, Any]) -> bool:
    """No gap, no leak and nothing lost; and a pass, where this machine let it be measured."""
    found = (agent["gaps"], agent["leaked"], blamed(agent))
    measured = check(agent["verdict"] == "pass", busy(agent), BUSY_MACHINE)
    return found == (0, 0, 0) and measured


def felt(agent: dict[str, Any]) -> bool:
    """Whether connections were lost in its gaps; a prober that was late for longer than they lasted can not know."""
    late = agent["prober_lag_ms"] > agent["longest_gap_ms"] > 0
    return check(blamed(agent) > 0, late, "nothing lost in a gap: the prober was late for longer than it lasted")


@contextmanager
def lateness() -> Iterator[Callable[[Path], int]]:
    """By how much times in the log of a drill that is run here may be wrong, in nanoseconds: what its tools say of
    themselves, and what the machine was kept from its cores, which no tool sees."""
    before = stolen()

    def late(log: Path) -> int:
        events = read(log).events
        beats = [one.max_lag_ns for one in events if isinstance(one, e.Heartbeat | e.Attempts)]
        return max(*beats, stolen() - before)

    yield late


def start(*words: str, new_session: bool = False) -> tuple[subprocess.Popen[str], str]:
    """Start the command with a mark in its environment that identifies all its processes."""
    need(lab.LabPlan())
    mark = f"HITLESS_TEST_MARK={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [*HITLESS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, name: value}, start_new_session=new_session,
        # a shell in the background may have told us to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )  # fmt: skip
    return process, mark


def left(mark: str) -> list[str]:
    """The command lines of processes with this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found
