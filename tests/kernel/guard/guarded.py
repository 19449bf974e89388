"""A lab node with an agent's stand-in, a guard and a prober: what the guard's stories share."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.lab.worlds import HANG, need, run, stand_in, until, up

from hitless import lab
from hitless.kernel import namespaces, processes
from hitless.kernel.nftables.owned import Count, OwnedTables
from hitless.model.families import Backend, Family
from hitless.model.standby import TABLE
from hitless.probe.tuples import FIRST_PORT

__all__ = ["HANG", "World", "nft", "tables", "unhurt", "until", "world"]

CLI = [sys.executable, "-P", "-m", "hitless"]


@dataclass
class World:
    """One node (the first), its pod, the far end; everything that was started is killed at the end."""

    cluster: lab.Lab
    folder: Path
    started: list[processes.Process] = field(default_factory=list)
    # conntrack knows a flow again by its ports: none comes twice (the kernel's choice is random), nor as the prober's
    ports: Iterator[int] = field(default_factory=lambda: iter(range(2000, FIRST_PORT)))

    @property
    def node(self) -> lab.LabNode:
        return self.cluster.nodes[0]

    @property
    def pod(self) -> lab.LabPod:
        return self.node.pods[0]

    def on_node(self, *command: str, check: bool = True) -> str:
        return run(self.node.namespace, *command, check=check)

    # --- the agent

    def agent(self, name: str, *more: str) -> processes.Process:
        process = stand_in(self.cluster, name, *more)
        self.started.append(process)
        return process

    def end(self, process: processes.Process, number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        if process.stdout is not None:
            process.communicate(timeout=HANG)
        return process.wait(timeout=HANG)

    # --- the guard

    def guard(self, *flags: str, ready: bool = True) -> processes.Process:
        """A guard in the node; its records go to ``records``."""
        with (self.folder / "guard.log").open("ab") as log:
            process = processes.start(
                [*CLI, "guard", "--journal", str(self.folder / "journal.jsonl"), *flags],
                namespace=self.node.namespace,
                stderr=log,
            )
        self.started.append(process)
        if ready:
            until(lambda: self.state().get("pid") == process.pid or process.poll() is not None, "the guard being ready")
            assert process.poll() is None, self.log()
        return process

    def log(self) -> str:
        path = self.folder / "guard.log"
        return path.read_text() if path.exists() else ""

    def state(self) -> dict[str, Any]:
        """What the guard wrote down for ``status``."""
        try:
            found: dict[str, Any] = json.loads((self.node.root / "run/hitless-guard/state.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def side(self, family: Family = Family.IPV4) -> dict[str, Any]:
        found: dict[str, Any] = self.state().get("families", {}).get(family.value, {})
        return found

    def until_state(self, word: str, family: Family = Family.IPV4) -> None:
        until(lambda: self.side(family).get("state") == word, f"state {word!r} (log: {self.log()[-2000:]})")

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """What is in the journal by now: whole lines, one may be in the writing."""
        path = self.folder / "journal.jsonl"
        lines = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
        return [each for each in map(json.loads, lines) if not kind or each["type"] == kind]

    def ended(self, kind: str) -> list[dict[str, Any]]:
        """The gaps that are over: one that lasts ten seconds is also told while it is open."""
        return [each for each in self.records(kind) if not each.get("open")]

    def command(self, *words: str) -> tuple[int, str]:
        """``hitless guard WORDS`` on the node: exit code and output."""
        done = processes.run([*CLI, "guard", *words], namespace=self.node.namespace, check=False)
        return done.returncode, done.stdout + done.stderr

    def counters(self, family: Family = Family.IPV4) -> dict[str, Count]:
        held = OwnedTables(TABLE, self.node.namespace)
        try:
            return held.counters(family)
        finally:
            held.close()

    # --- traffic

    @contextmanager
    def probing(self, rate: int = 300, timeout: float = 30.0) -> Iterator[dict[str, int]]:
        """New flows from the pod throughout the block; afterwards the dictionary has what came of them.

        ``timeout`` bears with a far end that the machine keeps waiting. A packet that is lost shows all the same: what
        is answered at a later try only is ``delayed``, however long the first answer took.
        """
        targets = [str(addresses[0]) for addresses in self.cluster.far_end.addresses.values()]
        binds = [word for target in targets for word in ("--bind", target)]
        to = [word for t in targets for word in ("--to", f"farend://[{t}]" if ":" in t else f"farend://{t}")]
        out = self.folder / "probe.jsonl"
        answers = self.folder / "farend.jsonl"
        with answers.open("wb") as file:
            far = processes.start(
                [*CLI, "farend", "--json", *binds], namespace=self.cluster.far_end.namespace, stdout=file
            )
        self.started.append(far)
        until(lambda: answers.read_bytes().count(b"\n") > 0, "the far end listening")
        pace = ["--rate", str(rate), "--timeout", f"{timeout:g}", "--mix", "tcp=6,udp=3,icmp=1"]
        with out.open("wb") as file:
            probe = processes.start([*CLI, "probe", "--json", *pace, *to], namespace=self.pod.namespace, stdout=file)
        self.started.append(probe)
        until(lambda: self.attempts()["sent"], "the first attempts being answered")
        told: dict[str, int] = {}
        yield told
        until(lambda: self.attempts()["sent"] > rate // 4, "attempts enough for a judgement")
        probe.send_signal(signal.SIGTERM)
        probe.wait(timeout=HANG)
        told |= self.attempts()

    def attempts(self) -> dict[str, int]:
        """What came of the prober's attempts by now."""
        counted = ("sent", "lost", "delayed", "leaked")
        told: dict[str, int] = dict.fromkeys((*counted, *(family.value for family in Family)), 0)
        for line in (self.folder / "probe.jsonl").read_text().rpartition("\n")[0].splitlines():
            event = json.loads(line)
            if event["type"] == "attempts":
                for name in counted:
                    told[name] += event.get(name, 0)
                told[event["family"]] += event["sent"]
        return told

    def remember(self) -> None:
        """Let conntrack keep a flow that is not answered for longer than its 30 s: for tests that find it again."""
        self.on_node("sysctl", "-q", "-w", "net.netfilter.nf_conntrack_udp_timeout=600")

    def udp(self, family: Family = Family.IPV4, *, connect: bool = True) -> socket.socket:
        """A datagram socket in the pod, connected to the far end's discard port."""
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        sender = namespaces.inside(self.pod.namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM))
        sender.bind(("", next(self.ports, 0)))
        if connect:
            sender.connect((str(self.cluster.far_end.addresses[family][0]), 9))
        return sender

    def far_udp(self, family: Family = Family.IPV4) -> socket.socket:
        return self.far_udp_at(str(self.cluster.far_end.addresses[family][0]))

    def far_udp_at(self, address: str) -> socket.socket:
        """A socket on one of the far end's addresses, at the discard port."""
        family = Family.IPV6 if ":" in address else Family.IPV4
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        receiver = namespaces.inside(self.cluster.far_end.namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM))
        receiver.bind((address, 9))
        receiver.settimeout(HANG)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        return receiver

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.close()
            process.wait(timeout=HANG)


