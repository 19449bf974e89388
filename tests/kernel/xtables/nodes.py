"""A namespace with a /run of its own, for tests of the legacy tables."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.semantics.wires import cannot, need

from hitless.kernel.namespaces import Namespace

__all__ = ["a_node", "on", "start_on"]


@contextmanager
def a_node() -> Iterator[Namespace]:
    """An empty network namespace with its own xtables lock; gone afterwards."""
    need("unshare", "nsenter")
    if os.geteuid() != 0:
        cannot("namespaces are made as root here")
    holder = subprocess.Popen(
        ["unshare", "-nm", "sh", "-c", "mount -t tmpfs tmpfs /run && echo held; exec cat >/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if holder.stdout is None or holder.stdout.readline() != "held\n":
            cannot("network namespaces cannot be made here")
        yield Namespace.of_process("node", holder.pid)
    finally:
        holder.communicate(timeout=10)


def _line(node: Namespace, command: tuple[str, ...]) -> list[str]:
    return ["nsenter", f"--net={node.net}", f"--mount={node.mnt}", "--", *command]


def on(node: Namespace, *command: str, stdin: str = "", environment: dict[str, str] | None = None) -> str:
    """Run a program to its end; its failure is the test's."""
    done = subprocess.run(
        _line(node, command),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}\n{stdin}"
    return done.stdout


def start_on(node: Namespace, *command: str) -> subprocess.Popen[str]:
    """Start a program whose standard input and output are ours."""
    return subprocess.Popen(_line(node, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
