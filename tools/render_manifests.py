"""Render the plain manifests in deploy/manifests from the chart, with helm.

Promise: what is in the folder is what the chart says with its defaults; a test fails when it is not.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "hitless-system"
VARIANTS = {
    "guard.yaml": ("guard.enabled=true", "drill.enabled=false"),
    "drill.yaml": ("guard.enabled=false", "drill.enabled=true"),
}
HEAD = f"""# Rendered from deploy/chart by tools/render_manifests.py. Change the chart, not this file.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: privileged
"""


def helm() -> str:
    """The program, from .venv/bin or PATH."""
    found = shutil.which("helm", path=f"{ROOT / '.venv/bin'}") or shutil.which("helm")
    if found is None:
        sys.exit("helm is not installed: .venv/bin/python tools/get_helm.py")
    return found


def render(settings: tuple[str, ...]) -> str:
    """One manifest file."""
    command = [helm(), "template", "hitless", str(ROOT / "deploy/chart"), "--namespace", NAMESPACE, "--skip-tests"]
    for setting in settings:
        command += ["--set", setting]
    return HEAD + subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    for name, settings in VARIANTS.items():
        (ROOT / "deploy/manifests" / name).write_text(render(settings))
