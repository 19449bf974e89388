"""Planted defects: after how many random steps each one is found."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from tests.unit.remembering import remembering

__all__ = ["search"]

_Seed = TypeVar("_Seed", int, str)


def search(
    names: Collection[str], found_after: Callable[[str, int, _Seed], tuple[int, str]], steps: int, seed: _Seed
) -> int:
    """Plant each; 1 when one is not found within so many steps."""
    missed = 0
    with remembering():
        for name in names:
            after, what = found_after(name, steps, seed)
            missed += not after
            print(f"{f'{after:,} steps' if after else 'MISSED':>12}  {name}: {what.partition(chr(10))[0]}", flush=True)
    print("met: every defect was found" if not missed else f"missed: {missed} of {len(names)}")
    return int(bool(missed))
