"""What the drill's kernel tests share: running the command as users do, and knowing what it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.lab.worlds import need

from hitless import lab

HANG = 300.0
"""Seconds after which a command counts as hung; the longest takes a quarter of it on a quiet machine."""

HITLESS = (sys.executable, "-m", "hitless")
BUSY = ("too busy", "half of its rate", "starved")
"""What the verdict says of a machine that is too busy to measure on."""


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
    need(lab.Plan())
    done = subprocess.run(
        [*HITLESS, *words], capture_output=True, text=True, timeout=timeout, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


def busy(agent: dict[str, Any]) -> bool:
    """Whether this machine was too busy to measure on, by the drill's own words."""
    return agent["verdict"] == "inconclusive" and any(word in " ".join(agent["reasons"]) for word in BUSY)


def start(*words: str) -> tuple[subprocess.Popen[str], str]:
    """Start the command with a word in its environment by which everything that it starts is known."""
    need(lab.Plan())
    mark = f"HITLESS_TEST_MARK={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    process = subprocess.Popen(
        [*HITLESS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, name: value},
        # a shell in the background may have told us to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )  # fmt: skip
    return process, mark


def left(mark: str) -> list[str]:
    """The command lines of processes with this word in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found
