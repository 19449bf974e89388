"""What bench/guard.py asks for, and whether it is met: printed as it is found out, and kept for the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

failures: list[str] = []
"""The bounds that were missed."""


def require(holds: bool, words: str) -> None:
    """Print a bound and whether it was met."""
    print(f"  {'ok  ' if holds else 'MISS'} {words}", flush=True)
    if not holds:
        failures.append(words)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as name:
        yield Path(name)
