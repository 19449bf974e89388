"""How the parts run programs, and what a part gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tools.real_cluster.folder import NAMESPACE, ROOT, Folder, within

HITLESS = str(ROOT / ".venv/bin/hitless")


@dataclass(frozen=True)
class Row:
    """What a part gave: its figures as text, and whether it held."""

    figures: str
    held: bool


def environment(folder: Folder) -> dict[str, str]:
    """Of programs that talk to the cluster."""
    return {**os.environ, "KUBECONFIG": str(folder.kubeconfig)}


def in_cluster(folder: Folder, command: Sequence[str], *, shown: bool = False) -> subprocess.CompletedProcess[str]:
    """Run in the control plane's namespace as administrator; ``shown``: its output also goes to standard error."""
    process = subprocess.Popen(
        within(NAMESPACE, command),
        cwd=ROOT,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if shown else subprocess.PIPE,
        text=True,
    )
    if not shown:
        out, errors = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, errors)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        sys.stderr.write(line)
        lines.append(line)
    return subprocess.CompletedProcess(command, process.wait(), "".join(lines), "")


def captured(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run it, its output kept."""
    return subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def last_line(text: str) -> str:
    """Its last line that holds something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
