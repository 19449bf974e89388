"""What lies in bench/ can be run by hand as it is; what is only a part of it lies in bench/parts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
LIMIT = 400


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(BENCH.glob("*.py")), ids=lambda path: path.name)
def test_a_bench_tells_how_it_is_run_from_any_folder(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(path), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {path.name}")


@pytest.mark.parametrize("path", sorted(BENCH.rglob("*.py")), ids=lambda path: str(path.relative_to(BENCH)))
def test_a_bench_holds_one_idea_in_at_most_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LIMIT
