"""The instruments of bench/agent.py: an agent in a lab's node, traffic, an independent watch, the kernel's events.

Promise: everything runs in the lab's namespaces; times are of one clock (hitless.kernel.clock); the watch and the event
counters share no code with the agent's own loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hitless.errors import EventsLostError
from hitless.kernel import netlink, processes
from hitless.kernel.clock import Clock
from hitless.kernel.commits import Commits
from hitless.kernel.conntrack import Conntrack
from hitless.kernel.namespaces import Namespace, inside
from hitless.kernel.nftables import dump
from hitless.kernel.xtables.polling import Poller
from hitless.lab.agents import environment, named
from hitless.lab.building import Lab
from hitless.model.families import Address, Backend, Family

HITLESS = (sys.executable, "-P", "-m", "hitless")
CLOCK = Clock()
_LINK, _NEIGH, _ADDRESS4, _ROUTE4, _RULE4, _ADDRESS6, _ROUTE6, _RULE6 = 1, 3, 5, 7, 8, 9, 11, 19  # RTNLGRP_*
_NEWNEIGH, _DELNEIGH, _PERMANENT = 28, 29, 0x80
_TABLES = ("nat", "filter")


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Programs that we start find compiled modules, as an installed package has them; kept in a folder of our own."""
    kept = {name: os.environ.pop(name, None) for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")}
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.update(CLOCK.environment())
        try:
            yield
        finally:
            os.environ.pop("PYTHONPYCACHEPREFIX")
            os.environ.update({name: value for name, value in kept.items() if value is not None})


class Agent:
    """The agent in a node, started and ready. ``python``: of an environment with other code."""

    def __init__(self, lab: Lab, *more: str, python: str = sys.executable) -> None:
        node = lab.nodes[0]
        _, *arguments = named("hitless").command(lab.plan, node)
        command = processes.command_in(node.namespace, [python, *arguments, *more])
        self.begun = time.monotonic()
        self.process = processes.start(command, stderr=subprocess.PIPE, environment=environment(lab.plan, node))
        self.changes = 0
        self.log: list[dict[str, Any]] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if not line.startswith(b"{"):
                raise SystemExit(f"the agent: {line.decode()}{self.process.stderr.read().decode()}")
            event = json.loads(line)["event"]
            self.changes += event == "change"
            if event == "ready":
                break
        else:
            raise SystemExit("the agent did not become ready")
        self.ready_after = time.monotonic() - self.begun
        self._drain = threading.Thread(target=self._read, daemon=True)
        self._drain.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))

    def rss(self) -> int:
        """Resident kilobytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_ns(self) -> int:
        """The same in nanoseconds, by the scheduler's own count; of the threads that are there."""
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads)

    def repairs(self, *, until: float, quiet: float) -> list[float]:
        """What its log says of repairs since it was ready, in milliseconds: when the first is there, at most ``until``
        seconds from now, and no other followed for ``quiet`` seconds."""
        end = last = time.monotonic() + until
        found: list[float] = []
        while time.monotonic() < (last + quiet if found else end):
            now = [one["milliseconds"] for one in list(self.log) if one["event"] == "repaired"]
            if len(now) > len(found):
                found, last = now, time.monotonic()
            time.sleep(0.01)
        return found

    def end(self, number: int) -> None:
        """Signal it, and wait."""
        self.process.send_signal(number)
        self.process.wait()
        self._drain.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Stream:
    """One of our tools with ``--json`` in a namespace; ``events`` grows while it runs."""

    def __init__(self, namespace: Namespace, arguments: Sequence[str], keep: Sequence[str] = ()) -> None:
        self.process = processes.start([*HITLESS, *arguments], namespace=namespace, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # its header: it runs
        self.events: list[dict[str, Any]] = []
        self._keep = frozenset(keep)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            if event["type"] in self._keep:
                self.events.append(event)

    def end(self) -> list[dict[str, Any]]:
        """Stop it; returns its events."""
        self.process.terminate()
        self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.events


def farend(lab: Lab, families: Sequence[Family]) -> Stream:
    """The far end that answers probes."""
    bind = [argument for family in families for argument in ("--bind", str(lab.far_end.addresses[family][0]))]
    return Stream(lab.far_end.namespace, ["farend", "--json", *bind])


class Traffic:
    """New connections from the first pod to the far end, and how many were lost."""

    def __init__(self, lab: Lab, rate: int, families: Sequence[Family]) -> None:
        addresses = [str(lab.far_end.addresses[family][0]) for family in families]
        to = [f"farend://[{address}]" if ":" in address else f"farend://{address}" for address in addresses]
        targets = [argument for url in to for argument in ("--to", url)]
        kind = "dual" if len(families) > 1 else families[0].value
        line = ["probe", "--json", "--rate", str(rate), "--family", kind, "--mix", "tcp=1,udp=1", *targets]
        self._probe = Stream(lab.pods[0].namespace, line, keep=("attempts",))

    @property
    def sent(self) -> int:
        """Attempts that have ended."""
        return sum(event["sent"] for event in self._probe.events)

    def end(self) -> tuple[int, int]:
        """Stop; attempts and losses."""
        events = self._probe.end()
        return sum(event["sent"] for event in events), sum(event.get("lost", 0) for event in events)


def watch(lab: Lab, families: Sequence[Family]) -> Stream:
    """The rules' watch in the first node: its gaps are those that the kernel committed."""
    networks = [argument for family in families for argument in ("--network", str(lab.plan.network(family)))]
    return Stream(lab.nodes[0].namespace, ["watch", "--json", *networks], keep=("gap", "state"))


class Changes:
    """A node's events: links, addresses, routes, rules, permanent neighbours; commits, legacy replacements."""

    def __init__(self, namespace: Namespace) -> None:
        groups = (_LINK, _NEIGH, _ADDRESS4, _ROUTE4, _RULE4, _ADDRESS6, _ROUTE6, _RULE6)
        self._socket = netlink.Socket(netlink.ROUTE, namespace, groups=groups, receive_buffer=8 << 20, timeout=0)
        self._control = netlink.Socket(netlink.NETFILTER, namespace)
        self._generation = dump.generation(self._control)
        self._commits = Commits(namespace)
        self._poller = Poller(namespace)
        self._poller.snapshot()
        self._legacy: Counter[str] = Counter()
        self._open = True
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while self._open:
            seen = self._poller.wait(1.0)
            if seen is not None:
                self._legacy.update(f"legacy {family.value} {table}" for family, table in seen.changed)

    def end(self) -> tuple[dict[str, int], Counter[str]]:
        """What changed in all, and how many transactions touched each table."""
        time.sleep(0.1)  # for the poller
        self._open = False
        self._poller.wake()
        self._thread.join()
        self._poller.close()
        tables = Counter(self._legacy)
        try:
            for commit in self._commits.ready():
                tables.update({f"{name.family} {name.table}" for name in commit.touched})
        except EventsLostError:
            tables["events lost"] = 1_000_000
        self._commits.close()
        routes = 0
        while (data := self._socket.receive(wait=False)) is not None:
            for event in netlink.messages(data):
                if event.type in (_NEWNEIGH, _DELNEIGH):
                    (state,) = struct.unpack_from("=H", event.payload, 8)
                    routes += bool(state & _PERMANENT)  # the kernel changes the others itself
                else:
                    routes += 1
        found = dump.generation(self._control) - self._generation
        self._socket.close()
        self._control.close()
        legacy = sum(self._legacy.values())
        return {"nf_tables": found, "legacy": legacy, "links, routes, neighbours": routes}, tables


class Saved:
    """A node's current rules, to be restored later."""

    def __init__(self, lab: Lab) -> None:
        self._namespace = lab.nodes[0].namespace
        kind = lab.plan.rules_backend.value
        self._texts = {
            f"{family.iptables}-{kind}-restore": processes.run(
                [f"{family.iptables}-{kind}-save"], namespace=self._namespace
            ).stdout
            for family in Family
        }
        self._other = "legacy" if kind == "nft" else "nft"

    def restore(self) -> None:
        """Restore every table, remove all other tables, and empty the connection table."""
        listed = processes.run(["nft", "list", "tables"], namespace=self._namespace).stdout.splitlines()
        natives = [line for line in listed if " flannel-" in line]
        if natives:
            text = "".join(f"delete {line}\n" for line in natives)
            processes.run(["nft", "-f", "-"], namespace=self._namespace, stdin=text)
        for program, text in self._texts.items():
            tables = {line[1:] for line in text.splitlines() if line.startswith("*")}
            missing = "".join(f"*{table}\nCOMMIT\n" for table in _TABLES if table not in tables)
            processes.run([program], namespace=self._namespace, stdin=text + missing)
        for family in Family:
            empty = "".join(f"*{table}\nCOMMIT\n" for table in _TABLES)
            processes.run([f"{family.iptables}-{self._other}-restore"], namespace=self._namespace, stdin=empty)
            forget(self._namespace, family)


def write(namespace: Namespace, backend: Backend, family: Family, text: str) -> None:
    """Write a text by the real program."""
    if backend is Backend.NFTABLES:
        processes.run(["nft", "-f", "-"], namespace=namespace, stdin=text)
    else:
        program = f"{family.iptables}-{backend.value}-restore"
        processes.run([program, "--noflush", "--wait", "5"], namespace=namespace, stdin=text)


def forget(namespace: Namespace, family: Family) -> None:
    """Empty the connection table, so that each start state is tested with new flows."""
    table = Conntrack(namespace)
    for entry in list(table.dump(family)):
        table.delete(family, entry)
    table.close()


def sock(namespace: Namespace, address: Address, port: int = 0, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A socket of a namespace, bound."""
    domain = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = inside(namespace, lambda: socket.socket(domain, kind))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((str(address), port))
    return made


class Echo:
    """Answers every datagram, and accepts every connection, until it is closed."""

    def __init__(self, namespace: Namespace, address: Address, port: int) -> None:
        self._datagrams = sock(namespace, address, port)
        self._datagrams.settimeout(0.2)
        self._datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._listener = sock(namespace, address, port, socket.SOCK_STREAM)
        self._listener.listen(1024)  # the kernel completes the handshake; accept() is not needed
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while self._open:
            try:
                data, sender = self._datagrams.recvfrom(100)
                self._datagrams.sendto(data, sender)
            except OSError:
                continue

    def close(self) -> None:
        """Stop."""
        self._open = False
        self._thread.join()
        self._datagrams.close()
        self._listener.close()


@contextlib.contextmanager
def counted() -> Iterator[tuple[str, Callable[[], int]]]:
    """A folder of wrappers for the programs that write rules; each run adds a line to a file."""
    with tempfile.TemporaryDirectory() as folder:
        for stem in ("iptables", "ip6tables"):
            for kind in ("nft", "legacy"):
                for tail in ("", "-restore", "-save"):
                    _wrap(folder, f"{stem}-{kind}{tail}", shutil.which(f"{stem}-{kind}{tail}", path="/usr/sbin:/sbin"))
        _wrap(folder, "nft", shutil.which("nft", path="/usr/sbin:/sbin"))
        log = Path(folder, "log")
        yield folder, lambda: len(log.read_text().splitlines()) if log.exists() else 0


def _wrap(folder: str, name: str, program: str | None) -> None:
    path = Path(folder, name)
    path.write_text(f'#!/bin/sh\necho {name} >> {folder}/log\nexec {program} "$@"\n')
    path.chmod(0o755)
