"""How long is a real-time thread kept from running by a system call that cannot be interrupted? (PREEMPT_NONE)

    sudo .venv/bin/python bench/kept_core.py [--rules 250000] [--times 3]

A thread with our real-time priority sleeps 20 ms again and again, while nft commits and deletes a large table in a
network namespace of its own. Prints its longest lateness with and without the thread that moves it to another core
(``hitless.kernel.realtime_limit``). Asked for: below 0.6 s with it (two looks). Ends with 1 where that is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from hitless.kernel import realtime_limit
from hitless.kernel.cpu_priority import hasten

_SLEEP = 0.02
_ASKED = 0.6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=250_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="once, without the thread that moves")
    options = parser.parse_args()
    if options.alone:
        realtime_limit.RealtimeLimit._fetch = lambda self: None  # type: ignore[method-assign]
        print(f"{_measure(options.rules):.3f}")
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.rules:,} rules")
    alone = [sys.executable, __file__, "--alone", "--rules", str(options.rules)]
    without = [float(subprocess.check_output(alone, text=True)) for _ in range(options.times)]
    print(f"without: late by {', '.join(f'{one:.2f}' for one in without)} s at most", flush=True)
    moved = [_measure(options.rules) for _ in range(options.times)]
    print(f"moved: late by {', '.join(f'{one:.2f}' for one in moved)} s at most")
    print(f"asked for: below {_ASKED} s: {'reached' if max(moved) < _ASKED else 'missed'}")
    return 0 if max(moved) < _ASKED else 1


def _measure(count: int) -> float:
    """The longest lateness in one commit of so many rules and their deletion."""
    worst, end = [0.0], threading.Event()

    def run() -> None:
        hasten(2)
        while not end.is_set():
            begun = time.monotonic()
            time.sleep(_SLEEP)
            worst[0] = max(worst[0], time.monotonic() - begun - _SLEEP)

    with tempfile.TemporaryDirectory() as temporary:
        rules = Path(temporary, "rules.nft")
        lines = [f"add rule ip t c ip saddr 10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255} accept\n" for n in range(count)]
        rules.write_text("add table ip t\nadd chain ip t c\n" + "".join(lines))
        thread = threading.Thread(target=run)
        thread.start()
        subprocess.run(["unshare", "-n", "sh", "-c", f"nft -f {rules} && nft delete table ip t"], check=True)
        end.set()
        thread.join()
    return worst[0]


if __name__ == "__main__":
    sys.exit(main())
