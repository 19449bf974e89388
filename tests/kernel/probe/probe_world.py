"""A lab with a pod, a node that masquerades, and a far end that answers; and runs of the real commands in it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from hitless import lab
from hitless.errors import HitlessError
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model import events as e
from hitless.model.families import Family

HITLESS = [sys.executable, "-m", "hitless"]
HANG = 60.0  # nothing here takes a tenth of it
RUNS = 10  # of a probe that must not be late: on a machine on which even the last was, nothing can be measured
PATIENT = ("--timeout", "10")  # where all is answered: a far end that is not run for some seconds is no loss
CLOCK = Clock()  # every tool's too, as in a drill: their times can be compared, and with ours

# A conntrack-using rule apart from NAT, as every real node has one: otherwise conntrack sleeps while NAT is gone.
RULES = """
table ip probe-test {
  chain forward { type filter hook forward priority filter; ct state established accept; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" ip saddr 10.42.0.0/16 masquerade; }
}
table ip6 probe-test {
  chain forward { type filter hook forward priority filter; ct state established accept; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" ip6 saddr fd42::/48 masquerade; }
}
"""

T = TypeVar("T")


@dataclass
class Tool:
    """A running ``hitless`` command and what it wrote so far."""

    process: processes.Process
    events: list[e.Event] = field(default_factory=list)
    rest: bytes = b""
    code: int = -1

    def read(self, timeout: float = 0.0) -> bool:
        """Take in what is there; false at the end of the stream."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        if not ready:
            return True
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.events += [e.decode(line) for line in lines]
        return bool(data)

    def wait_for(self, condition: Callable[[list[e.Event]], bool]) -> None:
        """Read until ``condition`` holds of the events."""
        end = time.monotonic() + HANG
        while not condition(self.events):
            assert time.monotonic() < end, self.events[-5:]
            assert self.read(0.2) or condition(self.events), "the tool ended"

    def wait_beats(self, number: int = 1) -> None:
        """Wait for so many heartbeats from now on; of those that were not read yet, none counts."""
        now = CLOCK.now()
        self.wait_for(lambda events: sum(isinstance(one, e.Heartbeat) and one.t > now for one in events) >= number)

    def wait_losses(self, number: int, cause: e.Cause = "timeout") -> None:
        """Wait for so many losses by one cause: those for which the prober blames its own sleep prove nothing."""
        self.wait_for(lambda events: sum(isinstance(one, e.Loss) and one.cause == cause for one in events) >= number)

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> int:
        """Stop it (``None``: let it end by itself), read the rest, and return its exit code."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        end = time.monotonic() + HANG
        while self.read(0.2):
            assert time.monotonic() < end, "it does not end"
        self.code = self.process.wait(timeout=HANG)
        return self.code

    def of(self, kind: type[T]) -> list[T]:
        """The events of one type."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def good(self) -> int:
        """The exit code of a run that lost nothing: a prober that was late for more than it sent cannot tell."""
        return 2 if self.totals["skipped_late"] > self.totals["sent"] else 0

    @property
    def totals(self) -> dict[str, int]:
        """The totals of its summary."""
        (summary,) = self.of(e.Summary)
        return summary.totals


@contextlib.contextmanager
def tool(namespace: Namespace, words: Sequence[str], log: Path, *, program: Sequence[str] = HITLESS) -> Iterator[Tool]:
    """Run a command until the end of the block."""
    with log.open("wb") as errors:
        process = processes.start(
            [*program, *words],
            namespace=namespace,
            stdout=subprocess.PIPE,
            stderr=errors,
            environment=CLOCK.environment(),
        )
    running = Tool(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait(timeout=HANG)
        assert process.stdout is not None
        process.stdout.close()


@dataclass
class World:
    """The lab, with short methods for what the tests do in it."""

    cluster: lab.Lab
    folder: Path
    stack: contextlib.ExitStack
    runs: int = 0

    @property
    def node(self) -> Namespace:
        return self.cluster.nodes[0].namespace

    @property
    def pod(self) -> Namespace:
        return self.cluster.nodes[0].pods[0].namespace

    def nft(self, text: str, namespace: Namespace | None = None) -> None:
        processes.run(["nft", "-f", "-"], namespace=namespace or self.node, stdin=text)

    def masquerade(self) -> None:
        """Load the rules (again); without a flush between, so that conntrack stays awake and keeps its entries."""
        self.nft(RULES)

    def stop_masquerade(self) -> None:
        self.nft("flush chain ip probe-test postrouting\nflush chain ip6 probe-test postrouting\n")

    def address(self, family: Family, index: int = 0) -> str:
        return str(self.cluster.far_end.addresses[family][index])

    def url(self, family: Family, scheme: str = "farend", rest: str = "") -> str:
        address = self.address(family)
        return f"{scheme}://[{address}]{rest}" if ":" in address else f"{scheme}://{address}{rest}"

    def pod_address(self, family: Family) -> str:
        return str(self.cluster.nodes[0].pods[0].addresses[family])

    def far_end(self, *words: str) -> Tool:
        """Start a far end at all its addresses, looking for leaks, and wait until it listens."""
        line = ["farend", "--json", "--leaks", "10.42.0.0/16", "--leaks", "fd42::/48"]
        for family in Family:
            line += ["--bind", self.address(family), "--bind", self.address(family, 1)]
        self.runs += 1
        found = self.stack.enter_context(
            tool(self.cluster.far_end.namespace, [*line, *words], self.folder / f"{self.runs}-farend")
        )
        found.wait_for(bool)
        return found

    def probe(self, *words: str, targets: Sequence[str] = ()) -> Tool:
        """Start a prober in the pod, by default to the far end in both families."""
        line = ["probe", "--json"]
        for url in targets or [self.url(family) for family in Family]:
            line += ["--to", url]
        self.runs += 1
        return self.stack.enter_context(tool(self.pod, [*line, *words], self.folder / f"{self.runs}-probe"))

    def punctual(self, *words: str, targets: Sequence[str] = (), before: Callable[[], object] | None = None) -> Tool:
        """A probe that ends by itself; one that was late by its own account is made again.

        What comes too late is skipped, and who slept takes no loss for one: with that, numbers are no longer those that
        were asked for. ``before`` is done before each.
        """
        return punctual(lambda: self.probe(*words, targets=targets), before)


def punctual(start: Callable[[], Tool], before: Callable[[], object] | None = None) -> Tool:
    """As ``World.punctual``, of probes that are started in any way."""
    for _ in range(RUNS):
        if before is not None:
            before()
        probe = start()
        probe.end(None)
        summaries = probe.of(e.Summary)
        if not summaries or not (summaries[0].totals["skipped_late"] or summaries[0].totals["slept_ns"]):
            return probe
        time.sleep(1)  # kernels send a few ICMP errors in a row, and then one a second
    pytest.fail(f"the prober was late in each of {RUNS} runs: {probe.totals}")


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """A lab of its own for one test, with masquerading on; skips (or fails) where the machine cannot have one."""
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(
                lab.up(lab.LabPlan(nodes=1, pods_per_node=1, family="dual", kubernetes=False))
            )
            made = World(cluster, folder, stack)
            made.masquerade()
        except HitlessError as error:
            if os.environ.get("REQUIRE_KERNEL") == "1":
                raise
            pytest.skip(f"no lab here: {error}")
        yield made


__all__ = ["CLOCK", "HERE", "PATIENT", "Tool", "World", "punctual", "tool", "world"]