@contextmanager
def world(
    folder: Path, *, backend: Backend = Backend.NFT, family: str = "ipv4", pods: int = 1, policy: str = "accept"
) -> Iterator[World]:
    plan = lab.LabPlan(nodes=1, pods_per_node=pods, backend=backend, family=family, forward_policy=policy)
    need(plan)
    with up(plan) as cluster:
        made = World(cluster, folder)
        try:
            yield made
        finally:
            made.close()


def unhurt(told: dict[str, int]) -> bool:
    """Whether every attempt was answered at the first try, and to the node's address."""
    return told["lost"] == told["delayed"] == told["leaked"] == 0


def nft(made: World, text: str, *, check: bool = True) -> None:
    """One nft transaction on the node."""
    processes.run(["nft", "-f", "-"], namespace=made.node.namespace, stdin=text, check=check)


def tables(made: World, *, handles: bool = False, own: bool = True) -> str:
    """Every table of the node as nft lists it, without counters (``own`` false: without the guard's)."""
    listing = made.on_node("nft", *(["-a"] if handles else []), "-s", "list", "ruleset")
    kept, skipping = [], False
    for line in listing.splitlines():
        if line.startswith("table "):
            skipping = not own and f" {TABLE} " in line
        if not skipping:
            kept.append(line)
    return "\n".join(kept)
