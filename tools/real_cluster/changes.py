"""Changes of flannel's links, addresses, routes, neighbours and rules on a node, as the kernel reports them.

Promise: each report is kept with its time, whoever made the change; iproute2's and nft's own monitors do the listening,
so that nothing of ours judges itself. Never: counts what pods, kube-proxy or the kernel's own ageing change.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tools.real_cluster.folder import within
from tools.real_cluster.node import Node

_MONITORS = (
    ("ip", "-o", "monitor", "link", "address", "route", "neigh"),
    ("bridge", "monitor", "fdb"),
    ("nft", "monitor"),
)
_FLANNELS = re.compile(r"flannel|blackhole", re.IGNORECASE)
_KERNELS = re.compile(r"^(Deleted )?ff[0-9a-f]{2}:\S+ dev \S+ lladdr \S+ NOARP")
"""A multicast neighbour, which the kernel makes and ages by itself."""

_BEGIN = 1.0


class Changes:
    """What the monitors of all nodes said, with the time at which it was read."""

    def __init__(self) -> None:
        self._lines: list[tuple[float, str]] = []

    def between(self, begin: float, end: float) -> list[str]:
        """What was reported in an interval (Unix seconds)."""
        return [text for when, text in list(self._lines) if begin <= when < end]

    def read(self, node: str, process: subprocess.Popen[str]) -> None:
        """Keep what concerns flannel, until the monitor ends."""
        assert process.stdout is not None
        for line in process.stdout:
            if _FLANNELS.search(line) and not _KERNELS.match(line):
                self._lines.append((time.time(), f"{node}: {line.strip()}"))


@contextmanager
def watched(nodes: Sequence[Node]) -> Iterator[Changes]:
    """Listen on every node while it is entered."""
    found = Changes()
    processes: list[subprocess.Popen[str]] = []
    readers: list[threading.Thread] = []
    try:
        for node in nodes:
            for monitor in _MONITORS:
                process = subprocess.Popen(
                    within(node.namespace, ["stdbuf", "-oL", *monitor]),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                processes.append(process)
                reader = threading.Thread(target=found.read, args=(node.name, process))
                reader.start()
                readers.append(reader)
        time.sleep(_BEGIN)
        yield found
        if ended := [one.args for one in processes if one.poll() is not None]:
            raise RuntimeError(f"a monitor ended by itself: {ended}")
    finally:
        for one in processes:
            one.terminate()
        for reader in readers:
            reader.join()
        for one in processes:
            one.wait()
            assert one.stdout is not None
            one.stdout.close()
