"""The drill of a user who is not root: the same rules, the same packets, the same verdict, in a user namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.kernel.drill.drills import HANG, unharmed
from tests.kernel.lab.test_lab_command import NEEDED, ORDINARY, REACH
from tests.kernel.lab.worlds import machine, missing

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def test_an_ordinary_users_drill_gives_the_same_verdict(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        missing("only root can become somebody else for a test (and setpriv)")
    # not below tmp_path: another pytest that starts meanwhile shuts its parent for everybody else
    with tempfile.TemporaryDirectory(prefix="hitless-test-") as folder:
        os.chown(folder, ORDINARY, ORDINARY)
        _drill_as_somebody_else(Path(folder), tmp_path)


def _drill_as_somebody_else(home: Path, tmp_path: Path) -> None:
    script = tmp_path / "become.sh"
    script.write_text(
        REACH + f"exec setpriv --reuid={ORDINARY} --regid={ORDINARY} --clear-groups env HOME={home} TMPDIR={home} "
        '"$PYTHON" -m hitless drill --agents flannel-0.28,hitless --rounds 1 --json --quiet\n'
    )
    before = machine()
    done = subprocess.run(
        ["unshare", "-m", "sh", str(script), *NEEDED],
        env={**os.environ, "SCRATCH": str(tmp_path), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert machine() == before
    assert done.returncode in (0, 2), done.stderr
    verdict = json.loads(done.stdout)
    bad, good = verdict["agents"]
    assert (bad["verdict"], bad["gaps"]) == ("fail", 1), bad
    assert bad["writers"][0]["comm"] == "iptables-nft"
    assert bad["leaked"] > 0
    assert unharmed(good), good
    # without --out: in the state folder of his own home
    assert Path(verdict["events"]).parent.parent == home / ".local/state/hitless/drills"
    assert (Path(verdict["events"]).parent / "report.html").stat().st_uid == ORDINARY
