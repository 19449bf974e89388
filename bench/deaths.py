"""The overlay, killed (SIGKILL) before and after every single write of every transition, on this machine's kernel.

    python bench/deaths.py [WORDS]

Each transition goes on in a namespace: first whole, then once for each write and side of it, each time from the same
beginning. After every write of the whole transition, and of the start that follows a death, the kernel is read, and
each peer that stays has to have its route, neighbour and forwarding entry (or its plain route) to the right node. The
state at the end has to be the same each time. WORDS: only transitions with these words in their names. Ends with 1
where something was wrong. Root is needed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.overlay.deaths import GAPS, STORIES, place, tried


def main() -> int:
    """Go through all stories."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only transitions with these words in their names")
    words = " ".join(parser.parse_args().words)
    print(f"Linux {platform.release()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    wrong = deaths = writes = 0
    begun = time.monotonic()
    for name in STORIES:
        if words not in name:
            continue
        with place() as node:
            found = tried(node, name)
        wrong, deaths, writes = wrong + len(found.wrong), deaths + found.deaths, writes + found.writes
        gap = " (peers are forgotten by the kernel for a moment: only the end is compared)" if name in GAPS else ""
        print(
            f"{'MISSED' if found.wrong else 'ok    '} {name}: {found.writes} writes, {found.deaths} deaths{gap}",
            flush=True,
        )
        for one in found.wrong[:5]:
            print(f"       {one}")
    print(f"{writes} writes, {deaths} deaths, {wrong} wrong, {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
