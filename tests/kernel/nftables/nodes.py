"""A network namespace of its own to try rules in, and the programs that write them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hitless.errors import HitlessError, ProgramError
from hitless.kernel import netlink, processes
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import dump

HANG = 60.0  # nothing here takes a tenth of it


def missing(reason: str) -> None:
    """Skip, or fail where the machine must have everything."""
    if os.environ.get("REQUIRE_KERNEL") == "1":
        pytest.fail(f"REQUIRE_KERNEL is set, but {reason}")
    pytest.skip(reason)


@dataclass(frozen=True)
class Node:
    """A namespace with its own rules and its own /run."""

    namespace: Namespace

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        return processes.run(command, namespace=self.namespace, stdin=stdin, check=check).stdout

    def nft(self, text: str) -> bool:
        """One transaction; false when the kernel refused it."""
        try:
            self.run("nft", "-f", "-", stdin=text)
        except ProgramError:
            return False
        return True

    def iptables(self, *arguments: str, check: bool = True) -> str:
        return self.run("iptables-nft", *arguments, check=check)


@contextlib.contextmanager
def node() -> Iterator[Node]:
    ready = "mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec sleep infinity"
    try:
        process = processes.start(["unshare", "-nm", "sh", "-c", ready], stdout=-1)
    except HitlessError as error:
        missing(str(error))
        raise
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            missing("this process may not make network namespaces")
        namespace = Namespace.of_process("test", process.pid)
        try:
            with netlink.Socket(netlink.NETFILTER, namespace) as control:
                dump.generation(control)
        except HitlessError as error:
            missing(str(error))
        yield Node(namespace)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def wait_for(condition: object, what: str) -> None:
    """Until ``condition()`` holds."""
    assert callable(condition)
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"waited {HANG} s for {what}"
        time.sleep(0.01)


def programs(*names: str) -> None:
    for name in names:
        if not any(Path(folder, name).exists() for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin")):
            missing(f"the program {name} is not installed")
