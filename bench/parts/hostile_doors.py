"""Every way by which foreign bytes come in, attacked at length. Part of bench/hostile.py.

Memory is the growth of the process over one attack; an input is slow by its own processor time.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

from bench.parts.guard_bounds import require
from tests.unit.hostile.doors import doors
from tests.unit.hostile.mutating import attack

SLOW_S = 2.0
SLOWLY_READ = ("kubeconfig", "profile")
GROWTH_MB = 64


def fuzz(inputs: int, seed: str, only: str = "") -> None:
    print(f"doors: seed {seed}; readers of YAML and TOML get a tenth of the inputs", flush=True)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        for door in doors(Path(name)):
            if only not in door.name:
                continue
            number = inputs // 10 if any(word in door.name for word in SLOWLY_READ) else inputs
            before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
            result = attack(door, number, seed)
            growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            words = (
                f"{door.name:24} {result.inputs:9} inputs in {time.monotonic() - begin:5.0f} s, {result.refused:9} "
                f"refused, slowest {result.slowest_s * 1000:6.1f} ms, grew by {growth:.0f} MB"
            )
            fine = not result.failures and result.slowest_s < SLOW_S and growth < GROWTH_MB
            require(fine and result.inputs == number, words)
            for data, error in result.failures:
                print(f"       {error}: {data.hex()}", flush=True)
