"""Planted defects: after how many random steps each is found, and the shortest history that shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.unit.histories import Kind, Planted, found_after, shrunk

__all__ = ["search", "shrink"]


def search(kind: Kind, defects: Mapping[str, Planted], steps: int, seed: str) -> int:
    """Plant each, and take random steps; how many are not found within ``steps``."""
    missed = 0
    for name, defect in defects.items():
        after, what = found_after(kind, defect, steps, seed)
        missed += not after
        print(f"{f'{after:,} steps' if after else 'MISSED':>12}  {name}: {_first(what)}", flush=True)
    return missed


def shrink(kind: Kind, defects: Mapping[str, Planted], examples: int) -> int:
    """Plant each, and let Hypothesis look for the shortest history; how many are not found in so many examples."""
    missed = 0
    for name, defect in defects.items():
        begun = time.process_time()
        found = shrunk(kind, defect, examples=examples)
        took = time.process_time() - begun
        missed += found is None
        if found is None:
            print(f"{'MISSED':>10}  {name} ({took:.1f} s)", flush=True)
            continue
        print(f"{len(found.actions):>2} actions  {name} ({took:.1f} s, {found.steps:,} steps): {_first(found.what)}")
        print(f"{'':>12}{', '.join(f'{action}({_values(values)})' for action, values in found.actions)}", flush=True)
    return missed


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _first(text: str) -> str:
    return text.partition("\n")[0]
