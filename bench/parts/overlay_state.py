"""What the state file of leases costs: writing or reading it, each in a process of its own.

    python -m bench.parts.overlay_state write NODES FILE
    python -m bench.parts.overlay_state read NODES FILE

Prints one JSON object: time and processor of one write or read (medians), and by how much it grows the resident memory,
at its peak and afterwards. ``measure`` runs both.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.sources.lease_cache import CachedState, read_state, write_state

TIMES = 9


def leases(count: int) -> dict[str, Lease]:
    """Dual-stack vxlan leases of so many nodes."""
    found = {}
    for number in range(count):
        mac = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        four = Endpoint(ip_network((0x0A000000 + (number << 8), 24)), ip_address(0xC6120000 + number), mac, 1)
        six = Endpoint(
            ip_network(((0xFD42 << 112) + (number << 64), 64)), ip_address((0x20010DB8 << 96) + number), mac, 1
        )
        name = f"node-{number:05d}"
        found[name] = Lease(name, BackendType.VXLAN, {Family.IPV4: four, Family.IPV6: six})
    return found


def resident() -> float:
    """MB now."""
    text = Path("/proc/self/statm").read_text().split()[1]
    return int(text) * resource.getpagesize() / 1e6


def peak() -> float:
    """MB at most since the process started; ``ru_maxrss`` would begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) * 1024 / 1e6


def cost(work: Callable[[], object]) -> dict[str, float]:
    """Milliseconds (elapsed, processor; medians) and megabytes (peak and afterwards, above those before)."""
    before = resident()
    elapsed, processor = [], []
    for _ in range(TIMES):
        at, used = time.perf_counter(), time.process_time()
        work()
        elapsed.append((time.perf_counter() - at) * 1000)
        processor.append((time.process_time() - used) * 1000)
    return {
        "ms": statistics.median(elapsed),
        "processor_ms": statistics.median(processor),
        "peak_mb": max(0.0, peak() - before),
        "after_mb": max(0.0, resident() - before),
    }


def measure(count: int) -> dict[str, dict[str, float]]:
    """Both for so many nodes; ``file`` has the size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        found = {}
        for what in ("write", "read"):
            line = [sys.executable, "-m", "bench.parts.overlay_state", what, str(count), str(path)]
            done = subprocess.run(line, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[2])
            found[what] = json.loads(done.stdout)
        return {**found, "file": {"bytes": path.stat().st_size}}


def main() -> None:
    what, count, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if what == "write":
        state = CachedState("nodes of a cluster", "node-00000", {}, {}, leases(count))
        print(json.dumps(cost(lambda: write_state(path, state))))
    else:
        print(json.dumps(cost(lambda: read_state(path))))


if __name__ == "__main__":
    main()
