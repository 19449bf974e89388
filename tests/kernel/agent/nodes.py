"""A lab node with the real agent running in it, and what it says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from tests.kernel.nftables.nodes import missing, programs

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace, inside
from hitless.lab.agents import environment, named
from hitless.lab.building import Lab
from hitless.lab.clusters import LabNode
from hitless.model.families import Backend

HANG = 40.0  # everything here takes a hundredth of it


class Logged:
    """A running ``hitless agent``; ``said`` is its log, read by a thread."""

    hang = HANG

    def __init__(self, process: processes.Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(json.loads(line))

    def events(self, name: str, since: int = 0) -> list[dict[str, Any]]:
        return [one for one in self.said[since:] if one["event"] == name]

    def wait(self, condition: Callable[[], object], what: str) -> None:
        end = time.monotonic() + self.hang
        while not condition():
            assert self.process.poll() is None, f"the agent ended: {self.said[-5:]}"
            assert time.monotonic() < end, f"waited {self.hang} s for {what}; last words: {self.said[-8:]}"
            time.sleep(0.01)

    def end(self, number: int | None = None) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number) if number is not None else self.process.terminate()
        code = self.process.wait(self.hang)
        self._thread.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class Agent(Logged):
    """``hitless agent`` in a lab's node."""

    def __init__(self, made: Lab, node: LabNode, *more: str) -> None:
        self.node = node
        command = [*named("hitless").command(made.plan, node), *more]
        super().__init__(
            processes.start(
                processes.command_in(node.namespace, command),
                stderr=subprocess.PIPE,
                environment=environment(made.plan, node),
            )
        )

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Status and body of /readyz, asked in the node."""
        return readyz(self.node.namespace)


def readyz(namespace: Namespace, path: str = "readyz") -> tuple[int, dict[str, Any]]:
    def ask() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:10990/{path}", timeout=HANG) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    status, body = inside(namespace, ask)
    return status, json.loads(body) if body.startswith(b"{") else {"text": body.decode()}


@contextlib.contextmanager
def agent_in(made: Lab, *more: str) -> Iterator[Agent]:
    agent = Agent(made, made.nodes[0], *more)
    try:
        agent.wait(lambda: agent.events("ready"), "ready")
        yield agent
    finally:
        if agent.process.poll() is None:
            agent.process.kill()
        if agent.process.stderr is not None and not agent.process.stderr.closed:
            agent.end(0)


@contextlib.contextmanager
def lab_with(backend: Backend) -> Iterator[Lab]:
    """A dual-stack lab; what it lacks here skips, or fails, the test."""
    programs("nft", "iptables-nft", "iptables-legacy", "ip")
    try:
        one = lab.up(plan_of(backend))
    except MissingError as error:
        missing(str(error))
        raise
    with one:
        yield one


def plan_of(backend: Backend, **more: Any) -> lab.LabPlan:
    return lab.LabPlan(family="dual", backend=backend, **more)
