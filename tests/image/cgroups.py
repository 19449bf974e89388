"""Control groups that a runtime left behind: an empty one is no process's any more, and still is in everybody's way."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

__all__ = ["remove"]

_PATIENCE = 30.0


def remove(pattern: str) -> None:
    """Take away those whose name fits, below the root of version 2 and of each hierarchy of version 1.

    The kernel refuses (EBUSY) while the last process in one is still ending, so that it is asked again for a while.
    """
    end = time.monotonic() + _PATIENCE
    while left := [path for place in ("", "*/") for path in Path("/sys/fs/cgroup").glob(place + pattern)]:
        for path in left:
            # innermost first; runc or the shim may be taking them away at the same time
            for one in (*sorted((below for below in path.rglob("*") if below.is_dir()), reverse=True), path):
                with contextlib.suppress(OSError):
                    one.rmdir()
        assert time.monotonic() < end, f"processes stay in {', '.join(map(str, left))}"
        time.sleep(0.02)
